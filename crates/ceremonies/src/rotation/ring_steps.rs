//! The changes of a rotation to the key ring, step by step.

use certseal_seal::RingMark;
use certseal_wire::{Epoch, KeyRing, KeyState, RotationPlan, UnsealEntry};

use crate::error::{Error, RotationError};

/// The ring that a plan starts from.
pub(super) fn planned(plan: &RotationPlan) -> RingMark {
    RingMark { version: plan.ring_version, digest: plan.ring_digest }
}

/// A ring in which the rotation has come `steps` rings further: each step is a ring of its own. An older one was signed
/// before, so that what was removed since would be listed again.
pub(super) fn at_least(plan: &RotationPlan, steps: u64) -> RingMark {
    RingMark::of_version(plan.ring_version.saturating_add(steps))
}

/// Puts the new key into exactly the ring that the plan was made for.
pub(super) fn announce(ring: &mut KeyRing, plan: &RotationPlan) -> Result<(), Error> {
    if ring.version != plan.ring_version {
        return Err(RotationError::OtherRing { planned: plan.ring_version, found: ring.version }.into());
    }
    ring.keys.push(plan.to.clone());
    Ok(())
}

pub(super) fn activate(ring: &mut KeyRing, plan: &RotationPlan) -> Result<(), Error> {
    for entry in ring.keys.iter_mut().filter(|entry| entry.pool == plan.pool && entry.state == KeyState::Active) {
        entry.state = KeyState::Retiring;
    }
    set_state(ring, plan, plan.to.epoch, &[KeyState::Pending], KeyState::Active)
}

/// Moves a key of the plan's pool on. A ring without it, or with it elsewhere in its life, is not the one that the step
/// before left.
pub(super) fn set_state(
    ring: &mut KeyRing,
    plan: &RotationPlan,
    epoch: Epoch,
    from: &[KeyState],
    to: KeyState,
) -> Result<(), Error> {
    let (pool, version) = (&plan.pool, ring.version);
    let is_it = |entry: &&mut UnsealEntry| {
        entry.pool == *pool
            && entry.epoch == epoch
            && from.contains(&entry.state)
            && (epoch != plan.to.epoch || entry.key_id == plan.to.key_id)
    };
    let missing = || RotationError::RingWithoutStep { version, epoch, pool: pool.clone() };
    ring.keys.iter_mut().find(is_it).ok_or_else(missing)?.state = to;
    Ok(())
}

/// Rings after the plan's: the new key is listed.
pub(super) const ANNOUNCED: u64 = 1;

/// Rings after the plan's: the new key is active.
pub(super) const ACTIVATED: u64 = 2;
