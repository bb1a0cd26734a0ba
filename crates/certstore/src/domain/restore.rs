//! A store that begins with a backup.
//!
//! A store takes a backup only while it holds nothing, and serves nobody until the backup is complete. Its feed has an epoch
//! of its own: every reader notices that its cursor belongs to another history, and begins with a snapshot.

use std::collections::BTreeMap;

use certseal_seal::{VerifyingKeys, sha256};
use certseal_service::problem::Refusal;
use certseal_store::{Expect, Record, Table, Write};
use certseal_wire::{
    AuditAction, BackupRecord, DnsName, Event, Kind, RestoreEnd, RestoreRequest, Rotation, RotationPlan,
};

use super::backup::{TABLES, from_hex, table_named};
use crate::{
    actor::Actor,
    audit_note::AuditNote,
    documents::Checked,
    records::{BUNDLES, EDGES, MARKS, ONLY, RESTORING, RING, ROTATIONS, ROUTES, Stored},
    refusal::{conflict, malformed, storage_refusal, unverified},
    vault::Vault,
};

/// Takes some records of a backup. The first of them close the store to everybody else.
pub(crate) fn take(vault: &Vault, actor: &Actor, request: &RestoreRequest) -> Result<(), Refusal> {
    if request.records.len() > RestoreRequest::MAX_RECORDS {
        let (most, came) = (RestoreRequest::MAX_RECORDS, request.records.len());
        return Err(malformed(format!("expected at most {most} records, got {came}")));
    }
    if !vault.is_restoring() {
        // Another process may have begun it a moment ago.
        vault.refresh_restoring()?;
    }
    if !vault.is_restoring() {
        begin(vault, actor)?;
    }
    let mut writes = vec![Write::require(MARKS, RESTORING, Expect::Version(1))];
    for record in &request.records {
        writes.extend(restored(vault, record)?);
    }
    vault.commit_unaudited(writes.into()).map(drop)
}

fn begin(vault: &Vault, actor: &Actor) -> Result<(), Refusal> {
    for table in [RING, BUNDLES, ROUTES, ROTATIONS] {
        if !vault.storage().scan(table, None, 1).map_err(storage_refusal)?.is_empty() {
            return Err(conflict(format!(
                "this store has records in {table}: a backup is restored into an empty store only"
            )));
        }
    }
    let note = AuditNote::new(actor, AuditAction::Restore).detail("begun");
    let restoring = Write::put(MARKS, RESTORING, 1, Vec::new()).expect(Expect::Absent);
    let empty = Write::require(RING, ONLY, Expect::Absent);
    vault.commit(note, vec![empty, restoring].into())?;
    vault.refresh_restoring()
}

/// The write that brings a record back, with the event that tells of it.
fn restored(vault: &Vault, record: &BackupRecord) -> Result<Option<Write>, Refusal> {
    let (table, kind) = table_named(&record.table)?;
    let key = from_hex(&record.key)?;
    if table == MARKS && key == RESTORING.as_bytes() {
        return Ok(None);
    }
    if table == ROTATIONS {
        // Its state is not signed, its plan is.
        let rotation: Rotation = serde_json::from_slice(&record.value.0).map_err(malformed)?;
        let security = VerifyingKeys::from_iter([vault.security().clone()]);
        security.verify::<RotationPlan>(&rotation.plan).map_err(unverified)?;
    }
    let mut write = Write::put(table, key.clone(), record.revision, record.value.0.clone());
    if let Some(end) = record.expires_at {
        write = write.expires_at(end);
    }
    let Some(kind) = kind else { return Ok(Some(write)) };
    let stored = Record { version: record.revision, value: record.value.0.clone(), expires_at: record.expires_at };
    let stored = Stored::decode(&stored).ok_or_else(|| malformed(format!("a record of {table} is not one of ours")))?;
    let name = match kind {
        Kind::Ring => {
            // A backup of another platform is noticed at once.
            Checked::ring(stored.bytes.clone(), vault.security())?;
            String::new()
        }
        Kind::Accounts => String::new(),
        Kind::Bundle if !stored.is_tombstone() => {
            certseal_seal::Bundle::parse(&stored.bytes).map_err(malformed)?;
            site_name(key)?
        }
        Kind::Bundle | Kind::Route | Kind::Staple => site_name(key)?,
        Kind::Checkpoint | Kind::Unknown(_) => String::from_utf8(key).map_err(malformed)?,
    };
    let deleted = stored.is_tombstone();
    let (version, digest, pools) = (stored.version, sha256(&stored.bytes), stored.pools);
    let event = Event { kind, name, version, digest, pools, body: None, deleted };
    Ok(Some(write.event(serde_json::to_vec(&event).map_err(Refusal::internal)?)))
}

/// Opens the store again, when every record of the backup is here.
pub(crate) fn end(vault: &Vault, actor: &Actor, end: &RestoreEnd) -> Result<(), Refusal> {
    if !vault.is_restoring() {
        return Err(conflict("no restore is under way: begin with POST /v1/restore"));
    }
    let mut counts = BTreeMap::new();
    for (table, _) in TABLES {
        counts.insert(table.name().to_owned(), count(vault, table)?);
    }
    for (table, expected) in &end.records {
        let found = counts.get(table).copied().unwrap_or(0);
        // Edges report to an empty store too.
        let is_complete = found == *expected || (table == EDGES.name() && found > *expected);
        if !is_complete {
            return Err(unverified(format!(
                "expected {expected} records in {table}, {found} are here: restore the same file again; what is here of \
                 another one goes only with the store's data"
            )));
        }
    }
    let note = AuditNote::new(actor, AuditAction::Restore).digest(end.audit.hash).detail(format!(
        "complete: the backup was made at feed {}, with entry {} of its audit log the newest",
        end.feed, end.audit.number
    ));
    let writes = vec![Write::delete(MARKS, RESTORING).expect(Expect::Version(1))];
    vault.commit_and_announce(note, writes.into())?;
    vault.refresh()?;
    vault.refresh_restoring()
}

/// The number of records of a table, without the mark of the restore itself.
fn count(vault: &Vault, table: Table) -> Result<u64, Refusal> {
    let (mut count, mut after) = (0, None::<Vec<u8>>);
    loop {
        let page = vault.storage().scan(table, after.as_deref(), PAGE).map_err(storage_refusal)?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        after = Some(last.clone());
        count += page.iter().filter(|(key, _)| table != MARKS || key != RESTORING.as_bytes()).count() as u64;
    }
}

fn site_name(key: Vec<u8>) -> Result<String, Refusal> {
    let name: DnsName = String::from_utf8(key).map_err(malformed)?.parse().map_err(malformed)?;
    Ok(name.to_string())
}

/// Records read from the database at one time.
const PAGE: usize = 500;

#[cfg(test)]
mod tests;
