//! Copies of the whole store, and a store that begins with one.
//!
//! What a backup holds is ciphertext, signed documents and public keys: it is as safe anywhere as it is here. A store
//! takes one only while it holds nothing, and serves nobody until the backup is complete. Its feed has an epoch of its
//! own: every reader notices that its cursor belongs to another history, and begins with a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::QueryRejection},
    response::Response,
};
use certseal_seal::{VerifyingKeys, sha256};
use certseal_service::problem::Refusal;
use certseal_store::{Expect, Position, Record, Table, Transaction, Write};
use certseal_wire::{
    AuditAction, BackupPage, BackupPlan, BackupQuery, BackupRecord, BackupTable, Base64, Cursor, DnsName, Event, Kind,
    ProblemKind, RestoreEnd, RestoreRequest, Rotation, RotationPlan,
};
use jiff::Timestamp;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use crate::{
    api::{AdminOnly, Body, Service, blocking, large},
    audit::{Actor, Entry, What, mark},
    openapi::Refused,
    records::{
        ACCOUNTS, BUNDLES, CHALLENGES, CHECKPOINTS, Checked, DRILLS, EDGES, FORGOTTEN, MARKS, RING, ROTATIONS, ROUTES,
        Stored, malformed, unverified,
    },
    rotation_api::parse,
    vault::{Vault, refusal},
};

pub(crate) fn router() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(plan))
        .routes(routes!(page))
        .routes(routes!(restore).layer(DefaultBodyLimit::max(MAX_RESTORE)))
        .routes(routes!(end))
}

#[utoipa::path(
    get, path = "/v1/backup", tag = "backup",
    summary = "What a backup has to copy. Role admin.",
    responses((status = 200, body = BackupPlan), Refused),
)]
async fn plan(State(vault): State<Arc<Vault>>, AdminOnly(actor): AdminOnly) -> Result<Json<BackupPlan>, Refusal> {
    blocking(move || vault.backup_plan(&actor)).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/backup/{table}", tag = "backup",
    summary = "Records of a table. Role admin.",
    params(
        ("table" = String, Path),
        ("after" = Option<String>, Query, description = "Go on after this key, in hex."),
        ("only" = Option<String>, Query, description = "Only the record with this key, in hex."),
    ),
    responses((status = 200, body = BackupPage), Refused),
)]
async fn page(
    State(service): State<Service>,
    AdminOnly(actor): AdminOnly,
    Path(table): Path<String>,
    query: Result<Query<BackupQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|e| malformed(e.body_text()))?;
    let table = known(&table)?.0;
    let permit = service.admission.heavy(&actor).await?;
    let vault = service.vault;
    let page: BackupPage = blocking(move || vault.backup_page(table, &query)).await?;
    drop(permit);
    let answer = large(&service.admission, &actor, &page)?;
    if table == BUNDLES
        && let (Some(first), Some(last)) = (page.records.first(), page.records.last())
    {
        let site =
            |record: &BackupRecord| String::from_utf8_lossy(&from_hex(&record.key).unwrap_or_default()).into_owned();
        let what = format!("a backup of {} bundles from {} to {}", page.records.len(), site(first), site(last));
        service.reads.note(actor, What::Many(what)).await?;
    }
    Ok(answer)
}

#[utoipa::path(
    post, path = "/v1/restore", tag = "backup",
    summary = "Takes records of a backup into an empty store. Role admin.",
    request_body = RestoreRequest,
    responses((status = 200, description = "Done"), Refused),
)]
async fn restore(
    State(vault): State<Arc<Vault>>,
    AdminOnly(actor): AdminOnly,
    Body(body): Body,
) -> Result<Json<()>, Refusal> {
    let request: RestoreRequest = parse(&body, "records of a backup")?;
    blocking(move || vault.restore(&actor, &request)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/restore/end", tag = "backup",
    summary = "Ends a restore. Role admin.",
    request_body = RestoreEnd,
    responses((status = 200, description = "Done"), Refused),
)]
async fn end(
    State(vault): State<Arc<Vault>>,
    AdminOnly(actor): AdminOnly,
    Body(body): Body,
) -> Result<Json<()>, Refusal> {
    let end: RestoreEnd = parse(&body, "the counts of a backup, and where it was made")?;
    blocking(move || vault.end_restore(&actor, &end)).await.map(Json)
}

