//! The messages between the two processes.
//!
//! A body is one octet for the version, one for the kind, and the fields of the kind: numbers big-endian, octets after
//! their length in two octets. Each message has one encoding.

use certseal_wire::KeyId;
use rustls::SignatureScheme;

use crate::frame::MAX_FRAME;

/// A request of the network-facing process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Which keys are loaded.
    Loaded,
    /// Whether a sealed key opens. It is not kept open for that.
    Check(SealedFor<'a>),
    /// To open a sealed key and compare it with its certificate, since signatures with it are to come.
    Open(SealedFor<'a>),
    /// A signature.
    Sign {
        /// By which key.
        key: SealedFor<'a>,
        /// How (RFC 8446, 4.2.3).
        scheme: SignatureScheme,
        /// The message to sign, not hashed yet.
        message: &'a [u8],
    },
}

/// A sealed key and the public half that it has to be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedFor<'a> {
    /// [`certseal_seal::Sealed`].
    pub sealed: &'a [u8],
    /// The certificate's SubjectPublicKeyInfo, DER.
    pub spki: &'a [u8],
}

/// An answer of the signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// The ids of the loaded keys.
    Loaded(Vec<KeyId>),
    /// The check holds, or the key is open.
    Done,
    /// A signature.
    Signature(Vec<u8>),
    /// The key cannot be used; the reason names nothing secret.
    Unusable(String),
    /// The unseal key cannot be reached now.
    Unavailable(String),
    /// The signer does not do that.
    Refused(String),
}

/// Why octets are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The other side speaks another version.
    #[error("expected version {VERSION} of the signer's protocol, got {0}: let both processes run the same release")]
    Version(u8),
    /// A field is longer than it may be.
    #[error("a field of a message is too long")]
    TooLong,
    /// Anything else.
    #[error("a message is malformed")]
    Malformed,
}

impl<'a> Request<'a> {
    /// The frame, with its length.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn to_frame(&self) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Loaded => Writer::new(LOADED).finish(),
            Self::Check(key) => Writer::new(CHECK).key(key)?.finish(),
            Self::Open(key) => Writer::new(OPEN).key(key)?.finish(),
            Self::Sign { key, scheme, message } => {
                let writer = Writer::new(SIGN).key(key)?;
                writer.number(u16::from(*scheme)).octets(message, MAX_MESSAGE)?.finish()
            }
        }
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let (kind, mut reader) = Reader::new(body)?;
        let request = match kind {
            LOADED => Self::Loaded,
            CHECK => Self::Check(reader.key()?),
            OPEN => Self::Open(reader.key()?),
            SIGN => {
                Self::Sign { key: reader.key()?, scheme: reader.number()?.into(), message: reader.octets(MAX_MESSAGE)? }
            }
            _ => return Err(FrameError::Malformed),
        };
        reader.finish(request)
    }
}

impl Response {
    /// The frame, with its length. Too long a reason is cut.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn to_frame(&self) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Loaded(ids) => {
                let ids: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
                Writer::new(LOADED).octets(&ids, MAX_KEYS * KEY_ID)?.finish()
            }
            Self::Done => Writer::new(DONE).finish(),
            Self::Signature(signature) => Writer::new(SIGN).octets(signature, MAX_SIGNATURE)?.finish(),
            Self::Unusable(reason) => Writer::new(UNUSABLE).text(reason)?.finish(),
            Self::Unavailable(reason) => Writer::new(UNAVAILABLE).text(reason)?.finish(),
            Self::Refused(reason) => Writer::new(REFUSED).text(reason)?.finish(),
        }
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn parse(body: &[u8]) -> Result<Self, FrameError> {
        let (kind, mut reader) = Reader::new(body)?;
        let response = match kind {
            LOADED => {
                let (ids, rest) = reader.octets(MAX_KEYS * KEY_ID)?.as_chunks();
                if !rest.is_empty() {
                    return Err(FrameError::Malformed);
                }
                Self::Loaded(ids.iter().copied().map(KeyId).collect())
            }
            DONE => Self::Done,
            SIGN => Self::Signature(reader.octets(MAX_SIGNATURE)?.to_vec()),
            UNUSABLE => Self::Unusable(reader.text()?),
            UNAVAILABLE => Self::Unavailable(reader.text()?),
            REFUSED => Self::Refused(reader.text()?),
            _ => return Err(FrameError::Malformed),
        };
        reader.finish(response)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8) -> Self {
        let mut frame = Vec::with_capacity(TYPICAL);
        frame.extend_from_slice(&[0, 0, 0, 0, VERSION, kind]);
        Self(frame)
    }

    fn number(mut self, number: u16) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn octets(self, octets: &[u8], most: usize) -> Result<Self, FrameError> {
        let length = u16::try_from(octets.len()).ok().filter(|_| octets.len() <= most).ok_or(FrameError::TooLong)?;
        let mut writer = self.number(length);
        writer.0.extend_from_slice(octets);
        Ok(writer)
    }

    fn key(self, key: &SealedFor<'_>) -> Result<Self, FrameError> {
        self.octets(key.sealed, MAX_SEALED)?.octets(key.spki, MAX_SPKI)
    }

    fn text(self, text: &str) -> Result<Self, FrameError> {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.octets(&text.as_bytes()[..end], MAX_TEXT)
    }

    fn finish(mut self) -> Result<Vec<u8>, FrameError> {
        let length = self.0.len() - 4;
        // The fields' bounds together are below it.
        debug_assert!(length <= MAX_FRAME);
        self.0[..4].copy_from_slice(&(length as u32).to_be_bytes());
        Ok(self.0)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(body: &'a [u8]) -> Result<(u8, Self), FrameError> {
        match body {
            [VERSION, kind, fields @ ..] => Ok((*kind, Self(fields))),
            [version, ..] if *version != VERSION => Err(FrameError::Version(*version)),
            _ => Err(FrameError::Malformed),
        }
    }

    fn number(&mut self) -> Result<u16, FrameError> {
        let (number, rest) = self.0.split_first_chunk().ok_or(FrameError::Malformed)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*number))
    }

    fn octets(&mut self, most: usize) -> Result<&'a [u8], FrameError> {
        let length = usize::from(self.number()?);
        if length > most {
            return Err(FrameError::TooLong);
        }
        let (octets, rest) = self.0.split_at_checked(length).ok_or(FrameError::Malformed)?;
        self.0 = rest;
        Ok(octets)
    }

    fn key(&mut self) -> Result<SealedFor<'a>, FrameError> {
        Ok(SealedFor { sealed: self.octets(MAX_SEALED)?, spki: self.octets(MAX_SPKI)? })
    }

    fn text(&mut self) -> Result<String, FrameError> {
        String::from_utf8(self.octets(MAX_TEXT)?.to_vec()).map_err(|_| FrameError::Malformed)
    }

    fn finish<T>(self, message: T) -> Result<T, FrameError> {
        if self.0.is_empty() { Ok(message) } else { Err(FrameError::Malformed) }
    }
}

