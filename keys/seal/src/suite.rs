//! Suites: which algorithms an envelope uses. The id travels in the header, and the code path is chosen by it.

use certseal_wire::{Digest, Epoch, KeyId, PoolName};
use sha2::{Digest as _, Sha256};

use crate::hpke::{Aead, Kem};

/// The algorithms of an envelope. Both are HPKE (RFC 9180) in base mode with HKDF-SHA256 and AES-256-GCM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Suite {
    /// DHKEM(P-256, HKDF-SHA256).
    P256 = 1,
    /// DHKEM(X25519, HKDF-SHA256).
    X25519 = 2,
}

/// A suite id that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected suite 1 (P-256) or 2 (X25519), got {0}: a newer certseal wrote it, or the bytes are damaged")]
pub struct SuiteError(pub u16);

impl Suite {
    /// The suite's name on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::X25519 => "x25519",
        }
    }

    /// The suite's key encapsulation.
    pub fn kem(self) -> Kem {
        match self {
            Self::P256 => Kem::P256,
            Self::X25519 => Kem::X25519,
        }
    }

    /// The AEAD that seals content keys: AES-256-GCM in every suite.
    pub fn aead(self) -> Aead {
        Aead::Aes256Gcm
    }

    /// The id of the unseal key with this public half: the first 16 octets of SHA-256 over the suite id and the key.
    pub fn key_id(self, public_key: &[u8]) -> KeyId {
        let hash = Sha256::new().chain_update((self as u16).to_be_bytes()).chain_update(public_key).finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        KeyId(id)
    }
}

impl TryFrom<u16> for Suite {
    type Error = SuiteError;

    fn try_from(id: u16) -> Result<Self, SuiteError> {
        match id {
            1 => Ok(Self::P256),
            2 => Ok(Self::X25519),
            other => Err(SuiteError(other)),
        }
    }
}

/// HPKE's `info` for one stanza: a label and a SHA-256 over all that the stanza is bound to.
///
/// `"certseal stanza v1" || SHA-256(scope || len(pool) || pool || epoch || key id)`; 50 octets. The scope is that of
/// [`crate::Header::scope`].
pub fn stanza_info(scope: &Digest, pool: &PoolName, epoch: Epoch, key_id: &KeyId) -> [u8; 50] {
    const LABEL: &[u8; 18] = b"certseal stanza v1";
    let hash = Sha256::new()
        .chain_update(scope.0)
        .chain_update([pool.as_str().len() as u8]) // at most 32
        .chain_update(pool.as_str())
        .chain_update(epoch.0.to_be_bytes())
        .chain_update(key_id.0)
        .finalize();
    let mut info = [0; 50];
    info[..18].copy_from_slice(LABEL);
    info[18..].copy_from_slice(&hash);
    info
}
