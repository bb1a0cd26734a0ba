//! Expired records disappear by themselves: challenges, bundles, OCSP answers, the traces of sites that left, edges that
//! report no more.
//!
//! Several processes may sweep one database: each deletion holds only for the record that was seen.

use std::{iter::once, sync::Arc, time::Duration};

use certseal_seal::sha256;
use certseal_service::{Shutdown, problem::Refusal};
use certseal_store::{Expect, Record, Table, Write};
use certseal_wire::{AuditAction, Deletion, DeletionList, DeletionQuery, DnsName, Event, Kind, Problem, ProblemKind};
use jiff::Timestamp;

use super::presence;
use crate::{
    actor::Actor,
    audit::move_into_files,
    audit_note::AuditNote,
    clock::now,
    config::AuditFiles,
    guards::not_restoring,
    records::{self, BUNDLES, CHALLENGES, EDGES, Presence, ROUTES, STAPLES, Stored},
    refusal::storage_refusal,
    vault::Vault,
};

/// Deletes expired records until the shutdown begins.
pub(crate) async fn run(vault: Arc<Vault>, audit_files: Option<AuditFiles>, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.begun() => return,
        }
        let (vault, audit_files) = (vault.clone(), audit_files.clone());
        // The runtime logs a panic there, and the next tick tries again.
        let _ = tokio::task::spawn_blocking(move || sweep(&vault, audit_files.as_ref())).await;
    }
}

fn sweep(vault: &Vault, audit_files: Option<&AuditFiles>) {
    // Records of a backup may have expired: they are counted before any of them goes.
    match vault.refresh_restoring() {
        Ok(()) if !vault.is_restoring() => {}
        _ => return,
    }
    if let Some(Err(refusal)) = audit_files.map(|files| move_into_files(vault, files)) {
        tracing::error!(problem = %refusal.0, "cannot move entries of the audit log into files");
    }
    let batches: [(Table, Batch); 5] = [
        (CHALLENGES, |vault, expired| drop_expired(vault, CHALLENGES, AuditAction::DeleteChallenges, expired)),
        (EDGES, |vault, expired| drop_expired(vault, EDGES, AuditAction::DropEdges, expired)),
        (BUNDLES, |vault, expired| bury(vault, Kind::Bundle, expired)),
        (ROUTES, |vault, expired| purge(vault, ROUTES, expired)),
        (STAPLES, |vault, expired| bury(vault, Kind::Staple, expired)),
    ];
    for (table, batch) in batches {
        match sweep_table(vault, table, batch) {
            Ok(0) => {}
            Ok(left) => tracing::error!(%table, left, "expired records are not ours and stay: look at them"),
            Err(problem) => tracing::error!(%table, %problem, "cannot delete what has expired"),
        }
    }
}

/// Handles a batch of expired records. Answers how many of them stay, because they are not ours.
type Batch = fn(&Vault, Vec<Expired>) -> Result<usize, Refusal>;

/// The key of a record, and the record.
type Expired = (Vec<u8>, Record);

/// Answers how many records stay, because they are not ours.
fn sweep_table(vault: &Vault, table: Table, batch: Batch) -> Result<usize, Problem> {
    let mut left = 0;
    loop {
        // Records that stay come again: each round looks past them, so it deletes some, looks further, or is the last.
        let limit = BATCH + left;
        let expired = vault.storage().expired(table, now(), limit).map_err(|error| storage_refusal(error).0)?;
        let count = expired.len();
        if count == 0 {
            return Ok(0);
        }
        left = match batch(vault, expired) {
            Ok(left) => left,
            // Somebody wrote one of them: the next sweep looks again.
            Err(refusal) if refusal.0.kind == ProblemKind::Conflict => return Ok(left),
            Err(refusal) => return Err(refusal.0),
        };
        tracing::debug!(%table, count = count - left, "expired records deleted");
        if left == count && count < limit {
            return Ok(left);
        }
    }
}

