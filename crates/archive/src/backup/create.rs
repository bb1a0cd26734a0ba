//! Making a backup of a store that serves meanwhile.
//!
//! ```text
//! 1. the plan: which tables there are, and where the feed is
//! 2. the tables that the feed tells of, page after page
//! 3. the other tables: rotations, reports and marks, which are small; once, so that what was deleted is not in it
//! 4. the changes in the tables of 2 meanwhile, as the feed tells them
//! 5. the audit log
//! ```
//!
//! So the backup has each record of 2 as it was when 3 ended, or later, and each record of 3 as it was before that. Only a
//! rotation and the key ring have to fit together closer than that: with another ring since 3 it is begun again.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use certseal_client::{ClientError, Progress, StoreClient};
use certseal_wire::{
    AuditMark, AuditQuery, BackupPage, BackupPlan, BackupQuery, BackupRecord, BackupTable, Cursor, Digest, Kind,
};
use jiff::Timestamp;
use serde::Serialize;
use tokio::task::{JoinHandle, JoinSet};

use super::{
    changes::{changes, key},
    copy_error::CopyError,
    format::{Again, AuditAfter, Head, VERSION, Writer},
};
use crate::{
    audit::{chain::Chain, log_error::LogError, pages::AuditPages},
    error::Error,
    unfinished_file::UnfinishedFile,
};

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Created {
    /// The file.
    pub file: PathBuf,
    /// When it was begun, by certstore's clock.
    pub at: Timestamp,
    /// Where the feed was then.
    pub feed: Cursor,
    /// Records by table, as they were copied first.
    pub records: BTreeMap<String, u64>,
    /// Records that changed meanwhile, and were copied once more.
    pub again: u64,
    /// Entries of the audit log.
    pub audit_entries: u64,
    /// The mark of the newest of them.
    pub newest: AuditMark,
    /// Its size.
    pub octets: u64,
    /// SHA-256 of all before its last line.
    pub sha256: Digest,
}

/// Copies all that certstore keeps into a new file, which has its name once it is complete.
///
/// # Errors
/// When the file is there already or cannot be written, certstore cannot be reached or refuses, the key ring changed towards
/// the end, or the audit log is not sound.
pub async fn create(store: &StoreClient, path: &Path, progress: &dyn Progress) -> Result<Created, Error> {
    let mut backup = Writer::new(UnfinishedFile::create(path)?);
    let plan = store.backup_plan().await?;
    let BackupPlan { tables, feed, audit, at } = &plan;
    backup.line(&Head { certseal_backup: VERSION, at: *at, feed: *feed, audit: *audit })?;
    let bundles = store.inventory().await?.bundles;
    let (in_feed, others): (Vec<&BackupTable>, Vec<&BackupTable>) =
        tables.iter().partition(|table| table.kind.is_some());

    let mut records = BTreeMap::new();
    for table in in_feed {
        // There are about as many routes; of the others there are few.
        let about = if matches!(table.kind, Some(Kind::Bundle | Kind::Route)) { bundles } else { 0 };
        progress.begin(&format!("copying {}", table.name), about);
        copy_table(store, &table.name, &mut backup, &mut records, progress).await?;
    }
    let ring = ring_revision(store, &plan).await?;
    for table in others {
        progress.begin(&format!("copying {}", table.name), 0);
        copy_table(store, &table.name, &mut backup, &mut records, progress).await?;
    }

    let to = store.audit(&AuditQuery { after: Some(audit.number), limit: Some(1) }).await?.feed;
    let changed = changes(store, *feed, to).await?;
    backup.line(&Again { again: records.values().sum() })?;
    progress.begin("copying what changed", changed.len() as u64);
    let again = copy_again(store, &plan, changed, &mut backup, progress).await?;
    if ring_revision(store, &plan).await? != ring {
        return Err(CopyError::RingChanged.into());
    }

    let (audit_entries, newest) = copy_audit(store, &mut backup, progress).await?;
    let (file, octets, sha256) = backup.end(records.clone(), again, audit_entries)?;
    file.finish()?;
    let (file, at, feed) = (path.to_owned(), *at, *feed);
    Ok(Created { file, at, feed, records, again, audit_entries, newest, octets, sha256 })
}