const VERSION: u8 = 1;

const LOADED: u8 = 1;
const CHECK: u8 = 2;
const OPEN: u8 = 3;
const SIGN: u8 = 4;
const DONE: u8 = 5;
const UNUSABLE: u8 = 6;
const UNAVAILABLE: u8 = 7;
const REFUSED: u8 = 8;

/// An envelope has at most 16 KiB, and a legacy key that and a head.
const MAX_SEALED: usize = 20 * 1024;

/// RSA of 8,192 bits has about 1,060 octets.
const MAX_SPKI: usize = 2048;

/// More than any TLS server signs: see `tls_input`.
const MAX_MESSAGE: usize = 256;

/// RSA of 16,384 bits.
const MAX_SIGNATURE: usize = 2048;

const MAX_KEYS: usize = 1024;
const KEY_ID: usize = 16;
const MAX_TEXT: usize = 1024;

/// A signature request with a P-256 key that is sealed to one pool.
const TYPICAL: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_survive_their_encoding() {
        let key = SealedFor { sealed: &[1; 600], spki: &[2; 91] };
        let sign = Request::Sign { key, scheme: SignatureScheme::RSA_PSS_SHA256, message: &[3; 130] };
        for request in [Request::Loaded, Request::Check(key), Request::Open(key), sign] {
            let frame = request.to_frame().unwrap();
            assert_eq!(Request::parse(&frame[4..]), Ok(request));
            assert_eq!(frame[..4], ((frame.len() - 4) as u32).to_be_bytes());
            assert_eq!(Request::parse(&frame[4..frame.len() - 1]), Err(FrameError::Malformed));
        }
        for response in [
            Response::Loaded(vec![KeyId([7; 16]), KeyId([8; 16])]),
            Response::Done,
            Response::Signature(vec![9; 70]),
            Response::Unusable("a".into()),
            Response::Unavailable("b".into()),
            Response::Refused("c".into()),
        ] {
            assert_eq!(Response::parse(&response.to_frame().unwrap()[4..]), Ok(response));
        }
    }

    #[test]
    fn what_is_too_long_is_not_sent_and_a_long_reason_is_cut() {
        let key = SealedFor { sealed: &[1; MAX_SEALED + 1], spki: &[] };
        assert_eq!(Request::Open(key).to_frame(), Err(FrameError::TooLong));
        let frame = Response::Refused("ä".repeat(MAX_TEXT)).to_frame().unwrap();
        assert_eq!(Response::parse(&frame[4..]), Ok(Response::Refused("ä".repeat(MAX_TEXT / 2))));
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(Request::parse(&[VERSION + 1, LOADED]), Err(FrameError::Version(VERSION + 1)));
        assert_eq!(Response::parse(&[0, LOADED]), Err(FrameError::Version(0)));
        assert_eq!(Request::parse(&[]), Err(FrameError::Malformed));
    }

    proptest! {
        #[test]
        fn whatever_parses_has_this_one_encoding(kind in 0u8..10, fields in proptest::collection::vec(any::<u8>(), 0..64)) {
            let body = [&[VERSION, kind], &fields[..]].concat();
            if let Ok(request) = Request::parse(&body) {
                prop_assert_eq!(&request.to_frame().unwrap()[4..], &body);
            }
            if let Ok(response) = Response::parse(&body) {
                prop_assert_eq!(&response.to_frame().unwrap()[4..], &body);
            }
        }
    }
}
