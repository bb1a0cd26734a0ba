//! Keys as platforms sealed them before certseal: carried and served as they are, never made.
//!
//! ```text
//! magic "CSLG", format 1; u16 suite; key id 16; u16 length, blob
//! ```

use certseal_wire::{Digest, KeyId};
use sha2::{Digest as _, Sha256};

use crate::{EnvelopeError, envelope::MAX_ENVELOPE, reader::Reader, sha256};

/// How a legacy key is sealed. Nothing new is sealed like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum LegacySuite {
    /// RSA-OAEP (RFC 8017, 7.1) with SHA-256 and MGF1-SHA-256 around a fresh AES-256 key, then AES-256-GCM:
    /// wrapped key (as long as the modulus) || nonce 12 || ciphertext || tag 16.
    RsaOaepSha256 = 0x0101,
    /// The same with SHA-1 and MGF1-SHA-1, which older libraries take when nothing else is said.
    RsaOaepSha1 = 0x0102,
    /// The format that the `ecies` crate 0.2 writes by default: secp256k1, HKDF-SHA256, AES-256-GCM: uncompressed
    /// ephemeral point 65 || nonce 16 || tag 16 || ciphertext.
    EciesSecp256k1 = 0x0103,
}

impl LegacySuite {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RsaOaepSha256, Self::RsaOaepSha1, Self::EciesSecp256k1];

    /// The suite's name on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::RsaOaepSha256 => "rsa-oaep-sha256",
            Self::RsaOaepSha1 => "rsa-oaep-sha1",
            Self::EciesSecp256k1 => "ecies-secp256k1",
        }
    }

    /// The id of the key pair with this public half: the first 16 octets of SHA-256 over the suite id and the public
    /// half; for RSA that is its SubjectPublicKeyInfo in DER, for `ecies` the uncompressed point.
    pub fn key_id(self, public_key: &[u8]) -> KeyId {
        let hash = Sha256::new().chain_update((self as u16).to_be_bytes()).chain_update(public_key).finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        KeyId(id)
    }
}

/// One TLS private key as a platform sealed it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyKey {
    suite: LegacySuite,
    key_id: KeyId,
    blob: Vec<u8>,
}

impl LegacyKey {
    /// A key that `blob` holds, sealed to the key pair `key_id`.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`] when the whole would be larger than an envelope may be, and
    /// [`EnvelopeError::Malformed`] when the blob is shorter than what its suite puts around a key.
    pub fn new(suite: LegacySuite, key_id: KeyId, blob: Vec<u8>) -> Result<Self, EnvelopeError> {
        let len = OVERHEAD + blob.len();
        if len > MAX_ENVELOPE {
            return Err(EnvelopeError::TooLarge(len));
        }
        let least = match suite {
            LegacySuite::RsaOaepSha256 | LegacySuite::RsaOaepSha1 => 256 + 12 + 16,
            LegacySuite::EciesSecp256k1 => 65 + 16 + 16,
        };
        if blob.len() <= least {
            return Err(EnvelopeError::Malformed { expected: "more octets than the suite puts around a key" });
        }
        Ok(Self { suite, key_id, blob })
    }

    /// Reads what [`LegacyKey::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`EnvelopeError`] for anything but the one encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let mut reader = Reader::new(bytes);
        let cut_short = EnvelopeError::Malformed { expected: "more octets" };
        if reader.take(5) != Some(MAGIC) {
            return Err(EnvelopeError::Malformed { expected: "the magic octets CSLG and format 1" });
        }
        let suite = reader.u16().ok_or(cut_short.clone())?;
        let suite = LegacySuite::ALL.into_iter().find(|known| *known as u16 == suite);
        let suite = suite.ok_or(EnvelopeError::Malformed { expected: "legacy suite 257, 258 or 259" })?;
        let key_id = KeyId(reader.array().ok_or(cut_short.clone())?);
        let len = usize::from(reader.u16().ok_or(cut_short.clone())?);
        let blob = reader.take(len).ok_or(cut_short)?.to_vec();
        if !reader.is_empty() {
            return Err(EnvelopeError::Malformed { expected: "nothing after the blob" });
        }
        Self::new(suite, key_id, blob)
    }

    /// The key's one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(OVERHEAD + self.blob.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(self.suite as u16).to_be_bytes());
        bytes.extend_from_slice(&self.key_id.0);
        bytes.extend_from_slice(&(self.blob.len() as u16).to_be_bytes()); // at most MAX_ENVELOPE
        bytes.extend_from_slice(&self.blob);
        bytes
    }

    /// How it is sealed.
    pub fn suite(&self) -> LegacySuite {
        self.suite
    }

    /// The key pair that it is sealed to.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The octets that the platform wrote.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// SHA-256 of its bytes, which certman's statement names.
    pub fn digest(&self) -> Digest {
        sha256(&self.to_bytes())
    }
}

const MAGIC: &[u8] = b"CSLG\x01";
const OVERHEAD: usize = 5 + 2 + 16 + 2;
