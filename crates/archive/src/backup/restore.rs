//! Giving a backup to an empty store.

use std::{collections::BTreeMap, fs::File, io::BufReader, mem, path::Path};

use certseal_client::{ClientError, Progress, StoreClient};
use certseal_wire::{AuditMark, BackupRecord, Cursor, RestoreEnd, RestoreRequest};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    format::{Line, Reader},
    verify::{Contents, identity, verify},
};
use crate::error::Error;

/// The contents that a store has from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// When the backup was begun: changes acknowledged after that may be lost.
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
pub async fn restore(store: &StoreClient, path: &Path, progress: &dyn Progress) -> Result<Restored, Error> {
    let contents = verify(path, progress)?;
    progress.begin("restoring records", contents.records.values().sum::<u64>() + contents.again);
    let mut sending = Sending { store, records: Vec::new(), octets: 0, sent: BTreeMap::new(), has_begun: false };
    let outcome = send(&mut sending, path, &contents, progress).await;
    match outcome {
        Ok(()) => {
            let (at, feed, newest) = (contents.head.at, contents.head.feed, contents.newest);
            Ok(Restored { at, feed, records: sending.sent, newest })
        }
        Err(error) => Err(unfinished(sending.has_begun, error)),
    }
}

/// Says what an unfinished restore leaves behind, and what to do about it.
fn unfinished(has_begun: bool, error: Error) -> Error {
    if has_begun { Error::HalfRestored(error.into()) } else { Error::NothingRestored(error.into()) }
}

/// Sends the records that count. One that came again is left out where it came first.
async fn send(
    sending: &mut Sending<'_>,
    path: &Path,
    contents: &Contents,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let mut reader = Reader::new(BufReader::new(file));
    let mut is_again = false;
    while let Some(line) = reader.next_line()? {
        match line {
            Line::Record(record) => {
                // Without anything that came again there is no need for identities.
                let counts = is_again || contents.newer.is_empty() || !contents.newer.contains(&identity(&record));
                if counts {
                    sending.add(record).await?;
                }
                progress.advance(1);
            }
            Line::Again(_) => is_again = true,
            _ => {}
        }
    }
    if reader.digest() != contents.sha256 {
        return Err(Error::Changed(path.to_owned()));
    }
    sending.flush().await?;
    let end = RestoreEnd { records: sending.sent.clone(), feed: contents.head.feed, audit: contents.newest };
    let ended = sending.store.end_restore(&end).await;
    ended.map_err(Error::not_taken("the end of the backup"))
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
    async fn add(&mut self, record: BackupRecord) -> Result<(), Error> {
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

    async fn flush(&mut self) -> Result<(), Error> {
        if self.records.is_empty() {
            return Ok(());
        }
        self.octets = 0;
        let request = RestoreRequest { records: mem::take(&mut self.records) };
        let outcome = self.store.restore(&request).await;
        // Only a clear refusal shows that nothing was taken.
        self.has_begun |= !matches!(outcome, Err(ClientError::Refused(_)));
        outcome.map_err(Error::not_taken("the records"))
    }
}

/// Octets of values in one request, unless a single record has more.
const MAX_OCTETS: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::damage::Damage;

    /// Records are put, whatever is there: an operator who is told to empty the store loses time, and maybe the wrong
    /// data.
    #[test]
    fn an_interrupted_restore_says_that_the_same_file_finishes_it() {
        let [nothing, some] = [false, true].map(|has_begun| unfinished(has_begun, Damage::NoLine.into()).to_string());
        assert!(nothing.contains("took nothing"));
        assert!(some.contains("restore the same file again") && !some.contains("begin again"));
        assert!(some.contains("before another file, stop certstore"));
    }
}
