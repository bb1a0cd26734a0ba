//! Pages of the log, and the newest state of it that certman saw and signed.

use certseal_service::problem::Refusal;
use certseal_store::{AuditEntry, AuditLink, Position, Transaction, Write};
use certseal_wire::{
    AuditAction, AuditCheckpoint, AuditLine, AuditMark, AuditPage, AuditQuery, Cursor, Digest, PutOutcome, Signed,
};

use crate::{
    actor::Actor,
    audit_note::AuditNote,
    documents::signed,
    guards::expect,
    records::{AUDIT_CHECKPOINTS, ONLY},
    refusal::{conflict, storage_refusal, unverified},
    vault::Vault,
};

/// A page of the log.
pub(crate) fn page(vault: &Vault, query: &AuditQuery) -> Result<AuditPage, Refusal> {
    let limit = query.limit.unwrap_or(MAX_ENTRIES).clamp(1, MAX_ENTRIES);
    let entries = vault.storage().audit(query.after.unwrap_or(0), limit).map_err(storage_refusal)?;
    let ends = vault.storage().audit_ends().map_err(storage_refusal)?;
    let Position { epoch, seq } = vault.storage().head().map_err(storage_refusal)?;
    Ok(AuditPage {
        start: audit_mark(&ends.start),
        head: audit_mark(&ends.head),
        feed: Cursor { epoch, seq },
        entries: entries.iter().map(line).collect(),
    })
}

/// Keeps the state of this log that certman saw and signed, if the log still has it.
pub(crate) fn put_checkpoint(vault: &Vault, actor: &Actor, bytes: &[u8]) -> Result<PutOutcome, Refusal> {
    let document = signed(bytes)?;
    let current = vault.storage().get(AUDIT_CHECKPOINTS, ONLY).map_err(storage_refusal)?;
    let revision = current.map_or(0, |record| record.version);
    vault.commit_under_ring(|trusted| {
        let checkpoint: AuditCheckpoint = trusted.issuers.verify(&document).map_err(unverified)?;
        check_mark(vault, &checkpoint.head)?;
        let AuditMark { number, hash } = checkpoint.head;
        let note =
            AuditNote::new(actor, AuditAction::PutAuditCheckpoint).digest(hash).detail(format!("entry {number}"));
        let write = Write::put(AUDIT_CHECKPOINTS, ONLY, revision + 1, bytes).expect(expect(revision));
        Ok(Transaction { writes: vec![write], audit: note.bytes()? })
    })?;
    Ok(PutOutcome { version: revision + 1, changed: true })
}

/// The newest signed [`AuditCheckpoint`].
pub(crate) fn checkpoint(vault: &Vault) -> Result<Option<Signed>, Refusal> {
    let record = vault.storage().get(AUDIT_CHECKPOINTS, ONLY).map_err(storage_refusal)?;
    record.map(|record| signed(&record.value)).transpose()
}

fn check_mark(vault: &Vault, seen: &AuditMark) -> Result<(), Refusal> {
    let ends = vault.storage().audit_ends().map_err(storage_refusal)?;
    let there = match seen.number.checked_sub(1) {
        _ if seen.number == ends.start.number => Some(ends.start),
        None => None,
        Some(before) => {
            let entries = vault.storage().audit(before, 1).map_err(storage_refusal)?;
            entries.first().map(|entry| entry.link).filter(|link| link.number == seen.number)
        }
    };
    match there.map(|link| audit_mark(&link)) {
        Some(there) if there == *seen => Ok(()),
        _ => Err(conflict(format!("the audit log has no entry {} with hash {}", seen.number, seen.hash))),
    }
}

/// Notes that something was refused.
pub(crate) fn note_refusal(vault: &Vault, note: AuditNote) -> Result<(), Refusal> {
    vault.commit(note.refused(), Transaction::default()).map(drop)
}

/// The place of an entry in the chain, as it is handed out.
pub(crate) fn audit_mark(link: &AuditLink) -> AuditMark {
    AuditMark { number: link.number, hash: Digest(link.hash) }
}

/// An entry as it is handed out and written into files.
pub(crate) fn line(entry: &AuditEntry) -> AuditLine {
    // Bytes that are no text are no entry of ours: shown as well as they can be, they do not fit their hash.
    AuditLine { mark: audit_mark(&entry.link), entry: String::from_utf8_lossy(&entry.body).into_owned() }
}

/// Entries in one answer.
const MAX_ENTRIES: usize = 1000;
