//! The entries that certstore keeps, read page after page.

use certseal_client::StoreClient;
use certseal_wire::{AuditLine, AuditMark, AuditQuery};

use super::log_error::LogError;
use crate::error::Error;

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
    pub async fn new(store: &StoreClient) -> Result<Self, Error> {
        let page = store.audit(&AuditQuery { after: None, limit: Some(1) }).await?;
        if page.start.number > page.head.number {
            return Err(LogError::BeginsAfterItsEnd { start: page.start.number, head: page.head.number }.into());
        }
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
    pub async fn next(&mut self) -> Result<Option<Vec<AuditLine>>, Error> {
        if self.after >= self.head.number {
            return Ok(None);
        }
        let page = self.store.audit(&AuditQuery { after: Some(self.after), limit: None }).await?;
        if page.start.number > self.after {
            return Err(LogError::Moved(page.start.number).into());
        }
        let mut entries = page.entries;
        entries.retain(|line| line.mark.number <= self.head.number);
        let last = entries.last().map_or(0, |line| line.mark.number);
        if last <= self.after {
            return Err(LogError::EndsEarly { head: self.head.number, last: self.after }.into());
        }
        self.after = last;
        Ok(Some(entries))
    }
}