impl Vault {
    fn backup_plan(&self, actor: &Actor) -> Result<BackupPlan, Refusal> {
        let Position { epoch, seq } = self.storage().head().map_err(refusal)?;
        let feed = Cursor { epoch, seq };
        let entry = Entry::new(actor, AuditAction::Backup).detail(format!("begun at feed {feed}"));
        self.commit(entry, Transaction::default())?;
        let ends = self.storage().audit_ends().map_err(refusal)?;
        let tables = TABLES.iter().map(|(table, kind)| BackupTable { name: table.name().to_owned(), kind: *kind });
        Ok(BackupPlan { tables: tables.collect(), feed, audit: mark(&ends.head), at: Timestamp::now() })
    }

    fn backup_page(&self, table: Table, query: &BackupQuery) -> Result<BackupPage, Refusal> {
        if let Some(only) = &query.only {
            let key = from_hex(only)?;
            let record = self.storage().get(table, &key).map_err(refusal)?;
            let records = record.into_iter().map(|record| copied(table, &key, record)).collect();
            return Ok(BackupPage { records, next: None });
        }
        let after = query.after.as_deref().map(from_hex).transpose()?;
        let found = self.storage().scan(table, after.as_deref(), PAGE).map_err(refusal)?;
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

    /// Takes some records of a backup. The first of them close the store to everybody else.
    fn restore(&self, actor: &Actor, request: &RestoreRequest) -> Result<(), Refusal> {
        if request.records.len() > RestoreRequest::MAX_RECORDS {
            let (most, came) = (RestoreRequest::MAX_RECORDS, request.records.len());
            return Err(malformed(format!("expected at most {most} records, got {came}")));
        }
        if !self.is_restoring() {
            // Another process may have begun it a moment ago.
            self.refresh_restoring()?;
        }
        if !self.is_restoring() {
            self.begin_restore(actor)?;
        }
        let mut writes = vec![Write::require(MARKS, RESTORING, Expect::Version(1))];
        for record in &request.records {
            writes.extend(self.restored(record)?);
        }
        self.commit_unaudited(writes.into()).map(drop)
    }

    fn begin_restore(&self, actor: &Actor) -> Result<(), Refusal> {
        for table in [RING, BUNDLES, ROUTES, ROTATIONS] {
            if !self.storage().scan(table, None, 1).map_err(refusal)?.is_empty() {
                return Err(Refusal::new(
                    ProblemKind::Conflict,
                    format!("this store has records in {table}: a backup is restored into an empty store only"),
                ));
            }
        }
        let entry = Entry::new(actor, AuditAction::Restore).detail("begun");
        let mark = Write::put(MARKS, RESTORING, 1, Vec::new()).expect(Expect::Absent);
        let empty = Write::require(RING, crate::records::ONLY, Expect::Absent);
        self.commit(entry, vec![empty, mark].into())?;
        self.refresh_restoring()
    }

    /// The write that brings a record back, with the event that tells of it.
    fn restored(&self, record: &BackupRecord) -> Result<Option<Write>, Refusal> {
        let (table, kind) = known(&record.table)?;
        let key = from_hex(&record.key)?;
        if table == MARKS && key == RESTORING.as_bytes() {
            return Ok(None);
        }
        if table == ROTATIONS {
            // Its state is not signed, its plan is.
            let rotation: Rotation = serde_json::from_slice(&record.value.0).map_err(malformed)?;
            let security = VerifyingKeys::from_iter([self.security().clone()]);
            security.verify::<RotationPlan>(&rotation.plan).map_err(unverified)?;
        }
        let mut write = Write::put(table, key.clone(), record.revision, record.value.0.clone());
        if let Some(end) = record.expires_at {
            write = write.expires_at(end);
        }
        let Some(kind) = kind else { return Ok(Some(write)) };
        let stored = Record { version: record.revision, value: record.value.0.clone(), expires_at: record.expires_at };
        let stored =
            Stored::decode(&stored).ok_or_else(|| malformed(format!("a record of {table} is not one of ours")))?;
        let name = match kind {
            Kind::Ring => {
                // A backup of another platform is noticed at once.
                Checked::ring(stored.bytes.clone(), self.security())?;
                String::new()
            }
            Kind::Accounts => String::new(),
            Kind::Bundle if !stored.is_tombstone() => {
                certseal_seal::Bundle::parse(&stored.bytes).map_err(malformed)?;
                site_name(key)?
            }
            Kind::Bundle | Kind::Route => site_name(key)?,
            Kind::Checkpoint | Kind::Unknown(_) => String::from_utf8(key).map_err(malformed)?,
        };
        let deleted = stored.is_tombstone();
        let (version, digest, pools) = (stored.version, sha256(&stored.bytes), stored.pools);
        let event = Event { kind, name, version, digest, pools, body: None, deleted };
        Ok(Some(write.event(serde_json::to_vec(&event).map_err(Refusal::internal)?)))
    }

    fn end_restore(&self, actor: &Actor, end: &RestoreEnd) -> Result<(), Refusal> {
        if !self.is_restoring() {
            return Err(Refusal::new(ProblemKind::Conflict, "no restore is under way: begin with POST /v1/restore"));
        }
        let mut counts = BTreeMap::new();
        for (table, _) in TABLES {
            counts.insert(table.name().to_owned(), self.count(table)?);
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
        let entry = Entry::new(actor, AuditAction::Restore).digest(end.audit.hash).detail(format!(
            "complete: the backup was made at feed {}, with entry {} of its audit log the newest",
            end.feed, end.audit.number
        ));
        let writes = vec![Write::delete(MARKS, RESTORING).expect(Expect::Version(1))];
        self.commit_and_announce(entry, writes.into())?;
        self.refresh()?;
        self.refresh_restoring()
    }

    /// Records of a table, without marks of what is under way.
    fn count(&self, table: Table) -> Result<u64, Refusal> {
        let (mut count, mut after) = (0, None::<Vec<u8>>);
        loop {
            let page = self.storage().scan(table, after.as_deref(), PAGE).map_err(refusal)?;
            let Some((last, _)) = page.last() else { return Ok(count) };
            after = Some(last.clone());
            count += page.iter().filter(|(key, _)| table != MARKS || key != RESTORING.as_bytes()).count() as u64;
        }
    }

    /// Looks whether a restore is under way, here or in another process.
    pub(crate) fn refresh_restoring(&self) -> Result<(), Refusal> {
        let mark = self.storage().get(MARKS, RESTORING.as_bytes()).map_err(refusal)?;
        self.set_restoring(mark.is_some());
        Ok(())
    }
}

fn site_name(key: Vec<u8>) -> Result<String, Refusal> {
    let name: DnsName = String::from_utf8(key).map_err(malformed)?.parse().map_err(malformed)?;
    Ok(name.to_string())
}

/// The table of this name, and the kind of its events.
fn known(name: &str) -> Result<(Table, Option<Kind>), Refusal> {
    let known = TABLES.into_iter().find(|(table, _)| table.name() == name);
    known.ok_or_else(|| Refusal::new(ProblemKind::NotFound, "there is no such table"))
}

fn copied(table: Table, key: &[u8], record: Record) -> BackupRecord {
    let Record { version: revision, value, expires_at } = record;
    let key = key.iter().map(|octet| format!("{octet:02x}")).collect();
    BackupRecord { table: table.name().to_owned(), key, revision, value: Base64(value), expires_at }
}

fn from_hex(text: &str) -> Result<Vec<u8>, Refusal> {
    let error = || malformed("expected a key in lower-case hex, of at most 1024 octets");
    let is_hex = text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    if !is_hex || !text.len().is_multiple_of(2) || text.len() > 2 * certseal_store::MAX_KEY_BYTES {
        return Err(error());
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| error())).collect()
}

/// Every table with the kind of its events. Those that the feed does not tell of come last, and are small. What was signed
/// of the audit log stays out: a store that comes back begins a log of its own.
const TABLES: [(Table, Option<Kind>); 11] = [
    (BUNDLES, Some(Kind::Bundle)),
    (ROUTES, Some(Kind::Route)),
    (ACCOUNTS, Some(Kind::Accounts)),
    (CHECKPOINTS, Some(Kind::Checkpoint)),
    (RING, Some(Kind::Ring)),
    (CHALLENGES, None),
    (ROTATIONS, None),
    (EDGES, None),
    (FORGOTTEN, None),
    (DRILLS, None),
    (MARKS, None),
];

/// The mark of a store that is being restored.
pub(crate) const RESTORING: &str = "restoring";

/// Records in one page.
const PAGE: usize = 500;

/// A page ends once its values have this many octets.
const PAGE_OCTETS: usize = 4 * 1024 * 1024;

/// Octets of a request with records.
pub(crate) const MAX_RESTORE: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests;
