//! An entry of the audit log in the making: an action with its actor, address and outcome.

use certseal_service::problem::Refusal;
use certseal_wire::{AuditAction, AuditOutcome, AuditRecord, Digest};
use jiff::Timestamp;

use crate::actor::Actor;

/// An entry in the making.
#[derive(Debug, Clone)]
pub(crate) struct AuditNote(AuditRecord);

impl AuditNote {
    /// Something that `actor` did.
    pub(crate) fn new(actor: &Actor, action: AuditAction) -> Self {
        Self(AuditRecord {
            at: Timestamp::now(),
            by: actor.caller.to_string(),
            from: actor.from,
            action,
            targets: Vec::new(),
            version: None,
            digest: None,
            detail: None,
            outcome: AuditOutcome::Done,
        })
    }

    pub(crate) fn target(mut self, target: impl ToString) -> Self {
        self.0.targets.push(target.to_string());
        self
    }

    pub(crate) fn targets(mut self, targets: impl IntoIterator<Item = String>) -> Self {
        self.0.targets.extend(targets);
        self
    }

    pub(crate) fn version(mut self, version: u64) -> Self {
        self.0.version = Some(version);
        self
    }

    pub(crate) fn digest(mut self, digest: Digest) -> Self {
        self.0.digest = Some(digest);
        self
    }

    /// At most 1,000 characters of it are kept.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into().chars().take(1000).collect());
        self
    }

    /// The actor tried, and was refused.
    pub(crate) fn refused(mut self) -> Self {
        self.0.outcome = AuditOutcome::Refused;
        self
    }

    /// The bytes of the entry; of several, when its targets do not fit into one.
    pub(crate) fn bytes(self) -> Result<Vec<Vec<u8>>, Refusal> {
        let Self(mut record) = self;
        let mut targets = std::mem::take(&mut record.targets);
        let mut entries = Vec::new();
        loop {
            let rest = targets.split_off(targets.len().min(TARGETS_OF_AN_ENTRY));
            let part = AuditRecord { targets, ..record.clone() };
            entries.push(serde_json::to_vec(&part).map_err(Refusal::internal)?);
            if rest.is_empty() {
                return Ok(entries);
            }
            targets = rest;
        }
    }
}

/// Targets in one entry: with the longest names they have 26 kB.
const TARGETS_OF_AN_ENTRY: usize = 100;
