//! Copies of the whole store.
//!
//! A backup holds ciphertext, signed documents and public keys: it is as safe anywhere as it is here.

use certseal_service::problem::Refusal;
use certseal_store::{Position, Record, Table, Transaction};
use certseal_wire::{
    AuditAction, BackupPage, BackupPlan, BackupQuery, BackupRecord, BackupTable, Base64, Cursor, Kind, ProblemKind,
};
use jiff::Timestamp;

use crate::{
    actor::Actor,
    audit::audit_mark,
    audit_note::AuditNote,
    records::{
        ACCOUNTS, BUNDLES, CHALLENGES, CHECKPOINTS, DRILLS, EDGES, FORGOTTEN, MARKS, RING, ROTATIONS, ROUTES, STAPLES,
    },
    refusal::{malformed, storage_refusal},
    vault::Vault,
};

/// The tables that a backup has to copy, and where the feed and the audit log are now.
pub(crate) fn plan(vault: &Vault, actor: &Actor) -> Result<BackupPlan, Refusal> {
    let Position { epoch, seq } = vault.storage().head().map_err(storage_refusal)?;
    let feed = Cursor { epoch, seq };
    let note = AuditNote::new(actor, AuditAction::Backup).detail(format!("begun at feed {feed}"));
    vault.commit(note, Transaction::default())?;
    let ends = vault.storage().audit_ends().map_err(storage_refusal)?;
    let tables = TABLES.iter().map(|(table, kind)| BackupTable { name: table.name().to_owned(), kind: *kind });
    Ok(BackupPlan { tables: tables.collect(), feed, audit: audit_mark(&ends.head), at: Timestamp::now() })
}

/// Records of a table, in the order of their keys.
pub(crate) fn page(vault: &Vault, table: Table, query: &BackupQuery) -> Result<BackupPage, Refusal> {
    if let Some(only) = &query.only {
        let key = from_hex(only)?;
        let record = vault.storage().get(table, &key).map_err(storage_refusal)?;
        let records = record.into_iter().map(|record| copied(table, &key, record)).collect();
        return Ok(BackupPage { records, next: None });
    }
    let after = query.after.as_deref().map(from_hex).transpose()?;
    let found = vault.storage().scan(table, after.as_deref(), PAGE).map_err(storage_refusal)?;
    let (mut records, mut octets, count) = (Vec::new(), 0, found.len());
    for (key, record) in found {
        octets += key.len() + record.value.len();
        records.push(copied(table, &key, record));
        if octets >= PAGE_OCTETS {
            break;
        }
    }
    let is_end = records.len() == count && count < PAGE;
    let next = records.last().filter(|_| !is_end).map(|record: &BackupRecord| record.key.clone());
    Ok(BackupPage { records, next })
}

/// The table of this name, and the kind of its events.
pub(crate) fn table_named(name: &str) -> Result<(Table, Option<Kind>), Refusal> {
    let table = TABLES.into_iter().find(|(table, _)| table.name() == name);
    table.ok_or_else(|| Refusal::new(ProblemKind::NotFound, "there is no such table"))
}

/// A record as a backup has it.
pub(crate) fn copied(table: Table, key: &[u8], record: Record) -> BackupRecord {
    let Record { version: revision, value, expires_at } = record;
    let key = key.iter().map(|octet| format!("{octet:02x}")).collect();
    BackupRecord { table: table.name().to_owned(), key, revision, value: Base64(value), expires_at }
}

/// Reads the key of a record.
pub(crate) fn from_hex(text: &str) -> Result<Vec<u8>, Refusal> {
    let error = || malformed("expected a key in lower-case hex, of at most 1024 octets");
    let is_hex = text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    if !is_hex || !text.len().is_multiple_of(2) || text.len() > 2 * certseal_store::MAX_KEY_BYTES {
        return Err(error());
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| error())).collect()
}

/// Every table with the kind of its events. Tables that the feed does not tell of come last, and are small. The signed
/// checkpoint of the audit log stays out: a store that comes back begins a log of its own.
pub(crate) const TABLES: [(Table, Option<Kind>); 12] = [
    (BUNDLES, Some(Kind::Bundle)),
    (ROUTES, Some(Kind::Route)),
    (ACCOUNTS, Some(Kind::Accounts)),
    (CHECKPOINTS, Some(Kind::Checkpoint)),
    (STAPLES, Some(Kind::Staple)),
    (RING, Some(Kind::Ring)),
    (CHALLENGES, None),
    (ROTATIONS, None),
    (EDGES, None),
    (FORGOTTEN, None),
    (DRILLS, None),
    (MARKS, None),
];

/// Records in one page.
const PAGE: usize = 500;

/// A page ends once its values have this many octets.
const PAGE_OCTETS: usize = 4 * 1024 * 1024;
