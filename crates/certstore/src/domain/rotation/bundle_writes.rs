//! Bundles that are written with other stanzas, in transactions of the size that the storage takes.

use certseal_seal::{Bundle, Envelope, sha256};
use certseal_service::problem::Refusal;
use certseal_store::{Expect, Write};
use certseal_wire::{AuditAction, DnsName, Event, Kind, ProblemKind, RotationId};

use crate::{
    actor::Actor,
    audit_note::AuditNote,
    records::{BUNDLES, Stored},
    vault::Vault,
};

/// Bundles that are about to be written.
pub(super) struct BundleWrites {
    /// With their sizes.
    writes: Vec<(usize, Write)>,
    /// The conditions and marks that go into every transaction.
    guards: Vec<Write>,
    note: AuditNote,
}

impl BundleWrites {
    pub(super) fn new(actor: &Actor, action: AuditAction, id: RotationId, guards: Vec<Write>) -> Self {
        Self { writes: Vec::new(), guards, note: AuditNote::new(actor, action).detail(format!("rotation {id}")) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Adds a write that goes into every transaction.
    pub(super) fn guard(&mut self, guard: Write) {
        self.guards.push(guard);
    }

    /// Plans the write of one bundle with the envelope that `change` answers for it; of none without an answer.
    pub(super) fn plan(
        &mut self,
        vault: &Vault,
        site: &DnsName,
        change: impl Fn(&Bundle) -> Option<Envelope>,
    ) -> Result<(), Refusal> {
        let stored = vault.get(Kind::Bundle, site.as_str())?.filter(|stored| !stored.is_tombstone());
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
        self.writes.push((octets, write.expect(Expect::Version(stored.revision)).event(event)));
        Ok(())
    }

    /// Commits the planned writes. Answers how many.
    pub(super) fn commit(self, vault: &Vault) -> Result<u64, Refusal> {
        let Self { writes, guards, note } = self;
        let (mut committed, mut some, mut octets) = (0, Vec::new(), 0);
        for (size, write) in writes {
            if octets + size > MAX_OCTETS && !some.is_empty() {
                committed += commit_some(vault, &note, &guards, std::mem::take(&mut some))?;
                octets = 0;
            }
            octets += size;
            some.push(write);
        }
        if !some.is_empty() {
            committed += commit_some(vault, &note, &guards, some)?;
        }
        Ok(committed)
    }
}

fn commit_some(vault: &Vault, note: &AuditNote, guards: &[Write], writes: Vec<Write>) -> Result<u64, Refusal> {
    let count = writes.len() as u64;
    let note = note.clone().targets(writes.iter().map(|write| String::from_utf8_lossy(&write.key).into_owned()));
    match vault.commit_and_announce(note, guards.iter().cloned().chain(writes).collect()) {
        Ok(()) => Ok(count),
        // Somebody else changed one of them: the caller looks again, and nothing is lost.
        Err(refusal) if refusal.0.kind == ProblemKind::Conflict => Ok(0),
        Err(refusal) => Err(refusal),
    }
}

/// Octets of bundles in one transaction, below the limit of the storage.
const MAX_OCTETS: usize = 3 * 1024 * 1024;
