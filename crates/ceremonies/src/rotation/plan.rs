//! Making the plan of a rotation.

use certseal_seal::{Recipient, SigningKey, Suite};
use certseal_wire::{
    Base64, Epoch, KeyRing, KeyState, PoolName, Rotation, RotationId, RotationPlan, RotationReason, UnsealEntry,
};
use jiff::{SignedDuration, Timestamp};

use super::genuine::GenuineRotation;
use crate::{
    error::{Error, RotationError},
    ring_client::RingClient,
};

/// The rotation that the security team wants.
#[derive(Debug, Clone)]
pub struct NewRotation {
    /// The pool whose key is to be replaced.
    pub pool: PoolName,
    /// Why.
    pub reason: RotationReason,
    /// Of how many bundles one is opened before old stanzas are removed; 1 for every bundle.
    pub verify_one_in: u32,
    /// How long the plan can be approved and begun.
    pub validity: SignedDuration,
    /// The team's own note about it.
    pub note: String,
}

/// The epoch and suite that the pool's next key has, so that it can be made.
///
/// # Errors
/// When the pool has no active key.
pub fn next_key(ring: &KeyRing, pool: &PoolName) -> Result<(Epoch, Suite), RotationError> {
    let active = ring.active(pool).ok_or_else(|| RotationError::NoActiveKey(pool.clone()))?;
    let newest = ring.keys.iter().filter(|entry| entry.pool == *pool).map(|entry| entry.epoch.0).max().unwrap_or(0);
    let next = newest.checked_add(1).ok_or(RotationError::EpochsSpent)?;
    Ok((Epoch(next), Suite::try_from(active.suite)?))
}

/// Signs the plan that replaces the keys of a pool by the one with the public half `to`, and proposes it. `ring` is what
/// `rings` has now.
///
/// # Errors
/// When the plan does not fit the ring, or certstore refuses it.
pub async fn propose(
    rings: &RingClient<'_>,
    security: &SigningKey,
    ring: &KeyRing,
    new: NewRotation,
    to: (&Recipient, &[u8]),
) -> Result<GenuineRotation, Error> {
    let (recipient, public_key) = to;
    let NewRotation { pool, reason, verify_one_in, validity, note } = new;
    if verify_one_in == 0 {
        return Err(RotationError::NothingVerified.into());
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(Error::NoRandomness)?;
    let live =
        |entry: &&UnsealEntry| entry.pool == pool && !matches!(entry.state, KeyState::Pending | KeyState::Retired);
    let from = ring.keys.iter().filter(live).map(|entry| entry.epoch).collect();
    let created_at = Timestamp::now();
    let plan = RotationPlan {
        id: RotationId(id),
        reason,
        ring_version: ring.version,
        ring_digest: rings.newest()?.digest,
        from,
        to: UnsealEntry {
            pool: pool.clone(),
            epoch: recipient.epoch(),
            state: KeyState::Pending,
            suite: recipient.suite() as u16,
            key_id: recipient.key_id(),
            public_key: Base64(public_key.to_vec()),
        },
        pool,
        verify_one_in,
        created_at,
        expires_at: created_at.checked_add(validity).map_err(RotationError::ValidTooLong)?,
        note,
    };
    let rotation: Rotation = rings.store().propose_rotation(plan.id, &security.sign(&plan)).await?;
    Ok(GenuineRotation::verify(rotation, &security.verifying_key())?)
}