fn drop_expired(vault: &Vault, table: Table, action: AuditAction, expired: Vec<Expired>) -> Result<usize, Refusal> {
    let note = AuditNote::new(&Actor::itself(), action).targets(names(&expired));
    let delete = |(key, record): Expired| Write::delete(table, key).expect(Expect::Version(record.version));
    vault.commit(note, once(not_restoring()).chain(expired.into_iter().map(delete)).collect())?;
    Ok(0)
}

fn purge(vault: &Vault, table: Table, expired: Vec<Expired>) -> Result<usize, Refusal> {
    let note = AuditNote::new(&Actor::itself(), AuditAction::Purge).targets(names(&expired));
    let purge = |(key, record): Expired| Write::purge(table, key).expect(Expect::Version(record.version));
    vault.commit(note, once(not_restoring()).chain(expired.into_iter().map(purge)).collect())?;
    Ok(0)
}

/// Leaves tombstones of bundles or OCSP answers, which keep their versions and tell readers of the feed; and removes tombstones
/// that everybody has read. A record that is not ours stays as it is: it harms its own name only.
fn bury(vault: &Vault, kind: Kind, expired: Vec<Expired>) -> Result<usize, Refusal> {
    let table = records::table(kind);
    let (mut writes, mut buried, mut tombstones, mut left) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (key, record) in expired {
        let Some(stored) = Stored::decode(&record) else {
            tracing::debug!(%kind, name = %String::from_utf8_lossy(&key), "an expired record is not one of ours");
            left += 1;
            continue;
        };
        if stored.is_tombstone() {
            tombstones.push((key, record));
            continue;
        }
        let name = String::from_utf8_lossy(&key).into_owned();
        let (version, pools) = (stored.version, stored.pools);
        let value = Stored::encode(version, &pools, &Stored::tombstone(kind, &stored.bytes));
        let digest = sha256(&[]);
        let event = Event { kind, name: name.clone(), version, digest, pools, body: None, deleted: true };
        let event = serde_json::to_vec(&event).map_err(Refusal::internal)?;
        let tombstone = Write::put(table, key, stored.revision + 1, value)
            .expect(Expect::Version(stored.revision))
            .expires_at(now() + vault.retention().tombstone_seconds)
            .event(event);
        writes.push(tombstone);
        buried.push(name);
    }
    if !writes.is_empty() {
        let action = if kind == Kind::Bundle { AuditAction::DeleteBundles } else { AuditAction::DeleteStaples };
        let note = AuditNote::new(&Actor::itself(), action).targets(buried);
        vault.commit_and_announce(note, once(not_restoring()).chain(writes).collect())?;
    }
    if !tombstones.is_empty() {
        purge(vault, table, tombstones)?;
    }
    Ok(left)
}

/// Bundles that will be deleted, the earliest first.
pub(crate) fn deletions(vault: &Vault, query: &DeletionQuery) -> Result<DeletionList, Refusal> {
    let until = query.within.map_or(u64::MAX >> 1, |within| now().saturating_add(within));
    let limit = query.limit.unwrap_or(MAX_DELETIONS).clamp(1, MAX_DELETIONS);
    let mut list = DeletionList::default();
    for (key, record) in vault.storage().expired(BUNDLES, until, limit).map_err(storage_refusal)? {
        let Some(stored) = Stored::decode(&record).filter(|stored| !stored.is_tombstone()) else { continue };
        let site: DnsName = String::from_utf8_lossy(&key).parse().map_err(Refusal::internal)?;
        let departed = presence::of_site(vault, site.as_str())? == Presence::Departed;
        let at = Timestamp::from_second(stored.expires_at.unwrap_or(0) as i64).map_err(Refusal::internal)?;
        list.deletions.push(Deletion { site, at, departed });
    }
    Ok(list)
}

fn names(expired: &[Expired]) -> Vec<String> {
    expired.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
}

/// Between two sweeps.
const EVERY: Duration = Duration::from_secs(5);

/// Records in one transaction.
const BATCH: usize = 500;

/// Deletions in one answer.
const MAX_DELETIONS: usize = 1000;

#[cfg(test)]
mod tests;
