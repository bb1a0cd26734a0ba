//! The record of a rotation: its signed plan, its state, and the steps that it went through.

use certseal_service::problem::Refusal;
use certseal_store::Write;
use certseal_wire::{
    AuditAction, PoolName, ProblemKind, Role, Rotation, RotationId, RotationList, RotationPlan, RotationState,
    RotationStep,
};
use jiff::Timestamp;

use crate::{
    actor::Actor,
    audit_note::AuditNote,
    guards::expect,
    records::ROTATIONS,
    refusal::{conflict, storage_refusal},
    vault::Vault,
};

/// A rotation with its plan parsed, and the revision of its record.
pub(crate) struct StoredRotation {
    pub(crate) plan: RotationPlan,
    pub(crate) rotation: Rotation,
    pub(super) revision: u64,
}

impl StoredRotation {
    fn read(bytes: &[u8], revision: u64) -> Result<Self, Refusal> {
        let rotation: Rotation = serde_json::from_slice(bytes).map_err(Refusal::internal)?;
        // The plan's signature was verified before it was stored.
        let plan = serde_json::from_slice(&rotation.plan.payload.0).map_err(Refusal::internal)?;
        Ok(Self { plan, rotation, revision })
    }

    /// A condition that holds as long as nobody moves the rotation on.
    pub(super) fn guard(&self) -> Write {
        Write::require(ROTATIONS, self.plan.id.to_string(), expect(self.revision))
    }

    pub(super) fn is_open_in(&self, pool: &PoolName) -> bool {
        self.plan.pool == *pool && self.rotation.state.is_open()
    }
}

/// All rotations, the newest first.
pub(crate) fn list(vault: &Vault) -> Result<RotationList, Refusal> {
    let mut known = all(vault)?;
    known.sort_by_key(|known| std::cmp::Reverse(known.plan.created_at));
    Ok(RotationList { rotations: known.into_iter().map(|known| known.rotation).collect() })
}

/// The rotation, if there is one.
pub(crate) fn find(vault: &Vault, id: RotationId) -> Result<Option<StoredRotation>, Refusal> {
    let record = vault.storage().get(ROTATIONS, id.to_string().as_bytes()).map_err(storage_refusal)?;
    record.map(|record| StoredRotation::read(&record.value, record.version)).transpose()
}

/// The rotation; refused when there is none.
pub(super) fn present(vault: &Vault, id: RotationId) -> Result<StoredRotation, Refusal> {
    let missing = || Refusal::new(ProblemKind::NotFound, format!("there is no rotation {id}"));
    find(vault, id)?.ok_or_else(missing)
}

/// All rotations, in the order of their ids.
pub(super) fn all(vault: &Vault) -> Result<Vec<StoredRotation>, Refusal> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = vault.storage().scan(ROTATIONS, after.as_deref(), PAGE).map_err(storage_refusal)?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        after = Some(last.clone());
        for (_, record) in page {
            found.push(StoredRotation::read(&record.value, record.version)?);
        }
    }
}

/// The rotation, while this caller may change stanzas for it.
pub(super) fn under_way(vault: &Vault, caller: &Actor, id: RotationId) -> Result<StoredRotation, Refusal> {
    let known = present(vault, id)?;
    let may = match &caller.role {
        Role::Admin => true,
        Role::Edge(pool) => *pool == known.plan.pool,
        _ => false,
    };
    if !may {
        let needed = format!("this needs role admin or edge/{}, the caller is {caller}", known.plan.pool);
        return Err(Refusal::new(ProblemKind::Forbidden, needed));
    }
    if !matches!(known.rotation.state, RotationState::Active | RotationState::Verified) {
        return Err(conflict(format!(
            "rotation {id} is {}: stanzas change while it is active or verified",
            known.rotation.state
        )));
    }
    Ok(known)
}

/// The mark that moves when stanzas are added for a rotation.
pub(super) fn stanzas_mark(id: RotationId) -> String {
    format!("stanzas of {id}")
}

/// Adds a step to the rotation's history.
pub(super) fn add_step(rotation: &mut Rotation, caller: &Actor, what: impl Into<String>) {
    // Steps that are repeated over and over must not keep the rotation from ending: the first ones stay, and the last.
    if rotation.steps.len() >= MAX_STEPS {
        rotation.steps.remove(MAX_STEPS / 4);
    }
    rotation.steps.push(RotationStep { at: Timestamp::now(), by: caller.to_string(), what: what.into() });
}

/// The note of a step of a rotation, in the words of the rotation's own newest step.
pub(super) fn step_note(actor: &Actor, action: AuditAction, rotation: &Rotation) -> AuditNote {
    let what = rotation.steps.last().map(|step| step.what.clone()).unwrap_or_default();
    let id = serde_json::from_slice(&rotation.plan.payload.0).map(|plan: RotationPlan| plan.id.to_string());
    AuditNote::new(actor, action).targets(id).digest(rotation.digest).detail(what)
}

/// The write of a rotation over the record that had this revision.
pub(super) fn write(id: RotationId, revision: u64, rotation: &Rotation) -> Result<Write, Refusal> {
    let value = serde_json::to_vec(rotation).map_err(Refusal::internal)?;
    Ok(Write::put(ROTATIONS, id.to_string(), revision + 1, value).expect(expect(revision)))
}

/// Rotations read from the database at one time.
const PAGE: usize = 100;

/// Steps of one rotation.
const MAX_STEPS: usize = 200;
