//! The verification of a rotation: somebody opened bundles with the new key.

use certseal_service::problem::Refusal;
use certseal_store::Position;
use certseal_wire::{AuditAction, Cursor, Rotation, RotationId, RotationPlan, RotationState, Verification};

use super::record::{StoredRotation, add_step, stanzas_mark, step_note, under_way, write};
use crate::{
    actor::Actor,
    domain::bundles,
    refusal::{conflict, storage_refusal},
    vault::Vault,
};

/// Notes that every bundle was opened with the new key, if every bundle has a stanza for it.
pub(crate) fn verify(
    vault: &Vault,
    caller: &Actor,
    id: RotationId,
    verification: &Verification,
) -> Result<Rotation, Refusal> {
    // No stanza may remain alone that was not verified: stanzas that come while bundles are counted move the mark.
    let unmoved = vault.mark_guard(&stanzas_mark(id))?;
    let StoredRotation { plan, mut rotation, revision } = under_way(vault, caller, id)?;
    let least = verification.bundles.div_ceil(u64::from(plan.verify_one_in.max(1)));
    if verification.opened < least {
        return Err(conflict(format!(
            "the plan asks for one of {} bundles to be opened, at least {least} of {}; {} were",
            plan.verify_one_in, verification.bundles, verification.opened
        )));
    }
    let held = sealed_to_new(vault, &plan)?;
    if verification.bundles < held {
        return Err(conflict(format!(
            "pool {} has {held} bundles, {} were looked at: verify again",
            plan.pool, verification.bundles
        )));
    }
    if rotation.state == RotationState::Active {
        rotation.state = RotationState::Verified;
    }
    let Position { epoch, seq } = vault.storage().head().map_err(storage_refusal)?;
    rotation.verified_at = Some(Cursor { epoch, seq });
    let Verification { opened, bundles } = verification;
    add_step(
        &mut rotation,
        caller,
        format!("verified: {opened} of {bundles} bundles opened with epoch {}", plan.to.epoch),
    );
    let note = step_note(caller, AuditAction::VerifyRotation, &rotation);
    vault.commit(note, vec![unmoved, write(id, revision, &rotation)?].into())?;
    Ok(rotation)
}

/// How many bundles the pool has, if each of them has a stanza for the rotation's new key.
fn sealed_to_new(vault: &Vault, plan: &RotationPlan) -> Result<u64, Refusal> {
    let mut count = 0;
    bundles::each(vault, None, |site, _, bundle| {
        let Some(envelope) = bundle.sealed().envelope() else { return Ok(true) };
        if envelope.stanzas().iter().all(|stanza| stanza.pool != plan.pool) {
            return Ok(true);
        }
        if envelope.stanza(&plan.pool, plan.to.epoch).is_none() {
            return Err(conflict(format!(
                "the bundle of {site} is not sealed to epoch {} of pool {}: run the rotation to its end first",
                plan.to.epoch, plan.pool
            )));
        }
        count += 1;
        Ok(true)
    })?;
    Ok(count)
}
