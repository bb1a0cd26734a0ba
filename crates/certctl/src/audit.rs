//! The audit log of certstore, read and checked.
//!
//! ```text
//! audit-000000000001-000000100000.jsonl, ...      older entries, in files
//!   start: the mark before the first entry that the store keeps
//! GET /v1/audit                                    the entries that the store keeps
//!   head: the mark of the newest entry             >= the checkpoint that certman signed, the mark of an earlier run
//! ```
//!
//! What the check shows and what it does not stands in `docs/audit.md`.

mod chain;
mod files;
mod search;
mod verify;

use anyhow::ensure;
use certseal_client::StoreClient;
use certseal_wire::{AuditLine, AuditMark, AuditQuery};

#[cfg(test)]
pub(crate) use chain::tests::log as sound_log;
pub use chain::{Chain, ChainError, NEW_LOG};
pub use files::AuditFiles;
pub use search::{Search, action, instant};
pub use verify::{CheckpointSeen, Verified, verify};

/// The entries that the store keeps, page after page, up to the one that was the newest when it began.
#[derive(Debug)]
pub struct AuditPages {
    store: StoreClient,
    start: AuditMark,
    head: AuditMark,
    after: u64,
}

impl AuditPages {
    /// Asks where the log begins and ends.
    ///
    /// # Errors
    /// When certstore cannot be reached or refuses.
    pub async fn new(store: &StoreClient) -> anyhow::Result<Self> {
        let page = store.audit(&AuditQuery { after: None, limit: Some(1) }).await?;
        ensure!(
            page.start.number <= page.head.number,
            "certstore says that its audit log begins after entry {}, and ends with entry {}",
            page.start.number,
            page.head.number
        );
        Ok(Self { store: store.clone(), start: page.start, head: page.head, after: page.start.number })
    }

    /// The mark before the first entry that the store keeps.
    pub fn start(&self) -> AuditMark {
        self.start
    }

    /// The mark of the newest entry when this began.
    pub fn head(&self) -> AuditMark {
        self.head
    }

    /// Leaves out the entries up to this number.
    pub fn go_on_after(&mut self, number: u64) {
        self.after = self.after.max(number);
    }

    /// The next page; none at the end.
    ///
    /// # Errors
    /// When certstore cannot be reached or refuses, and when it has no entries where it says that it has some.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<AuditLine>>> {
        if self.after >= self.head.number {
            return Ok(None);
        }
        let page = self.store.audit(&AuditQuery { after: Some(self.after), limit: None }).await?;
        ensure!(
            page.start.number <= self.after,
            "entries up to {} of the audit log moved into a file while they were read: begin again",
            page.start.number
        );
        let mut entries = page.entries;
        entries.retain(|line| line.mark.number <= self.head.number);
        let last = entries.last().map_or(0, |line| line.mark.number);
        ensure!(
            last > self.after,
            "certstore said that its audit log goes to entry {}, but has none after entry {}: its end was cut off",
            self.head.number,
            self.after
        );
        self.after = last;
        Ok(Some(entries))
    }
}

/// A mark as people keep it: `NUMBER:HASH`.
pub fn mark_text(mark: &AuditMark) -> String {
    format!("{}:{}", mark.number, mark.hash)
}

/// Reads what [`mark_text`] wrote.
///
/// # Errors
/// When it is something else.
pub fn mark(text: &str) -> Result<AuditMark, String> {
    let parse = || {
        let (number, hash) = text.split_once(':')?;
        Some(AuditMark { number: number.parse().ok()?, hash: hash.parse().ok()? })
    };
    parse().ok_or_else(|| format!("expected NUMBER:HASH as `certctl audit verify` prints it, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back() {
        let mark = sound_log(NEW_LOG, &["a"])[0].mark;
        assert_eq!(super::mark(&mark_text(&mark)), Ok(mark));
        for bad in ["", "1", ":", "1:abc", "-1:60463f04ca3911525b598125efe80c0072c605747eaa91e5a0588dd44cd0416f"] {
            assert!(super::mark(bad).is_err(), "{bad}");
        }
    }
}
