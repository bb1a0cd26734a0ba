//! Rotations of unseal keys: what certstore demands before a key ring may change, and the stanzas that go with it.
//!
//! certstore cannot open anything, so it cannot tell whether a stanza is good: edges can, and whoever verifies a
//! rotation does. What it enforces is the order of things: a plan of one admin is approved by another one, every edge has
//! the new key before anything is sealed to it, and no old stanza goes before every bundle has a new one.

mod stanzas;

use certseal_seal::{RingChange, VerifyingKeys, ring_changes, sha256};
use certseal_service::problem::Refusal;
use certseal_store::Write;
use certseal_wire::{
    Approval, AuditAction, Epoch, KeyRing, KeyState, PoolName, ProblemKind, Rotation, RotationId, RotationList,
    RotationPlan, RotationReason, RotationState, RotationStep, Signed,
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    audit::{Actor, Entry},
    records::{ROTATIONS, unverified},
    vault::{Vault, expect, mark, refusal},
};

/// A rotation with what its plan says, and the revision of its record.
pub(crate) struct Known {
    pub(crate) plan: RotationPlan,
    pub(crate) rotation: Rotation,
    revision: u64,
}

impl Vault {
    /// Takes a plan that the security team signed.
    pub(crate) fn propose(&self, caller: &Actor, id: RotationId, signed: Signed) -> Result<Rotation, Refusal> {
        let security = VerifyingKeys::from_iter([self.security().clone()]);
        let plan: RotationPlan = security.verify(&signed).map_err(unverified)?;
        if plan.id != id {
            return Err(unverified(format!("the plan is of rotation {}, the path of {id}", plan.id)));
        }
        if let Some(known) = self.known(id)? {
            return match known.rotation.plan == signed {
                true => Ok(known.rotation),
                false => Err(conflict(format!("rotation {id} is there with another plan: a plan never changes"))),
            };
        }
        // Of two proposals for one pool that come together, the second finds the mark moved.
        let opened = format!("rotations of {}", plan.pool);
        let alone = self.mark_guard(&opened)?;
        let trusted = self.refresh()?;
        check_plan(&plan, &trusted.ring, Timestamp::now())?;
        if let Some(open) = self.rotations()?.into_iter().find(|known| known.is_open_in(&plan.pool)) {
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
        note(&mut rotation, caller, format!("proposed: {} rotation of pool {}", plan.reason, plan.pool));
        let writes = vec![trusted.guard(), alone, mark(&opened)?, write(id, 0, &rotation)?];
        self.commit(entry(caller, AuditAction::ProposeRotation, &rotation), writes.into())?;
        Ok(rotation)
    }

    /// The second person's word, for exactly this plan.
    pub(crate) fn approve(&self, caller: &Actor, id: RotationId, approval: &Approval) -> Result<Rotation, Refusal> {
        let known = self.present(id)?;
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
        let trusted = self.refresh()?;
        check_plan(&known.plan, &trusted.ring, Timestamp::now())?;
        rotation.state = RotationState::Approved;
        rotation.approved_by = Some(caller.to_string());
        note(&mut rotation, caller, format!("approved plan {}", approval.plan));
        let writes = vec![trusted.guard(), write(id, known.revision, &rotation)?];
        self.commit(entry(caller, AuditAction::ApproveRotation, &rotation), writes.into())?;
        Ok(rotation)
    }

    /// Gives a rotation up. One whose key is in the ring is given up by a ring that retires the key.
    pub(crate) fn abort(&self, caller: &Actor, id: RotationId) -> Result<Rotation, Refusal> {
        let known = self.present(id)?;
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
        note(&mut rotation, caller, "aborted");
        self.commit(
            entry(caller, AuditAction::AbortRotation, &rotation),
            write(id, known.revision, &rotation)?.into(),
        )?;
        Ok(rotation)
    }

    /// All rotations, the newest first.
    pub(crate) fn rotation_list(&self) -> Result<RotationList, Refusal> {
        let mut known = self.rotations()?;
        known.sort_by_key(|known| std::cmp::Reverse(known.plan.created_at));
        Ok(RotationList { rotations: known.into_iter().map(|known| known.rotation).collect() })
    }

    /// The rotation, if there is one.
    pub(crate) fn known(&self, id: RotationId) -> Result<Option<Known>, Refusal> {
        let record = self.storage().get(ROTATIONS, id.to_string().as_bytes()).map_err(refusal)?;
        record.map(|record| Known::read(&record.value, record.version)).transpose()
    }

    /// What a new ring does to a rotation: the write that goes with it. Refuses what no rotation provides for.
    pub(crate) fn rotation_moved_by(
        &self,
        caller: &Actor,
        old: &KeyRing,
        new: &KeyRing,
    ) -> Result<Option<Write>, Refusal> {
        let changes = ring_changes(old, new).map_err(|error| conflict(error.to_string()))?;
        let mut moved: Option<Known> = None;
        for change in changes {
            let pool = match &change {
                RingChange::FirstKey(_) | RingChange::Forgotten { .. } => continue,
                RingChange::Announced(entry) => &entry.pool,
                RingChange::Moved { pool, .. } => pool,
            };
            if moved.is_none() {
                let open = self.rotations()?.into_iter().find(|known| known.is_open_in(pool));
                moved = Some(open.ok_or_else(|| {
                    let detail = format!("the key ring changes pool {pool}, which no approved rotation provides for");
                    Refusal::new(ProblemKind::Forbidden, detail)
                })?);
            }
            if let Some(known) = &mut moved {
                self.step(known, caller, &change, old, new)?;
            }
        }
        moved.map(|known| write(known.plan.id, known.revision, &known.rotation)).transpose()
    }

    /// Moves a rotation on by one change of the ring.
    fn step(
        &self,
        known: &mut Known,
        caller: &Actor,
        change: &RingChange,
        old: &KeyRing,
        new: &KeyRing,
    ) -> Result<(), Refusal> {
        let Known { plan, rotation, .. } = known;
        let state = rotation.state;
        let to = plan.to.epoch;
        match change {
            RingChange::Announced(entry) if *entry == plan.to && state == RotationState::Approved => {
                check_plan(plan, old, Timestamp::now())?;
                rotation.state = RotationState::Announced;
                note(rotation, caller, format!("epoch {to} announced by key ring {}", new.version));
            }
            RingChange::Moved { pool, epoch, from: KeyState::Pending, to: KeyState::Active }
                if *pool == plan.pool && *epoch == to && state == RotationState::Announced =>
            {
                let missing = self.edges_without(plan, old.version)?;
                if !missing.is_empty() {
                    return Err(conflict(format!(
                        "edges {} have not acknowledged epoch {to}: give them its unseal key, or, if they are gone, \
                         remove them with `certctl edges forget`",
                        missing.join(", ")
                    )));
                }
                rotation.state = RotationState::Active;
                note(rotation, caller, format!("epoch {to} made active by key ring {}", new.version));
            }
            // Goes with the one above: a ring has one active key for each pool.
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
                if let Some(site) = self.first_sealed_to(pool, *epoch)? {
                    return Err(conflict(format!(
                        "the bundle of {site} is sealed to epoch {epoch} of pool {pool}: run `certctl keys rotate \
                         retire` to the end first"
                    )));
                }
                note(rotation, caller, format!("epoch {epoch} retired by key ring {}", new.version));
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
                note(rotation, caller, format!("aborted: epoch {to} retired by key ring {}", new.version));
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

    fn present(&self, id: RotationId) -> Result<Known, Refusal> {
        let missing = || Refusal::new(ProblemKind::NotFound, format!("there is no rotation {id}"));
        self.known(id)?.ok_or_else(missing)
    }

    fn rotations(&self) -> Result<Vec<Known>, Refusal> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.storage().scan(ROTATIONS, after.as_deref(), PAGE).map_err(refusal)?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            after = Some(last.clone());
            for (_, record) in page {
                found.push(Known::read(&record.value, record.version)?);
            }
        }
    }
}

impl Known {
    fn read(bytes: &[u8], revision: u64) -> Result<Self, Refusal> {
        let rotation: Rotation = serde_json::from_slice(bytes).map_err(Refusal::internal)?;
        // Verified before it was stored.
        let plan = serde_json::from_slice(&rotation.plan.payload.0).map_err(Refusal::internal)?;
        Ok(Self { plan, rotation, revision })
    }

