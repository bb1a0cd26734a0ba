//! Opening an envelope.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use certseal_seal::{
    Envelope, Header, PayloadKeys, Recipient, SealError, Sealed, Secret, Stanza, TlsPrivateKey,
    hpke::{Aead, KeySchedule},
    seal_stanza, stanza_info,
};
use certseal_wire::{GroupId, KeyId, PoolName};

use crate::{
    AgreementFailed, LegacyUnsealKey, UnsealKey,
    hpke::{aead_open, decap, open_message},
};

/// Why an envelope was not opened. The public reasons are told; a failed opening says nothing more.
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
    /// The key is sealed as a platform did before, to a key pair that is not loaded.
    #[error("the key is sealed by {suite} to the key pair {key_id}, which is not loaded")]
    UnknownLegacyKey {
        /// The suite's name.
        suite: &'static str,
        /// The key pair's id.
        key_id: KeyId,
    },
    /// The content key cannot be sealed to the new recipient.
    #[error(transparent)]
    Recipient(SealError),
    /// The token that holds the unseal key does not answer. It says nothing about the envelope, which may open later:
    /// do not remember it as the outcome.
    #[error("the token that holds the unseal key cannot be reached: {reason}")]
    Unavailable {
        /// The last try, and the token's answer.
        reason: String,
    },
    /// Anything else.
    #[error("the envelope could not be opened")]
    Failed,
}

/// The unseal keys of one pool that are loaded, newest epoch first, and the key pairs of formats from before certseal.
#[derive(Default)]
pub struct UnsealKeys {
    keys: Vec<UnsealKey>,
    legacy: Vec<LegacyUnsealKey>,
    groups: GroupKeys,
}

impl UnsealKeys {
    /// The same with key pairs that open legacy keys.
    pub fn with_legacy(mut self, keys: impl IntoIterator<Item = LegacyUnsealKey>) -> Self {
        self.legacy.extend(keys);
        self
    }

    /// Opens a sealed key of either kind.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_sealed(&self, sealed: &Sealed) -> Result<TlsPrivateKey, OpenError> {
        match sealed {
            Sealed::Envelope(envelope) => self.open(envelope),
            Sealed::Legacy(legacy) => {
                let key = self.legacy.iter().find(|key| key.suite() == legacy.suite() && key.id() == legacy.key_id());
                let missing = || OpenError::UnknownLegacyKey { suite: legacy.suite().name(), key_id: legacy.key_id() };
                key.ok_or_else(missing)?.open(legacy.blob()).ok_or(OpenError::Failed)
            }
        }
    }

    /// Opens an envelope with the stanza of the newest epoch that is loaded. The stanza is found by pool, epoch and key
    /// id: nothing is tried.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, envelope: &Envelope) -> Result<TlsPrivateKey, OpenError> {
        let (key, stanza) = self.stanza_for(envelope)?;
        let (_, keys) = self.payload_keys(key, stanza, envelope)?;
        let plain = aead_open(Aead::Aes256Gcm, keys.expose_key(), keys.nonce(), b"", envelope.payload());
        plain.and_then(|plain| TlsPrivateKey::from_encoding(&plain)).ok_or(OpenError::Failed)
    }

    /// Seals the content key of an envelope to one more unseal key. The payload is not opened; that the content key is
    /// the payload's is checked by its commitment.
    ///
    /// # Errors
    /// [`OpenError`], also when `recipient` is not of the envelope's suite.
    pub fn rewrap(&self, envelope: &Envelope, recipient: &Recipient) -> Result<Stanza, OpenError> {
        let (key, stanza) = self.stanza_for(envelope)?;
        let (content_key, _) = self.payload_keys(key, stanza, envelope)?;
        let header = envelope.header();
        seal_stanza(header.suite, recipient, &header.scope(), &content_key).map_err(OpenError::Recipient)
    }

    /// The loaded keys, newest epoch first.
    pub fn iter(&self) -> std::slice::Iter<'_, UnsealKey> {
        self.keys.iter()
    }

    /// The loaded key pairs of legacy formats.
    pub fn legacy(&self) -> &[LegacyUnsealKey] {
        &self.legacy
    }

    /// The content key, and the payload's keys that it gives, if the envelope commits to them.
    fn payload_keys(
        &self,
        key: &UnsealKey,
        stanza: &Stanza,
        envelope: &Envelope,
    ) -> Result<(Arc<Secret<32>>, PayloadKeys), OpenError> {
        let header = envelope.header();
        let known = header.group.and_then(|group| self.groups.find(group, stanza));
        let is_new = known.is_none();
        let content_key = match known {
            Some(content_key) => content_key,
            None => Arc::new(open_stanza(key, header, stanza)?),
        };
        let keys = PayloadKeys::derive(&content_key, &header.hash());
        if !keys.is_committed_by(envelope.commitment()) {
            return Err(OpenError::Failed);
        }
        // Only what a commitment has confirmed is remembered.
        if let Some(group) = header.group.filter(|_| is_new) {
            self.groups.remember(group, stanza, content_key.clone());
        }
        Ok((content_key, keys))
    }

    fn stanza_for<'a>(&'a self, envelope: &'a Envelope) -> Result<(&'a UnsealKey, &'a Stanza), OpenError> {
        let pool = self.keys.first().ok_or(OpenError::NoKey)?.pool();
        let suite = envelope.header().suite;
        let ours = |key: &UnsealKey, stanza: &Stanza| {
            stanza.pool == *key.pool()
                && stanza.epoch == key.epoch()
                && stanza.key_id == key.key_id()
                && suite == key.suite()
        };
        let found = self.keys.iter().find_map(|key| Some(key).zip(envelope.stanzas().iter().find(|s| ours(key, s))));
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
        Self { keys, ..Self::default() }
    }
}

