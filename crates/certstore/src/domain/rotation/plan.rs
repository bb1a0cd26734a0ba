//! Whether a plan of a rotation can be followed.

use certseal_service::problem::Refusal;
use certseal_wire::{KeyRing, KeyState, RotationPlan, RotationReason};
use jiff::{SignedDuration, Timestamp};

use crate::refusal::{conflict, unverified};

/// Whether a plan fits the ring it starts from, and is not over.
pub(super) fn check(plan: &RotationPlan, ring: &KeyRing, now: Timestamp) -> Result<(), Refusal> {
    let RotationPlan { pool, to, .. } = plan;
    if plan.ring_version != ring.version {
        return Err(conflict(format!(
            "the plan starts from key ring {}, the stored one is {}: it is an old plan; make a new one",
            plan.ring_version, ring.version
        )));
    }
    if plan.expires_at <= now {
        return Err(conflict(format!("the plan expired at {}: make a new one", plan.expires_at)));
    }
    if plan.expires_at.duration_since(plan.created_at) > MAX_VALIDITY || plan.created_at > now + CLOCK_SKEW {
        return Err(unverified("expected a plan that was made in the past and is valid for at most 30 days"));
    }
    let current: Vec<_> = ring.keys.iter().filter(|entry| entry.pool == *pool).collect();
    let live = current.iter().filter(|entry| !matches!(entry.state, KeyState::Pending | KeyState::Retired));
    if plan.from.is_empty() || !live.map(|entry| entry.epoch).eq(plan.from.iter().copied()) {
        return Err(unverified(format!("the plan leaves epochs {:?}, which are not those of pool {pool}", plan.from)));
    }
    let follows = current.iter().all(|entry| entry.epoch < to.epoch);
    if to.pool != *pool || to.state != KeyState::Pending || !follows {
        return Err(unverified("expected a new key of the plan's pool, pending, and of the next epoch"));
    }
    let suite = current.iter().find(|entry| entry.state == KeyState::Active).map(|entry| entry.suite);
    if plan.reason == RotationReason::Routine && suite != Some(to.suite) {
        return Err(unverified("an envelope has one suite: the new key has to be of the suite of the active one"));
    }
    certseal_seal::entry_recipient(to).map_err(unverified)?;
    Ok(())
}

/// The longest that a plan is valid.
const MAX_VALIDITY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How far the clock of the plan's maker may be ahead.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);
