//! The steps of a rotation that a new key ring makes.

use certseal_seal::{RingChange, ring_changes};
use certseal_service::problem::Refusal;
use certseal_store::Write;
use certseal_wire::{Epoch, KeyRing, KeyState, ProblemKind, RotationState};
use jiff::Timestamp;

use super::{
    plan::check,
    record::{StoredRotation, add_step, all, write},
};
use crate::{
    actor::Actor,
    domain::{bundles, edges},
    refusal::conflict,
    vault::Vault,
};

/// The write of the rotation that a new ring moves on, if it moves one. A change that no rotation provides for is refused.
pub(crate) fn moved_by_ring(
    vault: &Vault,
    caller: &Actor,
    old: &KeyRing,
    new: &KeyRing,
) -> Result<Option<Write>, Refusal> {
    let changes = ring_changes(old, new).map_err(|error| conflict(error.to_string()))?;
    let mut moved: Option<StoredRotation> = None;
    for change in changes {
        let pool = match &change {
            RingChange::FirstKey(_) | RingChange::Forgotten { .. } => continue,
            RingChange::Announced(entry) => &entry.pool,
            RingChange::Moved { pool, .. } => pool,
        };
        if moved.is_none() {
            let open = all(vault)?.into_iter().find(|known| known.is_open_in(pool));
            moved = Some(open.ok_or_else(|| {
                let detail = format!("the key ring changes pool {pool}, which no approved rotation provides for");
                Refusal::new(ProblemKind::Forbidden, detail)
            })?);
        }
        if let Some(known) = &mut moved {
            step(vault, known, caller, &change, old, new)?;
        }
    }
    moved.map(|known| write(known.plan.id, known.revision, &known.rotation)).transpose()
}

/// Moves a rotation on by one change of the ring.
fn step(
    vault: &Vault,
    known: &mut StoredRotation,
    caller: &Actor,
    change: &RingChange,
    old: &KeyRing,
    new: &KeyRing,
) -> Result<(), Refusal> {
    let StoredRotation { plan, rotation, .. } = known;
    let state = rotation.state;
    let to = plan.to.epoch;
    match change {
        RingChange::Announced(entry) if *entry == plan.to && state == RotationState::Approved => {
            check(plan, old, Timestamp::now())?;
            rotation.state = RotationState::Announced;
            add_step(rotation, caller, format!("epoch {to} announced by key ring {}", new.version));
        }
        RingChange::Moved { pool, epoch, from: KeyState::Pending, to: KeyState::Active }
            if *pool == plan.pool && *epoch == to && state == RotationState::Announced =>
        {
            let missing = edges::without_key(vault, plan, old.version)?;
            if !missing.is_empty() {
                return Err(conflict(format!(
                    "edges {} have not acknowledged epoch {to}: give them its unseal key, or, if they are gone, \
                     remove them with `certctl edges forget`",
                    missing.join(", ")
                )));
            }
            rotation.state = RotationState::Active;
            add_step(rotation, caller, format!("epoch {to} made active by key ring {}", new.version));
        }
        // This change goes with the one above: a ring has one active key for each pool.
        RingChange::Moved { pool, epoch, from: KeyState::Active, to: KeyState::Retiring }
            if *pool == plan.pool && plan.from.contains(epoch) =>
        {
            let has_successor = new
                .keys
                .iter()
                .any(|entry| entry.pool == *pool && entry.epoch == to && entry.state == KeyState::Active);
            if !has_successor {
                return Err(conflict(format!("pool {pool} would be without an active key")));
            }
        }
        RingChange::Moved { pool, epoch, from: KeyState::Retiring, to: KeyState::Retired }
            if *pool == plan.pool && plan.from.contains(epoch) && state == RotationState::Verified =>
        {
            if let Some(site) = bundles::first_sealed_to(vault, pool, *epoch)? {
                return Err(conflict(format!(
                    "the bundle of {site} is sealed to epoch {epoch} of pool {pool}: run `certctl keys rotate \
                     retire` to the end first"
                )));
            }
            add_step(rotation, caller, format!("epoch {epoch} retired by key ring {}", new.version));
            let is_retired = |epoch: &Epoch| {
                let entry = new.keys.iter().find(|entry| entry.pool == *pool && entry.epoch == *epoch);
                entry.is_none_or(|entry| entry.state == KeyState::Retired)
            };
            if plan.from.iter().all(is_retired) {
                rotation.state = RotationState::Retired;
            }
        }
        RingChange::Moved { pool, epoch, from: KeyState::Pending, to: KeyState::Retired }
            if *pool == plan.pool && *epoch == to && state == RotationState::Announced =>
        {
            rotation.state = RotationState::Aborted;
            add_step(rotation, caller, format!("aborted: epoch {to} retired by key ring {}", new.version));
        }
        _ => {
            let detail = format!(
                "the key ring changes pool {} in a way that rotation {}, which is {state}, does not provide for",
                plan.pool, plan.id
            );
            return Err(Refusal::new(ProblemKind::Forbidden, detail));
        }
    }
    Ok(())
}
