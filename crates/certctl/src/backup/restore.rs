//! Giving a backup to an empty store.

use std::{collections::BTreeMap, fs::File, io::BufReader, mem, path::Path};

use anyhow::{Context, ensure};
use certseal_client::{ClientError, StoreClient};
use certseal_wire::{AuditMark, BackupRecord, Cursor, RestoreEnd, RestoreRequest};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    format::{Line, Reader},
    verify::{Found, identity, verify},
};
use crate::rotation::Progress;

/// What a store has from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// When the backup was begun: what was acknowledged after that may be lost.
    pub at: Timestamp,
    /// Where the feed was then.
    pub feed: Cursor,
    /// Records by table.
    pub records: BTreeMap<String, u64>,
    /// The newest entry of the audit log in the backup; the store begins another log.
    pub newest: AuditMark,
}

/// Verifies the whole backup, then gives its records to a store that holds nothing, each once.
///
/// # Errors
/// When the backup is not sound, which is seen before anything is sent; when certstore cannot be reached or refuses. After
/// the first records are sent, the store serves nobody until the same backup is there as a whole, or it was emptied.
pub async fn restore(store: &StoreClient, path: &Path, progress: &dyn Progress) -> anyhow::Result<Restored> {
    let found = verify(path, progress)?;
    progress.begin("restoring records", found.records.values().sum::<u64>() + found.again);
    let mut sending = Sending { store, records: Vec::new(), octets: 0, sent: BTreeMap::new(), has_begun: false };
    let outcome = send(&mut sending, path, &found, progress).await;
    match outcome {
        Ok(()) => {
            let (at, feed, newest) = (found.head.at, found.head.feed, found.newest);
            Ok(Restored { at, feed, records: sending.sent, newest })
        }
        Err(error) => Err(error.context(what_now(sending.has_begun))),
    }
}

/// What an unfinished restore leaves behind, and what to do about it.
fn what_now(has_begun: bool) -> &'static str {
    match has_begun {
        false => "certstore took nothing of the backup",
        true => {
            "the backup is not restored yet, and certstore serves nobody: restore the same file again, which finishes it; \
             before another file, stop certstore, remove its data directory or its database, and start it"
        }
    }
}

/// Sends the records that count. One that came again is left out where it came first.
async fn send(sending: &mut Sending<'_>, path: &Path, found: &Found, progress: &dyn Progress) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut reader = Reader::new(BufReader::new(file));
    let mut is_again = false;
    while let Some(line) = reader.next_line()? {
        match line {
            Line::Record(record) => {
                // Without anything that came again there is no need for identities.
                let counts = is_again || found.newer.is_empty() || !found.newer.contains(&identity(&record));
                if counts {
                    sending.add(record).await?;
                }
                progress.advance(1);
            }
            Line::Again(_) => is_again = true,
            _ => {}
        }
    }
    ensure!(reader.digest() == found.sha256, "{} changed while it was read", path.display());
    sending.flush().await?;
    let end = RestoreEnd { records: sending.sent.clone(), feed: found.head.feed, audit: found.newest };
    sending.store.end_restore(&end).await.context("certstore does not take the end of the backup")
}

/// Records on their way, in requests of a bounded size.
struct Sending<'a> {
    store: &'a StoreClient,
    records: Vec<BackupRecord>,
    octets: usize,
    /// Counted by table. No record is sent twice, so these are what the store must hold in the end.
    sent: BTreeMap<String, u64>,
    /// Whether the store may have taken something.
    has_begun: bool,
}

impl Sending<'_> {
    async fn add(&mut self, record: BackupRecord) -> anyhow::Result<()> {
        let octets = record.value.0.len();
        let is_full = self.records.len() >= RestoreRequest::MAX_RECORDS || self.octets + octets > MAX_OCTETS;
        if is_full && !self.records.is_empty() {
            self.flush().await?;
        }
        *self.sent.entry(record.table.clone()).or_default() += 1;
        self.octets += octets;
        self.records.push(record);
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        self.octets = 0;
        let request = RestoreRequest { records: mem::take(&mut self.records) };
        let outcome = self.store.restore(&request).await;
        // Only a clear refusal shows that nothing was taken.
        self.has_begun |= !matches!(outcome, Err(ClientError::Refused(_)));
        outcome.context("certstore does not take the records")
    }
}

/// Octets of values in one request, unless a single record has more.
const MAX_OCTETS: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Records are put, whatever is there: who is told to empty the store loses time, and maybe the wrong data.
    #[test]
    fn an_interrupted_restore_says_that_the_same_file_finishes_it() {
        let (nothing, some) = (what_now(false), what_now(true));
        assert!(nothing.contains("took nothing"));
        assert!(some.contains("restore the same file again") && !some.contains("begin again"));
        assert!(some.contains("before another file, stop certstore"));
    }
}
