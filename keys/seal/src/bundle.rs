//! The bundle's bytes, which certstore keeps for one certificate.
//!
//! ```text
//! magic "CSBU", format 1
//! u16 length, signed BundleInfo (JSON); signer id 16; signature 64
//! u24 length, chain: each certificate as u24 length and DER, the leaf first
//! u16 length, envelope or legacy key
//! ```

use certseal_wire::{Base64, BundleInfo, Signed, SignerId};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{EnvelopeError, Sealed, SignatureError, VerifyingKeys, names_digest, reader::Reader, sha256, spki_digest};

/// Certificate chain, sealed key, and what certman states about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    statement: Signed,
    chain: Vec<Vec<u8>>,
    sealed: Sealed,
}

/// Why bytes are not a bundle, or not a genuine one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Something else, or cut short.
    #[error("expected {expected}: the bundle is damaged, cut short, or something else")]
    Malformed {
        /// The part that should have stood there.
        expected: &'static str,
    },
    /// The statement's signature does not count.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The envelope is not one, or not genuine.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Parts of different bundles.
    #[error("the bundle's {0} is not the one that certman's statement names: parts of different bundles were joined")]
    Mismatch(&'static str),
}

impl Bundle {
    /// The most octets a bundle may have.
    pub const MAX: usize = 128 * 1024;

    /// Joins the parts of a bundle. The leaf certificate comes first in `chain`.
    pub fn new(statement: Signed, chain: Vec<Vec<u8>>, sealed: impl Into<Sealed>) -> Self {
        Self { statement, chain, sealed: sealed.into() }
    }

