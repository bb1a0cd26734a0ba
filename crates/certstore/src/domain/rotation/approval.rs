//! Two people agree on a rotation: one proposes a plan that the security team signed, another one approves it.

use certseal_seal::{VerifyingKeys, sha256};
use certseal_service::problem::Refusal;
use certseal_wire::{Approval, AuditAction, ProblemKind, Rotation, RotationId, RotationPlan, RotationState, Signed};
use jiff::Timestamp;

use super::{
    plan::check,
    record::{add_step, all, find, present, step_note, write},
};
use crate::{
    actor::Actor,
    guards::set_mark,
    refusal::{conflict, unverified},
    vault::Vault,
};

/// Takes a plan that the security team signed.
pub(crate) fn propose(vault: &Vault, caller: &Actor, id: RotationId, signed: Signed) -> Result<Rotation, Refusal> {
    let security = VerifyingKeys::from_iter([vault.security().clone()]);
    let plan: RotationPlan = security.verify(&signed).map_err(unverified)?;
    if plan.id != id {
        return Err(unverified(format!("the plan is of rotation {}, the path of {id}", plan.id)));
    }
    if let Some(known) = find(vault, id)? {
        if known.rotation.plan == signed {
            return Ok(known.rotation);
        }
        return Err(conflict(format!("rotation {id} is there with another plan: a plan never changes")));
    }
    // Of two proposals for one pool that come together, the second finds the mark moved.
    let opened = format!("rotations of {}", plan.pool);
    let alone = vault.mark_guard(&opened)?;
    let trusted = vault.refresh()?;
    check(&plan, &trusted.ring, Timestamp::now())?;
    if let Some(open) = all(vault)?.into_iter().find(|known| known.is_open_in(&plan.pool)) {
        return Err(conflict(format!(
            "rotation {} of pool {} is {}: finish it or abort it first",
            open.plan.id, plan.pool, open.rotation.state
        )));
    }
    let mut rotation = Rotation {
        digest: sha256(&signed.payload.0),
        plan: signed,
        state: RotationState::Proposed,
        proposed_by: caller.to_string(),
        approved_by: None,
        verified_at: None,
        steps: Vec::new(),
    };
    add_step(&mut rotation, caller, format!("proposed: {} rotation of pool {}", plan.reason, plan.pool));
    let writes = vec![trusted.guard(), alone, set_mark(&opened)?, write(id, 0, &rotation)?];
    vault.commit(step_note(caller, AuditAction::ProposeRotation, &rotation), writes.into())?;
    Ok(rotation)
}

/// Takes the second person's approval, for exactly this plan.
pub(crate) fn approve(vault: &Vault, caller: &Actor, id: RotationId, approval: &Approval) -> Result<Rotation, Refusal> {
    let known = present(vault, id)?;
    let mut rotation = known.rotation;
    if rotation.digest != approval.plan {
        return Err(conflict(format!(
            "the approval is for plan {}, rotation {id} has plan {}: look at it again",
            approval.plan, rotation.digest
        )));
    }
    if rotation.state != RotationState::Proposed {
        return Err(conflict(format!("rotation {id} is {}: an approval counts once", rotation.state)));
    }
    if rotation.proposed_by == caller.to_string() {
        let detail = format!("{caller} proposed the plan: another admin has to approve it");
        return Err(Refusal::new(ProblemKind::Forbidden, detail));
    }
    let trusted = vault.refresh()?;
    check(&known.plan, &trusted.ring, Timestamp::now())?;
    rotation.state = RotationState::Approved;
    rotation.approved_by = Some(caller.to_string());
    add_step(&mut rotation, caller, format!("approved plan {}", approval.plan));
    let writes = vec![trusted.guard(), write(id, known.revision, &rotation)?];
    vault.commit(step_note(caller, AuditAction::ApproveRotation, &rotation), writes.into())?;
    Ok(rotation)
}

/// Gives a rotation up. One whose key is in the ring is given up by a ring that retires the key.
pub(crate) fn abort(vault: &Vault, caller: &Actor, id: RotationId) -> Result<Rotation, Refusal> {
    let known = present(vault, id)?;
    let mut rotation = known.rotation;
    match rotation.state {
        RotationState::Aborted => return Ok(rotation),
        RotationState::Proposed | RotationState::Approved => {}
        state => {
            return Err(conflict(format!(
                "rotation {id} is {state}: while it is announced, a key ring that retires the new key gives it up; \
                 later it can only be finished"
            )));
        }
    }
    rotation.state = RotationState::Aborted;
    add_step(&mut rotation, caller, "aborted");
    vault.commit(
        step_note(caller, AuditAction::AbortRotation, &rotation),
        write(id, known.revision, &rotation)?.into(),
    )?;
    Ok(rotation)
}