/// Content keys of groups that were opened, so that a group costs one key agreement. Bounded; the oldest half goes.
#[derive(Default)]
struct GroupKeys(RwLock<HashMap<(GroupId, KeyId), GroupKey>>);

/// A content key, and the stanza that it came from: another stanza may hold another one.
struct GroupKey {
    stanza: Stanza,
    content_key: Arc<Secret<32>>,
}

impl GroupKeys {
    fn find(&self, group: GroupId, stanza: &Stanza) -> Option<Arc<Secret<32>>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = known.get(&(group, stanza.key_id)).filter(|key| key.stanza == *stanza)?;
        Some(key.content_key.clone())
    }

    fn remember(&self, group: GroupId, stanza: &Stanza, content_key: Arc<Secret<32>>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_GROUP_KEYS {
            // Any half may go: a key that is asked for again costs one more key agreement.
            let mut keep = false;
            known.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        known.insert((group, stanza.key_id), GroupKey { stanza: stanza.clone(), content_key });
    }
}

/// Content keys of groups that are kept at one time: a million envelopes in groups of 256.
const MAX_GROUP_KEYS: usize = 4096;

fn open_stanza(key: &UnsealKey, header: &Header, stanza: &Stanza) -> Result<Secret<32>, OpenError> {
    let Stanza { pool, epoch, key_id, .. } = stanza;
    let info = stanza_info(&header.scope(), pool, *epoch, key_id);
    let suite = header.suite;
    let shared = decap(key.agreement(), &stanza.enc).map_err(|failed| match failed {
        AgreementFailed::Unavailable(reason) => OpenError::Unavailable { reason },
        AgreementFailed::Invalid => OpenError::Failed,
    })?;
    let schedule = KeySchedule::base(suite.kem(), suite.aead(), &shared, &info);
    let plain = open_message(&schedule, 0, b"", &stanza.sealed_key).ok_or(OpenError::Failed)?;
    plain.as_slice().try_into().map(Secret::copy_of).map_err(|_| OpenError::Failed)
}