    /// Holds as long as nobody moves the rotation on.
    fn guard(&self) -> Write {
        Write::require(ROTATIONS, self.plan.id.to_string(), expect(self.revision))
    }

    fn is_open_in(&self, pool: &PoolName) -> bool {
        self.plan.pool == *pool && self.rotation.state.is_open()
    }
}

/// Whether a plan fits the ring it starts from, and is not over.
fn check_plan(plan: &RotationPlan, ring: &KeyRing, now: Timestamp) -> Result<(), Refusal> {
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

fn note(rotation: &mut Rotation, caller: &Actor, what: impl Into<String>) {
    // What is done over and over must not keep the rotation from ending: how it began stays, and what came last.
    if rotation.steps.len() >= MAX_STEPS {
        rotation.steps.remove(MAX_STEPS / 4);
    }
    rotation.steps.push(RotationStep { at: Timestamp::now(), by: caller.to_string(), what: what.into() });
}

/// The entry for a step of a rotation, told as the rotation's own newest step.
fn entry(actor: &Actor, action: AuditAction, rotation: &Rotation) -> Entry {
    let what = rotation.steps.last().map(|step| step.what.clone()).unwrap_or_default();
    let id = serde_json::from_slice(&rotation.plan.payload.0).map(|plan: RotationPlan| plan.id.to_string());
    Entry::new(actor, action).targets(id).digest(rotation.digest).detail(what)
}

fn write(id: RotationId, revision: u64, rotation: &Rotation) -> Result<Write, Refusal> {
    let value = serde_json::to_vec(rotation).map_err(Refusal::internal)?;
    Ok(Write::put(ROTATIONS, id.to_string(), revision + 1, value).expect(expect(revision)))
}

fn conflict(detail: impl Into<String>) -> Refusal {
    Refusal::new(ProblemKind::Conflict, detail)
}

/// Rotations read from the database at one time.
const PAGE: usize = 100;

/// Steps of one rotation.
const MAX_STEPS: usize = 200;

/// The longest that a plan is valid.
const MAX_VALIDITY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How far the clock of whoever makes a plan may be ahead.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

#[cfg(test)]
mod tests;