    /// Reads a bundle. Whether it is genuine, [`Bundle::verify`] tells.
    ///
    /// # Errors
    /// [`BundleError`] for anything but the one canonical encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > Self::MAX {
            return Err(malformed("a bundle of at most 128 KiB"));
        }
        let mut reader = Reader::new(bytes);
        if reader.take(5) != Some(MAGIC) {
            return Err(malformed("the magic octets CSBU and format 1"));
        }
        let statement_len = usize::from(reader.u16().ok_or(CUT_SHORT)?);
        let payload = reader.take(statement_len).ok_or(CUT_SHORT)?.to_vec();
        let signer = SignerId(reader.array().ok_or(CUT_SHORT)?);
        let signature = reader.take(64).ok_or(CUT_SHORT)?.to_vec();
        let chain_len = reader.u24().ok_or(CUT_SHORT)?;
        let chain = read_chain(reader.take(chain_len).ok_or(CUT_SHORT)?)?;
        let sealed_len = usize::from(reader.u16().ok_or(CUT_SHORT)?);
        let sealed = Sealed::parse(reader.take(sealed_len).ok_or(CUT_SHORT)?)?;
        if !reader.is_empty() {
            return Err(malformed("nothing after the sealed key"));
        }
        let statement = Signed { payload: Base64(payload), signer, signature: Base64(signature) };
        Ok(Self { statement, chain, sealed })
    }

    /// The bundle's one encoding.
    ///
    /// # Errors
    /// [`BundleError::Malformed`] when a part is too long for its field, or the whole is too large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let statement = &self.statement;
        let chain = encode_chain(&self.chain);
        let sealed = self.sealed.to_bytes();
        let mut bytes = Vec::with_capacity(256 + statement.payload.0.len() + chain.len() + sealed.len());
        bytes.extend_from_slice(MAGIC);
        let payload_len =
            u16::try_from(statement.payload.0.len()).map_err(|_| malformed("a statement of under 64 KiB"))?;
        bytes.extend_from_slice(&payload_len.to_be_bytes());
        bytes.extend_from_slice(&statement.payload.0);
        bytes.extend_from_slice(&statement.signer.0);
        bytes.extend_from_slice(&statement.signature.0);
        push_u24(&mut bytes, chain.len());
        bytes.extend_from_slice(&chain);
        bytes.extend_from_slice(&(sealed.len() as u16).to_be_bytes()); // at most MAX_ENVELOPE
        bytes.extend_from_slice(&sealed);
        // Refuses what could not be read back: a signature of another length, say.
        Self::parse(&bytes)?;
        Ok(bytes)
    }

    /// certman's statement, if all parts of the bundle are what an issuer that counts put together.
    ///
    /// # Errors
    /// [`BundleError`] says what is not.
    pub fn verify(&self, issuers: &VerifyingKeys) -> Result<BundleInfo, BundleError> {
        let info: BundleInfo = issuers.verify(&self.statement)?;
        let expect = |holds: bool, part| if holds { Ok(()) } else { Err(BundleError::Mismatch(part)) };
        expect(info.chain == sha256(&encode_chain(&self.chain)), "chain")?;
        expect(info.envelope == self.sealed.digest(), "sealed key")?;
        let leaf = self.chain.first().ok_or(malformed("a leaf certificate"))?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| malformed("a leaf certificate in DER"))?;
        // A legacy key is bound by the statement alone.
        if let Sealed::Envelope(envelope) = &self.sealed {
            envelope.verify(issuers)?;
            let header = envelope.header();
            expect(names_digest(&info.names) == header.names, "name set")?;
            expect(info.version == header.key_version, "key version")?;
            expect(spki_digest(leaf.public_key().raw) == header.spki, "public key")?;
        }
        Ok(info)
    }

    /// The certificates, leaf first, as DER.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The SubjectPublicKeyInfo of the leaf certificate, DER; none when the leaf is not a certificate.
    pub fn leaf_spki(&self) -> Option<&[u8]> {
        let (_, leaf) = X509Certificate::from_der(self.chain.first()?).ok()?;
        Some(leaf.tbs_certificate.subject_pki.raw)
    }

    /// The sealed key.
    pub fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// The bundle with its key sealed otherwise: other stanzas of the same envelope.
    pub fn with_sealed(self, sealed: impl Into<Sealed>) -> Self {
        Self { sealed: sealed.into(), ..self }
    }

    /// certman's statement, unchecked: its payload is to be trusted only after [`Bundle::verify`].
    pub fn statement(&self) -> &Signed {
        &self.statement
    }

    /// Whether `other` is the same but for its stanzas, which no signature covers.
    pub fn is_rewrap_of(&self, other: &Self) -> bool {
        let same_key = match (&self.sealed, &other.sealed) {
            (Sealed::Envelope(ours), Sealed::Envelope(theirs)) => ours.is_rewrap_of(theirs),
            (ours, theirs) => ours == theirs,
        };
        same_key && self.statement == other.statement && self.chain == other.chain
    }
}

/// The chain as it stands in a bundle, and as `BundleInfo::chain` digests it.
pub(crate) fn encode_chain(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chain.iter().map(|der| der.len() + 3).sum());
    for der in chain {
        push_u24(&mut bytes, der.len());
        bytes.extend_from_slice(der);
    }
    bytes
}

impl Bundle {
    /// The digest that [`BundleInfo::chain`] must be for `chain`.
    pub fn chain_digest(chain: &[Vec<u8>]) -> certseal_wire::Digest {
        sha256(&encode_chain(chain))
    }
}

fn read_chain(bytes: &[u8]) -> Result<Vec<Vec<u8>>, BundleError> {
    let mut reader = Reader::new(bytes);
    let mut chain = Vec::new();
    while !reader.is_empty() {
        let len = reader.u24().ok_or(CUT_SHORT)?;
        chain.push(reader.take(len).ok_or(CUT_SHORT)?.to_vec());
    }
    match chain.len() {
        1..=MAX_CHAIN => Ok(chain),
        _ => Err(malformed("1 to 10 certificates")),
    }
}

/// The low 24 bits of `len`; a longer chain does not read back, and so is refused.
fn push_u24(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
}

const MAGIC: &[u8] = b"CSBU\x01";
const MAX_CHAIN: usize = 10;
const CUT_SHORT: BundleError = malformed("more octets");

const fn malformed(expected: &'static str) -> BundleError {
    BundleError::Malformed { expected }
}
