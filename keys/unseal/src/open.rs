//! Opening an envelope.

use certseal_seal::{
    Envelope, PayloadKeys, Secret, Stanza, TlsPrivateKey,
    hpke::{Aead, KeySchedule},
    stanza_info,
};
use certseal_wire::PoolName;

use crate::{
    AgreementFailed, UnsealKey,
    hpke::{aead_open, decap, open_message},
};

/// Why an envelope was not opened. What is public is said; a failed opening says nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No key is loaded.
    #[error("no unseal key is loaded")]
    NoKey,
    /// The envelope is not for this pool.
    #[error("the envelope is sealed to pools {sealed_to:?}, the unseal key is of pool {pool}: it is not for this edge")]
    WrongPool {
        /// The pool of the loaded keys.
        pool: PoolName,
        /// The pools in the envelope.
        sealed_to: Vec<String>,
    },
    /// The envelope is for this pool, but for other generations of its key.
    #[error("the envelope is sealed to epochs {sealed_to:?} of pool {pool}, but none of those unseal keys is loaded")]
    UnknownEpoch {
        /// The pool.
        pool: PoolName,
        /// The epochs in the envelope.
        sealed_to: Vec<u32>,
    },
    /// The token that holds the unseal key does not answer. It says nothing about the envelope, which may open later:
    /// do not remember it as the outcome.
    #[error("the token that holds the unseal key cannot be reached: {reason}")]
    Unavailable {
        /// What was tried last, and what the token said.
        reason: String,
    },
    /// Anything else.
    #[error("the envelope could not be opened")]
    Failed,
}

/// The unseal keys of one pool that are loaded, newest epoch first.
#[derive(Default)]
pub struct UnsealKeys(Vec<UnsealKey>);

impl UnsealKeys {
    /// Opens an envelope with the stanza of the newest epoch that is loaded. The stanza is found by pool, epoch and key
    /// id: nothing is tried.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, envelope: &Envelope) -> Result<TlsPrivateKey, OpenError> {
        let (key, stanza) = self.stanza_for(envelope)?;
        let content_key = open_stanza(key, envelope, stanza)?;
        let keys = PayloadKeys::derive(&content_key, &envelope.header().hash());
        if !keys.is_committed_by(envelope.commitment()) {
            return Err(OpenError::Failed);
        }
        let plain = aead_open(Aead::Aes256Gcm, keys.expose_key(), keys.nonce(), b"", envelope.payload());
        plain.and_then(|plain| TlsPrivateKey::from_encoding(&plain)).ok_or(OpenError::Failed)
    }

    /// The loaded keys, newest epoch first.
    pub fn iter(&self) -> std::slice::Iter<'_, UnsealKey> {
        self.0.iter()
    }

    fn stanza_for<'a>(&'a self, envelope: &'a Envelope) -> Result<(&'a UnsealKey, &'a Stanza), OpenError> {
        let pool = self.0.first().ok_or(OpenError::NoKey)?.pool();
        let suite = envelope.header().suite;
        let ours = |key: &UnsealKey, stanza: &Stanza| {
            stanza.pool == *key.pool()
                && stanza.epoch == key.epoch()
                && stanza.key_id == key.key_id()
                && suite == key.suite()
        };
        let found = self.0.iter().find_map(|key| Some(key).zip(envelope.stanzas().iter().find(|s| ours(key, s))));
        found.ok_or_else(|| {
            let epochs: Vec<u32> = envelope.stanzas().iter().filter(|s| s.pool == *pool).map(|s| s.epoch.0).collect();
            if epochs.is_empty() {
                let sealed_to = envelope.stanzas().iter().map(|s| s.pool.to_string()).collect();
                OpenError::WrongPool { pool: pool.clone(), sealed_to }
            } else {
                OpenError::UnknownEpoch { pool: pool.clone(), sealed_to: epochs }
            }
        })
    }
}

impl FromIterator<UnsealKey> for UnsealKeys {
    fn from_iter<I: IntoIterator<Item = UnsealKey>>(keys: I) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.epoch()));
        Self(keys)
    }
}

fn open_stanza(key: &UnsealKey, envelope: &Envelope, stanza: &Stanza) -> Result<Secret<32>, OpenError> {
    let Stanza { pool, epoch, key_id, .. } = stanza;
    let info = stanza_info(&envelope.header().hash(), pool, *epoch, key_id);
    let suite = envelope.header().suite;
    let shared = decap(key.agreement(), &stanza.enc).map_err(|failed| match failed {
        AgreementFailed::Unavailable(reason) => OpenError::Unavailable { reason },
        AgreementFailed::Invalid => OpenError::Failed,
    })?;
    let schedule = KeySchedule::base(suite.kem(), suite.aead(), &shared, &info);
    let plain = open_message(&schedule, 0, b"", &stanza.sealed_key).ok_or(OpenError::Failed)?;
    plain.as_slice().try_into().map(Secret::copy_of).map_err(|_| OpenError::Failed)
}
