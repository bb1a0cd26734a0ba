//! What the signed key ring allows: which issuers count, and what to seal to.

use certseal_wire::{Epoch, KeyRing, PoolName, Signed, UnsealEntry};

use crate::{Recipient, SealError, SignatureError, Suite, SuiteError, VerifyingKey, VerifyingKeys};

/// Why a key ring is not accepted or does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// Not signed by the security team.
    #[error("the key ring does not count: {0}")]
    Signature(#[from] SignatureError),
    /// Older than one that was accepted before.
    #[error("the key ring is of version {found}, but version {seen} was seen before: the store rolled it back")]
    RolledBack {
        /// The version that came.
        found: u64,
        /// The newest version seen.
        seen: u64,
    },
    /// A pool without an active key.
    #[error("the key ring has no active unseal key for pool {0}: run `certctl keys generate --pool {0}`")]
    NoActiveKey(PoolName),
    /// An entry contradicts itself.
    #[error("the key ring's entry for pool {pool}, epoch {epoch} contradicts itself: its id is not that of its key")]
    BadEntry {
        /// The pool.
        pool: PoolName,
        /// The epoch.
        epoch: Epoch,
    },
    /// An entry's suite is unknown.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// An entry's key is none.
    #[error(transparent)]
    Key(#[from] SealError),
}

/// The ring, if the security team signed it and it is no older than version `seen`.
///
/// # Errors
/// [`RingError::Signature`] and [`RingError::RolledBack`].
pub fn accept_ring(signed: &Signed, security: &VerifyingKey, seen: u64) -> Result<KeyRing, RingError> {
    let ring: KeyRing = VerifyingKeys::from_iter([security.clone()]).verify(signed)?;
    if ring.version < seen {
        return Err(RingError::RolledBack { found: ring.version, seen });
    }
    Ok(ring)
}

/// The issuers whose signatures count under `ring`. An entry that is no key counts for nothing.
pub fn ring_issuers(ring: &KeyRing) -> VerifyingKeys {
    ring.issuers
        .iter()
        .filter_map(|entry| VerifyingKey::from_bytes(&entry.public_key.0).ok().filter(|key| key.id() == entry.id))
        .collect()
}

/// What to seal to for `pool`: its active key.
///
/// # Errors
/// [`RingError`] when there is none, or its entry is not sound.
pub fn ring_recipient(ring: &KeyRing, pool: &PoolName) -> Result<Recipient, RingError> {
    let entry = ring.active(pool).ok_or_else(|| RingError::NoActiveKey(pool.clone()))?;
    let UnsealEntry { epoch, key_id, .. } = *entry;
    let recipient = Recipient::new(pool.clone(), epoch, Suite::try_from(entry.suite)?, entry.public_key.0.clone())?;
    if recipient.key_id() != key_id {
        return Err(RingError::BadEntry { pool: pool.clone(), epoch });
    }
    Ok(recipient)
}
