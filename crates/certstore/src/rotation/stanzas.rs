//! Stanzas of stored bundles: added, and removed, for a rotation.

use certseal_seal::{Bundle, Envelope, Stanza, sha256};
use certseal_service::problem::Refusal;
use certseal_store::{Expect, Position, Write};
use certseal_wire::{
    AuditAction, Cursor, DnsName, Epoch, Event, Kind, PoolName, ProblemKind, Rewrap, RewrapOutcome, RewrapRequest,
    Role, Rotation, RotationId, RotationPlan, RotationState, Verification,
};

use super::{Known, conflict, entry, note, write};
use crate::{
    audit::{Actor, Entry},
    records::{BUNDLES, Stored, malformed},
    vault::{Vault, mark, refusal},
};

impl Vault {
    /// Adds stanzas for a rotation's new key. After a verification that calls for another one.
    pub(crate) fn rewrap(
        &self,
        caller: &Actor,
        id: RotationId,
        request: &RewrapRequest,
    ) -> Result<RewrapOutcome, Refusal> {
        let known = self.under_way(caller, id)?;
        let sites: usize = request.rewraps.iter().map(|rewrap| rewrap.sites.len()).sum();
        if sites > RewrapRequest::MAX_SITES {
            return Err(malformed(format!("expected at most {} sites, got {sites}", RewrapRequest::MAX_SITES)));
        }
        // What is there is replaced by admins only: an edge that was taken over could spoil what others rely on.
        let may_replace = caller.role == Role::Admin;
        // Every commit below moves the mark: a verification that began before does not count any more.
        let mut changes = Changes::new(caller, AuditAction::AddStanzas, id, vec![mark(&stanzas_of(id))?]);
        for rewrap in &request.rewraps {
            let stanza = stanza(&known.plan, rewrap)?;
            for target in &rewrap.sites {
                self.change_bundle(&mut changes, &target.site, |bundle| {
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
        if !changes.writes.is_empty() && known.rotation.state == RotationState::Verified {
            let mut rotation = known.rotation;
            rotation.state = RotationState::Active;
            rotation.verified_at = None;
            note(&mut rotation, caller, "more is sealed to the new key: it has to be verified again");
            let entry = entry(caller, AuditAction::AddStanzas, &rotation);
            match self.commit(entry, write(id, known.revision, &rotation)?.into()) {
                // Another request of the same kind came first, and says the same.
                Err(refusal) if refusal.0.kind == ProblemKind::Conflict && self.is_active(caller, id)? => {}
                other => drop(other?),
            }
            // A verification that came right after did not see what is added now.
            let known = self.under_way(caller, id)?;
            if known.rotation.state != RotationState::Active {
                return Err(conflict("the rotation was verified in between: try again"));
            }
            changes.guards.push(known.guard());
        } else {
            changes.guards.push(known.guard());
        }
        let changed = self.commit_changes(changes)?;
        Ok(RewrapOutcome { changed, unchanged: sites as u64 - changed, next: None })
    }

    fn is_active(&self, caller: &Actor, id: RotationId) -> Result<bool, Refusal> {
        Ok(self.under_way(caller, id)?.rotation.state == RotationState::Active)
    }

    /// Notes that every bundle was opened with the new key, if every bundle has a stanza for it.
    pub(crate) fn verified(
        &self,
        caller: &Actor,
        id: RotationId,
        verification: &Verification,
    ) -> Result<Rotation, Refusal> {
        // Nothing that was not verified may be what is left: stanzas that come while bundles are counted move the mark.
        let unmoved = self.mark_guard(&stanzas_of(id))?;
        let Known { plan, mut rotation, revision } = self.under_way(caller, id)?;
        let least = verification.bundles.div_ceil(u64::from(plan.verify_one_in.max(1)));
        if verification.opened < least {
            return Err(conflict(format!(
                "the plan asks for one of {} bundles to be opened, at least {least} of {}; {} were",
                plan.verify_one_in, verification.bundles, verification.opened
            )));
        }
        let held = self.sealed_to_new(&plan)?;
        if verification.bundles < held {
            return Err(conflict(format!(
                "pool {} has {held} bundles, {} were looked at: verify again",
                plan.pool, verification.bundles
            )));
        }
        if rotation.state == RotationState::Active {
            rotation.state = RotationState::Verified;
        }
        let Position { epoch, seq } = self.storage().head().map_err(refusal)?;
        rotation.verified_at = Some(Cursor { epoch, seq });
        let Verification { opened, bundles } = verification;
        note(
            &mut rotation,
            caller,
            format!("verified: {opened} of {bundles} bundles opened with epoch {}", plan.to.epoch),
        );
        let entry = entry(caller, AuditAction::VerifyRotation, &rotation);
        self.commit(entry, vec![unmoved, write(id, revision, &rotation)?].into())?;
        Ok(rotation)
    }

    /// Removes stanzas for a rotation's old keys from the next bundles after `after`.
    pub(crate) fn retire_stanzas(
        &self,
        caller: &Actor,
        id: RotationId,
        after: Option<&DnsName>,
    ) -> Result<RewrapOutcome, Refusal> {
        let known = self.under_way(caller, id)?;
        let mut changes = Changes::new(caller, AuditAction::RemoveStanzas, id, vec![known.guard()]);
        let Known { plan, rotation, .. } = known;
        if rotation.state != RotationState::Verified {
            return Err(conflict(format!("rotation {id} is {}: verify it first", rotation.state)));
        }
        let behind = self.edges_behind(&plan, rotation.verified_at)?;
        if !behind.is_empty() {
            return Err(conflict(format!(
                "edges {} have not read yet what was sealed to epoch {}, refuse some of it, or lack its key, and need the \
                 old keys: wait for them, or, if they are gone, remove them with `certctl edges forget`",
                behind.join(", "),
                plan.to.epoch
            )));
        }
        let after = after.map(|site| site.as_str().as_bytes());
        let page = self.storage().scan(BUNDLES, after, RewrapRequest::MAX_SITES).map_err(refusal)?;
        let count = page.len();
        let mut next = None;
        for (key, _) in page {
            let site: DnsName = site_of(&key)?;
            self.change_bundle(&mut changes, &site, |bundle| {
                let envelope = bundle.sealed().envelope()?;
                let is_old = |epoch: Epoch| plan.from.contains(&epoch);
                let has_old = envelope.stanzas().iter().any(|s| s.pool == plan.pool && is_old(s.epoch));
                // Without the new one the old ones stay: it came after the verification.
                let has_new = envelope.stanza(&plan.pool, plan.to.epoch).is_some();
                (has_old && has_new).then(|| envelope.clone().without_stanzas(&plan.pool, is_old).ok()).flatten()
            })?;
            next = Some(site);
        }
        let changed = self.commit_changes(changes)?;
        let next = next.filter(|_| count == RewrapRequest::MAX_SITES);
        Ok(RewrapOutcome { changed, unchanged: count as u64 - changed, next })
    }

    /// Plans the change of one bundle.
    fn change_bundle(
        &self,
        changes: &mut Changes,
        site: &DnsName,
        change: impl Fn(&Bundle) -> Option<Envelope>,
    ) -> Result<(), Refusal> {
        let stored = self.get(Kind::Bundle, site.as_str())?.filter(|stored| !stored.is_tombstone());
        let Some(stored) = stored else { return Ok(()) };
        let bundle = Bundle::parse(&stored.bytes).map_err(Refusal::internal)?;
        let Some(envelope) = change(&bundle) else { return Ok(()) };
        let bytes = bundle.with_sealed(envelope).to_bytes().map_err(Refusal::internal)?;
        let (name, version, pools) = (site.to_string(), stored.version, stored.pools);
        let event =
            Event { kind: Kind::Bundle, name, version, digest: sha256(&bytes), pools, body: None, deleted: false };
        let value = Stored::encode(version, &event.pools, &bytes);
        let event = serde_json::to_vec(&event).map_err(Refusal::internal)?;
        let octets = value.len() + event.len() + site.as_str().len();
        let mut write = Write::put(BUNDLES, site.as_str(), stored.revision + 1, value);
        if let Some(end) = stored.expires_at {
            write = write.expires_at(end);
        }
        changes.writes.push((octets, write.expect(Expect::Version(stored.revision)).event(event)));
        Ok(())
    }

    /// Commits what was planned, in transactions of the size that the storage takes. Answers how much of it.
    fn commit_changes(&self, changes: Changes) -> Result<u64, Refusal> {
        let Changes { writes, guards, entry } = changes;
        let (mut committed, mut some, mut octets) = (0, Vec::new(), 0);
        for (size, write) in writes {
            if octets + size > MAX_CHANGES && !some.is_empty() {
                committed += self.commit_some(&entry, &guards, std::mem::take(&mut some))?;
                octets = 0;
            }
            octets += size;
            some.push(write);
        }
        if !some.is_empty() {
            committed += self.commit_some(&entry, &guards, some)?;
        }
        Ok(committed)
    }

    fn commit_some(&self, entry: &Entry, guards: &[Write], writes: Vec<Write>) -> Result<u64, Refusal> {
        let count = writes.len() as u64;
        let entry = entry.clone().targets(writes.iter().map(|write| String::from_utf8_lossy(&write.key).into_owned()));
        match self.commit_and_announce(entry, guards.iter().cloned().chain(writes).collect()) {
            Ok(()) => Ok(count),
            // Somebody else changed one of them: whoever asked looks again, and nothing is lost.
            Err(refusal) if refusal.0.kind == ProblemKind::Conflict => Ok(0),
            Err(refusal) => Err(refusal),
        }
    }

    /// The rotation, while stanzas may change for it by this caller.
    fn under_way(&self, caller: &Actor, id: RotationId) -> Result<Known, Refusal> {
        let known = self.present(id)?;
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

    /// How many bundles the pool has, if each of them has a stanza for the rotation's new key.
    fn sealed_to_new(&self, plan: &RotationPlan) -> Result<u64, Refusal> {
        let mut count = 0;
        self.each_bundle(None, |site, _, bundle| {
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

    pub(super) fn first_sealed_to(&self, pool: &PoolName, epoch: Epoch) -> Result<Option<DnsName>, Refusal> {
        self.first(|envelope| envelope.stanza(pool, epoch).is_some())
    }

    fn first(&self, is_it: impl Fn(&Envelope) -> bool) -> Result<Option<DnsName>, Refusal> {
        let mut found = None;
        self.each_bundle(None, |site, _, bundle| {
            let is_found = bundle.sealed().envelope().is_some_and(&is_it);
            if is_found {
                found = Some(site.clone());
            }
            Ok(!is_found)
        })?;
        Ok(found)
    }

    /// Shows every bundle after `after` to `look`, in the order of sites, until it answers false.
    pub(crate) fn each_bundle(
        &self,
        after: Option<&DnsName>,
        mut look: impl FnMut(&DnsName, u64, &Bundle) -> Result<bool, Refusal>,
    ) -> Result<(), Refusal> {
        let mut after = after.map(|site| site.as_str().as_bytes().to_vec());
        loop {
            let page = self.storage().scan(BUNDLES, after.as_deref(), SCANNED).map_err(refusal)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, record) in &page {
                let stored =
                    Stored::decode(record).ok_or_else(|| Refusal::internal("a stored bundle is not one of ours"))?;
                if stored.is_tombstone() {
                    continue;
                }
                let bundle = Bundle::parse(&stored.bytes).map_err(Refusal::internal)?;
                if !look(&site_of(key)?, stored.version, &bundle)? {
                    return Ok(());
                }
            }
        }
    }
}

/// Bundles that are about to be written.
struct Changes {
    /// With their sizes.
    writes: Vec<(usize, Write)>,
    /// What goes into every transaction with them.
    guards: Vec<Write>,
    entry: Entry,
}

impl Changes {
    fn new(actor: &Actor, action: AuditAction, id: RotationId, guards: Vec<Write>) -> Self {
        Self { writes: Vec::new(), guards, entry: Entry::new(actor, action).detail(format!("rotation {id}")) }
    }
}

/// The mark that moves when stanzas are added for a rotation.
fn stanzas_of(id: RotationId) -> String {
    format!("stanzas of {id}")
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

fn site_of(key: &[u8]) -> Result<DnsName, Refusal> {
    let text = std::str::from_utf8(key).map_err(Refusal::internal)?;
    text.parse().map_err(Refusal::internal)
}

/// Bundles read from the database at one time.
const SCANNED: usize = 500;

/// Octets of bundles in one transaction, below what the storage allows.
const MAX_CHANGES: usize = 3 * 1024 * 1024;
