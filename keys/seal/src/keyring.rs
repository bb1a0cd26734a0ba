//! The rules of the signed key ring: which issuers count, what to seal to, and how a ring may follow another.
//!
//! ```text
//! (none) --first key of a pool--> active          pending --abort--> retired
//! (none) --> pending --> active --> retiring --> retired --> (none)
//! ```

use std::collections::HashSet;

use certseal_wire::{Digest, Epoch, KeyId, KeyRing, KeyState, PoolName, Signed, UnsealEntry};

use crate::{Recipient, SealError, SignatureError, Suite, SuiteError, VerifyingKey, VerifyingKeys, sha256};

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
    /// Another one of the version of one that was accepted before.
    #[error(
        "the key ring of version {0} is not the one of that version that was seen before: two were signed, and the \
         store shows one here and the other there; find out who signed both, and sign the next version"
    )]
    Rewritten(u64),
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
    /// The ring contradicts itself.
    #[error("the key ring contradicts itself: {0}")]
    Unsound(String),
    /// A ring that does not follow from the one before.
    #[error("the key ring does not follow from version {after}: {reason}")]
    Succession {
        /// The version of the one before.
        after: u64,
        /// The fault.
        reason: String,
    },
    /// An entry's suite is unknown.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// An entry's key is none.
    #[error(transparent)]
    Key(#[from] SealError),
}

/// The newest ring that somebody accepted or signed. The default is of one who saw none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingMark {
    /// Its version.
    pub version: u64,
    /// SHA-256 of the signed JSON; none when only the version is known.
    pub digest: Option<Digest>,
}

impl RingMark {
    /// Of one whose version alone is known.
    pub fn of_version(version: u64) -> Self {
        Self { version, digest: None }
    }

    /// The mark that an accepted ring leaves.
    pub fn of(ring: &KeyRing, signed: &Signed) -> Self {
        Self { version: ring.version, digest: Some(sha256(&signed.payload.0)) }
    }
}

/// The ring, if the security team signed it, it is no older than the one `seen` and no other one of the same version, and
/// it does not contradict itself.
///
/// # Errors
/// [`RingError::Signature`], [`RingError::RolledBack`], [`RingError::Rewritten`] and [`RingError::Unsound`].
pub fn accept_ring(signed: &Signed, security: &VerifyingKey, seen: RingMark) -> Result<KeyRing, RingError> {
    let ring: KeyRing = VerifyingKeys::from_iter([security.clone()]).verify(signed)?;
    if ring.version < seen.version {
        return Err(RingError::RolledBack { found: ring.version, seen: seen.version });
    }
    let is_other = |digest| digest != sha256(&signed.payload.0);
    if ring.version == seen.version && seen.digest.is_some_and(is_other) {
        return Err(RingError::Rewritten(ring.version));
    }
    check_soundness(&ring)?;
    Ok(ring)
}

/// One difference between two rings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingChange {
    /// The first key of a pool.
    FirstKey(UnsealEntry),
    /// A new generation, not sealed to yet.
    Announced(UnsealEntry),
    /// A key moved on in its life.
    Moved {
        /// The pool.
        pool: PoolName,
        /// The generation.
        epoch: Epoch,
        /// Where it was.
        from: KeyState,
        /// Where it is.
        to: KeyState,
    },
    /// A retired key is not listed any more.
    Forgotten {
        /// The pool.
        pool: PoolName,
        /// The generation.
        epoch: Epoch,
    },
}

