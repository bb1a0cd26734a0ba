//! The audit log: who did what, from where, and what came of it.
//!
//! A change is noted in the transaction that makes it. What hands out sealed keys is noted, durably, before the answer
//! goes out; reads that come together share a transaction. What cannot be noted is refused.

mod files;
mod reads;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::Deref,
};

use axum::{extract::FromRequestParts, http::request::Parts};
use certseal_service::{problem::Refusal, server::PeerAddress};
use certseal_store::{AuditEntry, AuditLink, Position, Transaction, Write};
use certseal_wire::{
    AuditAction, AuditCheckpoint, AuditLine, AuditMark, AuditOutcome, AuditPage, AuditQuery, AuditRecord, Caller,
    Cursor, Digest, ProblemKind, PutOutcome, Role, Signed,
};
use jiff::Timestamp;

pub(crate) use files::rotate;
pub(crate) use reads::{ReadLog, What};

use crate::{
    records::{AUDIT_CHECKPOINTS, ONLY, signed, unverified},
    vault::{Vault, expect, refusal},
};

/// A caller, and where it calls from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    pub(crate) caller: Caller,
    /// None for this daemon.
    pub(crate) from: Option<IpAddr>,
}

impl Actor {
    /// certstore itself.
    pub(crate) fn itself() -> Self {
        Self { caller: Caller { role: Role::Service, name: "certstore".into() }, from: None }
    }
}

impl Deref for Actor {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.caller.fmt(f)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Refusal::internal("a request without a caller"))?;
        let from = parts.extensions.get::<PeerAddress>().map(|PeerAddress(address)| SocketAddr::ip(address));
        Ok(Self { caller, from })
    }
}

/// An entry in the making.
#[derive(Debug, Clone)]
pub(crate) struct Entry(AuditRecord);

impl Entry {
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

impl Vault {
    /// A page of the log.
    pub(crate) fn audit_page(&self, query: &AuditQuery) -> Result<AuditPage, Refusal> {
        let limit = query.limit.unwrap_or(MAX_ENTRIES).clamp(1, MAX_ENTRIES);
        let entries = self.storage().audit(query.after.unwrap_or(0), limit).map_err(refusal)?;
        let ends = self.storage().audit_ends().map_err(refusal)?;
        let Position { epoch, seq } = self.storage().head().map_err(refusal)?;
        Ok(AuditPage {
            start: mark(&ends.start),
            head: mark(&ends.head),
            feed: Cursor { epoch, seq },
            entries: entries.iter().map(line).collect(),
        })
    }

    /// Keeps what certman saw of this log, if the log still has it.
    pub(crate) fn put_audit_checkpoint(&self, actor: &Actor, bytes: &[u8]) -> Result<PutOutcome, Refusal> {
        let document = signed(bytes)?;
        let current = self.storage().get(AUDIT_CHECKPOINTS, ONLY).map_err(refusal)?;
        let revision = current.map_or(0, |record| record.version);
        self.commit_under_ring(|trusted| {
            let checkpoint: AuditCheckpoint = trusted.issuers.verify(&document).map_err(unverified)?;
            self.check_mark(&checkpoint.head)?;
            let AuditMark { number, hash } = checkpoint.head;
            let entry =
                Entry::new(actor, AuditAction::PutAuditCheckpoint).digest(hash).detail(format!("entry {number}"));
            let write = Write::put(AUDIT_CHECKPOINTS, ONLY, revision + 1, bytes).expect(expect(revision));
            Ok(Transaction { writes: vec![write], audit: entry.bytes()? })
        })?;
        Ok(PutOutcome { version: revision + 1, changed: true })
    }

    /// The newest signed [`AuditCheckpoint`].
    pub(crate) fn audit_checkpoint(&self) -> Result<Option<Signed>, Refusal> {
        let record = self.storage().get(AUDIT_CHECKPOINTS, ONLY).map_err(refusal)?;
        record.map(|record| signed(&record.value)).transpose()
    }

    fn check_mark(&self, seen: &AuditMark) -> Result<(), Refusal> {
        let ends = self.storage().audit_ends().map_err(refusal)?;
        let there = match seen.number.checked_sub(1) {
            _ if seen.number == ends.start.number => Some(ends.start),
            None => None,
            Some(before) => {
                let entries = self.storage().audit(before, 1).map_err(refusal)?;
                entries.first().map(|entry| entry.link).filter(|link| link.number == seen.number)
            }
        };
        match there.map(|link| mark(&link)) {
            Some(there) if there == *seen => Ok(()),
            _ => {
                let detail = format!("the audit log has no entry {} with hash {}", seen.number, seen.hash);
                Err(Refusal::new(ProblemKind::Conflict, detail))
            }
        }
    }

    /// Notes what was refused.
    pub(crate) fn note_refused(&self, entry: Entry) -> Result<(), Refusal> {
        self.commit(entry.refused(), Transaction::default()).map(drop)
    }
}

pub(crate) fn mark(link: &AuditLink) -> AuditMark {
    AuditMark { number: link.number, hash: Digest(link.hash) }
}

/// An entry as it is handed out and written into files.
pub(crate) fn line(entry: &AuditEntry) -> AuditLine {
    // What is not text is no entry of ours: shown as it can be, it does not fit its hash.
    AuditLine { mark: mark(&entry.link), entry: String::from_utf8_lossy(&entry.body).into_owned() }
}

/// Targets in one entry: with the longest names they have 26 kB.
const TARGETS_OF_AN_ENTRY: usize = 100;

/// Entries in one answer.
const MAX_ENTRIES: usize = 1000;
