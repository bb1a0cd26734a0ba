//! Stanzas of stored bundles: added for the new key of a rotation, and removed for its old ones.

use certseal_seal::Stanza;
use certseal_service::problem::Refusal;
use certseal_wire::{
    AuditAction, DnsName, Epoch, ProblemKind, Rewrap, RewrapOutcome, RewrapRequest, Role, RotationId, RotationPlan,
    RotationState,
};

use super::{
    bundle_writes::BundleWrites,
    record::{StoredRotation, add_step, stanzas_mark, step_note, under_way, write},
};
use crate::{
    actor::Actor,
    domain::{bundles, edges},
    guards::set_mark,
    records::BUNDLES,
    refusal::{conflict, malformed, storage_refusal},
    vault::Vault,
};

/// Adds stanzas for a rotation's new key. A rotation that was verified before has to be verified again.
pub(crate) fn rewrap(
    vault: &Vault,
    caller: &Actor,
    id: RotationId,
    request: &RewrapRequest,
) -> Result<RewrapOutcome, Refusal> {
    let known = under_way(vault, caller, id)?;
    let sites: usize = request.rewraps.iter().map(|rewrap| rewrap.sites.len()).sum();
    if sites > RewrapRequest::MAX_SITES {
        return Err(malformed(format!("expected at most {} sites, got {sites}", RewrapRequest::MAX_SITES)));
    }
    // Only admins replace a stanza that is there: an edge that was taken over could spoil those that others rely on.
    let may_replace = caller.role == Role::Admin;
    // Every commit below moves the mark: a verification that began before does not count any more.
    let mut writes = BundleWrites::new(caller, AuditAction::AddStanzas, id, vec![set_mark(&stanzas_mark(id))?]);
    for rewrap in &request.rewraps {
        let stanza = stanza(&known.plan, rewrap)?;
        for target in &rewrap.sites {
            writes.plan(vault, &target.site, |bundle| {
                let envelope = bundle.sealed().envelope()?;
                let header = envelope.header();
                let is_meant = header.hash() == target.envelope && header.suite as u16 == known.plan.to.suite;
                let is_for_pool = envelope.stanzas().iter().any(|stanza| stanza.pool == known.plan.pool);
                let is_there = match envelope.stanza(&stanza.pool, stanza.epoch) {
                    Some(there) => !may_replace || *there == stanza,
                    None => false,
                };
                if !is_meant || !is_for_pool || is_there {
                    return None;
                }
                envelope.clone().with_stanza(stanza.clone()).ok()
            })?;
        }
    }
    if !writes.is_empty() && known.rotation.state == RotationState::Verified {
        let mut rotation = known.rotation;
        rotation.state = RotationState::Active;
        rotation.verified_at = None;
        add_step(&mut rotation, caller, "more is sealed to the new key: it has to be verified again");
        let note = step_note(caller, AuditAction::AddStanzas, &rotation);
        match vault.commit(note, write(id, known.revision, &rotation)?.into()) {
            // Another request of the same kind came first, and says the same.
            Err(refusal) if refusal.0.kind == ProblemKind::Conflict && is_active(vault, caller, id)? => {}
            other => drop(other?),
        }
        // A verification that came right after did not see the stanzas that are added now.
        let known = under_way(vault, caller, id)?;
        if known.rotation.state != RotationState::Active {
            return Err(conflict("the rotation was verified in between: try again"));
        }
        writes.guard(known.guard());
    } else {
        writes.guard(known.guard());
    }
    let changed = writes.commit(vault)?;
    Ok(RewrapOutcome { changed, unchanged: sites as u64 - changed, next: None })
}

fn is_active(vault: &Vault, caller: &Actor, id: RotationId) -> Result<bool, Refusal> {
    Ok(under_way(vault, caller, id)?.rotation.state == RotationState::Active)
}

/// Removes stanzas for a rotation's old keys from the next bundles after `after`.
pub(crate) fn retire(
    vault: &Vault,
    caller: &Actor,
    id: RotationId,
    after: Option<&DnsName>,
) -> Result<RewrapOutcome, Refusal> {
    let known = under_way(vault, caller, id)?;
    let mut writes = BundleWrites::new(caller, AuditAction::RemoveStanzas, id, vec![known.guard()]);
    let StoredRotation { plan, rotation, .. } = known;
    if rotation.state != RotationState::Verified {
        return Err(conflict(format!("rotation {id} is {}: verify it first", rotation.state)));
    }
    let behind = edges::behind(vault, &plan, rotation.verified_at)?;
    if !behind.is_empty() {
        return Err(conflict(format!(
            "edges {} have not read yet what was sealed to epoch {}, refuse some of it, or lack its key, and need the \
             old keys: wait for them, or, if they are gone, remove them with `certctl edges forget`",
            behind.join(", "),
            plan.to.epoch
        )));
    }
    let after = after.map(|site| site.as_str().as_bytes());
    let page = vault.storage().scan(BUNDLES, after, RewrapRequest::MAX_SITES).map_err(storage_refusal)?;
    let count = page.len();
    let mut next = None;
    for (key, _) in page {
        let site: DnsName = bundles::site_of(&key)?;
        writes.plan(vault, &site, |bundle| {
            let envelope = bundle.sealed().envelope()?;
            let is_old = |epoch: Epoch| plan.from.contains(&epoch);
            let has_old = envelope.stanzas().iter().any(|s| s.pool == plan.pool && is_old(s.epoch));
            // A bundle without the new stanza came after the verification, and keeps the old ones.
            let has_new = envelope.stanza(&plan.pool, plan.to.epoch).is_some();
            (has_old && has_new).then(|| envelope.clone().without_stanzas(&plan.pool, is_old).ok()).flatten()
        })?;
        next = Some(site);
    }
    let changed = writes.commit(vault)?;
    let next = next.filter(|_| count == RewrapRequest::MAX_SITES);
    Ok(RewrapOutcome { changed, unchanged: count as u64 - changed, next })
}

/// The stanza that a request describes.
fn stanza(plan: &RotationPlan, rewrap: &Rewrap) -> Result<Stanza, Refusal> {
    let sealed_key = rewrap.sealed_key.0.as_slice().try_into();
    Ok(Stanza {
        pool: plan.pool.clone(),
        epoch: plan.to.epoch,
        key_id: plan.to.key_id,
        enc: rewrap.enc.0.clone(),
        sealed_key: sealed_key.map_err(|_| malformed("expected a sealed content key of 48 octets"))?,
    })
}