/// The changes that `new` makes to the unseal keys of `old`. Issuers are not looked at.
///
/// # Errors
/// [`RingError::Succession`] when `new` is not a later version, alters a key, or moves one backwards in its life.
pub fn ring_changes(old: &KeyRing, new: &KeyRing) -> Result<Vec<RingChange>, RingError> {
    let wrong = |reason: String| RingError::Succession { after: old.version, reason };
    if new.version <= old.version {
        return Err(wrong(format!("its version {} is not above", new.version)));
    }
    let mut changes = Vec::new();
    for entry in &new.keys {
        let UnsealEntry { pool, epoch, state, .. } = entry;
        let Some(before) = find(old, pool, *epoch) else {
            let newest = old.keys.iter().filter(|other| other.pool == *pool).map(|other| other.epoch).max();
            changes.push(match (newest, state) {
                (None, KeyState::Active) => RingChange::FirstKey(entry.clone()),
                (Some(newest), KeyState::Pending) if newest < *epoch => RingChange::Announced(entry.clone()),
                _ => {
                    return Err(wrong(format!(
                        "it adds epoch {epoch} of pool {pool} as {state}: expected the pool's first key as active, or \
                         a pending key of a later epoch"
                    )));
                }
            });
            continue;
        };
        if (before.suite, before.key_id, &before.public_key) != (entry.suite, entry.key_id, &entry.public_key) {
            return Err(wrong(format!("it puts another key in the place of epoch {epoch} of pool {pool}")));
        }
        match (before.state, *state) {
            (from, to) if from == to => {}
            (from @ KeyState::Pending, to @ (KeyState::Active | KeyState::Retired))
            | (from @ KeyState::Active, to @ KeyState::Retiring)
            | (from @ KeyState::Retiring, to @ KeyState::Retired) => {
                changes.push(RingChange::Moved { pool: pool.clone(), epoch: *epoch, from, to });
            }
            (from, to) => {
                return Err(wrong(format!("epoch {epoch} of pool {pool} goes from {from} to {to}")));
            }
        }
    }
    for UnsealEntry { pool, epoch, state, .. } in &old.keys {
        if find(new, pool, *epoch).is_none() {
            if *state != KeyState::Retired {
                return Err(wrong(format!("it leaves out epoch {epoch} of pool {pool}, which is {state}")));
            }
            changes.push(RingChange::Forgotten { pool: pool.clone(), epoch: *epoch });
        }
    }
    Ok(changes)
}

fn find<'a>(ring: &'a KeyRing, pool: &PoolName, epoch: Epoch) -> Option<&'a UnsealEntry> {
    ring.keys.iter().find(|entry| entry.pool == *pool && entry.epoch == epoch)
}

/// Each key once, each pool with at most one active and one pending key, the pending one the newest. Keys of a suite
/// that is not known here are taken as they are.
fn check_soundness(ring: &KeyRing) -> Result<(), RingError> {
    let unsound = |reason: String| Err(RingError::Unsound(reason));
    if ring.keys.len() > MAX_RING_KEYS {
        return unsound(format!("expected at most {MAX_RING_KEYS} keys, got {}", ring.keys.len()));
    }
    let mut places: HashSet<(&PoolName, Epoch)> = HashSet::new();
    let mut ids: HashSet<KeyId> = HashSet::new();
    let mut single: HashSet<(&PoolName, &'static str)> = HashSet::new();
    for entry in &ring.keys {
        let UnsealEntry { pool, epoch, state, suite, key_id, public_key } = entry;
        if !places.insert((pool, *epoch)) {
            return unsound(format!("it lists epoch {epoch} of pool {pool} twice"));
        }
        if !ids.insert(*key_id) {
            return unsound(format!("it lists key {key_id} twice"));
        }
        if matches!(state, KeyState::Active | KeyState::Pending) && !single.insert((pool, state.name())) {
            return unsound(format!("pool {pool} has two {state} keys"));
        }
        if let Ok(suite) = Suite::try_from(*suite)
            && suite.key_id(&public_key.0) != *key_id
        {
            return Err(RingError::BadEntry { pool: pool.clone(), epoch: *epoch });
        }
        let is_newest = || ring.keys.iter().all(|other| other.pool != *pool || other.epoch <= *epoch);
        if *state == KeyState::Pending && !is_newest() {
            return unsound(format!("epoch {epoch} of pool {pool} is pending, but there is a later one"));
        }
    }
    Ok(())
}

/// The most keys in a ring: 100 pools with 40 epochs each.
const MAX_RING_KEYS: usize = 4000;

/// The issuers whose signatures count under `ring`. An entry that is no key counts for nothing.
pub fn ring_issuers(ring: &KeyRing) -> VerifyingKeys {
    ring.issuers
        .iter()
        .filter_map(|entry| VerifyingKey::from_bytes(&entry.public_key.0).ok().filter(|key| key.id() == entry.id))
        .collect()
}

/// The recipient for `pool`: its active key.
///
/// # Errors
/// [`RingError`] when there is none, or its entry is not sound.
pub fn ring_recipient(ring: &KeyRing, pool: &PoolName) -> Result<Recipient, RingError> {
    let entry = ring.active(pool).ok_or_else(|| RingError::NoActiveKey(pool.clone()))?;
    entry_recipient(entry)
}

/// The recipient for one entry of a ring.
///
/// # Errors
/// [`RingError`] when the entry is not sound.
pub fn entry_recipient(entry: &UnsealEntry) -> Result<Recipient, RingError> {
    let UnsealEntry { pool, epoch, key_id, .. } = entry;
    let recipient = Recipient::new(pool.clone(), *epoch, Suite::try_from(entry.suite)?, entry.public_key.0.clone())?;
    if recipient.key_id() != *key_id {
        return Err(RingError::BadEntry { pool: pool.clone(), epoch: *epoch });
    }
    Ok(recipient)
}