/// Copies a table, and counts its records.
async fn copy_table(
    store: &StoreClient,
    table: &str,
    backup: &mut Writer<UnfinishedFile>,
    records: &mut BTreeMap<String, u64>,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut last: Option<String> = None;
    let mut fetched = Some(fetch(store, table, None));
    while let Some(page) = fetched.take() {
        let BackupPage { records: page, next } = page.await.map_err(CopyError::stopped("reading a table"))??;
        if let Some(next) = &next {
            if last.as_ref() >= Some(next) {
                return Err(CopyError::GoesBack { table: table.to_owned(), next: next.clone() }.into());
            }
            // The next one comes while this one is written.
            fetched = Some(fetch(store, table, Some(next.clone())));
        }
        for record in &page {
            if record.table != table {
                return Err(CopyError::OtherTable { asked: table.to_owned(), answered: record.table.clone() }.into());
            }
            if last.as_ref() >= Some(&record.key) {
                return Err(CopyError::OutOfOrder { table: table.to_owned(), key: record.key.clone() }.into());
            }
            backup.line(record)?;
            last = Some(record.key.clone());
        }
        if !page.is_empty() {
            *records.entry(table.to_owned()).or_default() += page.len() as u64;
        }
        progress.advance(page.len() as u64);
    }
    Ok(())
}

type Fetched = JoinHandle<Result<BackupPage, ClientError>>;

fn fetch(store: &StoreClient, table: &str, after: Option<String>) -> Fetched {
    let (store, table, query) = (store.clone(), table.to_owned(), BackupQuery { after, only: None });
    tokio::spawn(async move { store.backup_page(&table, &query).await })
}

/// Copies single records once more, and counts them. A record that was purged meanwhile is not there any more; in the
/// backup it has its end, at which it is purged again.
async fn copy_again(
    store: &StoreClient,
    plan: &BackupPlan,
    changed: HashSet<(Kind, String)>,
    backup: &mut Writer<UnfinishedFile>,
    progress: &dyn Progress,
) -> Result<u64, Error> {
    let mut waiting = changed.into_iter();
    let mut calls: JoinSet<(String, String, Result<BackupPage, ClientError>)> = JoinSet::new();
    let mut again = 0;
    loop {
        if calls.len() < CALLS
            && let Some((kind, name)) = waiting.next()
        {
            let (store, table, key) = (store.clone(), table_of(plan, kind)?.to_owned(), key(kind, &name));
            calls.spawn(async move {
                let page = store.backup_page(&table, &BackupQuery { after: None, only: Some(key.clone()) }).await;
                (table, key, page)
            });
            continue;
        }
        let Some(done) = calls.join_next().await else { return Ok(again) };
        let (table, key, page) = done.map_err(CopyError::stopped("a call"))?;
        let page = page?;
        let is_it = |record: &BackupRecord| record.table == table && record.key == key;
        if page.records.len() > 1 || !page.records.iter().all(is_it) {
            return Err(CopyError::OtherRecords { table, key }.into());
        }
        for record in &page.records {
            backup.line(record)?;
            again += 1;
        }
        progress.advance(1);
    }
}

/// Counts the changes of the key ring; none before the first.
async fn ring_revision(store: &StoreClient, plan: &BackupPlan) -> Result<Option<u64>, Error> {
    let query = BackupQuery { after: None, only: Some(key(Kind::Ring, "")) };
    let page = store.backup_page(table_of(plan, Kind::Ring)?, &query).await?;
    Ok(page.records.first().map(|record| record.revision))
}

fn table_of(plan: &BackupPlan, kind: Kind) -> Result<&str, CopyError> {
    let table = plan.tables.iter().find(|table| table.kind == Some(kind));
    table.map(|table| table.name.as_str()).ok_or(CopyError::NoTable(kind))
}

/// Copies the audit log, and answers how many entries there are and the mark of the newest.
async fn copy_audit(
    store: &StoreClient,
    backup: &mut Writer<UnfinishedFile>,
    progress: &dyn Progress,
) -> Result<(u64, AuditMark), Error> {
    let mut pages = AuditPages::new(store).await?;
    let mut chain = Chain::after(pages.start());
    backup.line(&AuditAfter { audit_after: pages.start() })?;
    progress.begin("copying the audit log", pages.head().number - pages.start().number);
    while let Some(page) = pages.next().await? {
        for line in &page {
            chain.push(line).map_err(LogError::Unsound)?;
            backup.line(line)?;
        }
        progress.advance(page.len() as u64);
    }
    Ok((chain.entries(), chain.mark()))
}

/// Calls under way at one time.
const CALLS: usize = 4;
