//! Copying a store into another engine, as it is: same epoch, same sequences, same links of the audit log.
//!
//! Readers of the feed go on with their cursors, and whoever keeps links of the audit log finds them again. The copy is
//! read back and compared before it counts; until then the target refuses to open, and a new run begins anew.

use sha2::{Digest, Sha256};

use crate::{AuditEnds, AuditEntry, AuditLink, Position, StoreError};

/// The key of a record, with its table's name: where a page of a copy goes on.
pub type TableKey = (Vec<u8>, Vec<u8>);

/// A record as it is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedRecord {
    /// Its table's name and its key.
    pub key: TableKey,
    /// The record.
    pub record: crate::Record,
}

/// An event of the feed as it is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedEvent {
    /// The table's name and the key of the record that it tells of.
    pub key: TableKey,
    /// The event.
    pub entry: crate::Entry,
}

/// Where a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The last position.
    pub position: Position,
    /// The sequence from which the feed is complete.
    pub floor: u64,
    /// Where the audit log begins and ends.
    pub audit: AuditEnds,
}

/// A store that can be copied. Pages go on after the last key or number of the page before.
pub trait Source {
    /// Where it is.
    fn standing(&self) -> Result<Standing, StoreError>;

    /// At most `limit` records after this key. A damaged one is an error: a copy must not hide it.
    fn copied_records(&self, after: Option<&TableKey>, limit: usize) -> Result<Vec<CopiedRecord>, StoreError>;

    /// At most `limit` events after the one of this key.
    fn copied_events(&self, after: Option<&TableKey>, limit: usize) -> Result<Vec<CopiedEvent>, StoreError>;

    /// At most `limit` entries of the audit log after this number.
    fn copied_audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError>;

    /// Makes the store refuse to open, with a word about where it went.
    fn retire(&self, went_to: &str) -> Result<(), StoreError>;
}

/// An empty store that a copy is written into. It refuses to open until it is finished.
pub trait Target: Source {
    /// Writes records.
    fn put_records(&mut self, records: &[CopiedRecord]) -> Result<(), StoreError>;

    /// Writes events.
    fn put_events(&mut self, events: &[CopiedEvent]) -> Result<(), StoreError>;

    /// Writes entries of the audit log.
    fn put_audit(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError>;

    /// Brings everything onto the device, and notes where the store is; it stays unfinished.
    fn settle(&mut self, standing: &Standing) -> Result<(), StoreError>;

    /// Declares the copy complete.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

/// How many records, events and audit entries there are, and a digest of each kind that does not depend on the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records, events, and entries of the audit log.
    pub counts: [u64; 3],
    digests: [[u8; 32]; 3],
}

impl Summary {
    fn add(&mut self, kind: usize, parts: &[&[u8]]) {
        self.counts[kind] += 1;
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let digest: [u8; 32] = hasher.finalize().into();
        self.digests[kind].iter_mut().zip(digest).for_each(|(sum, byte)| *sum ^= byte);
    }

    fn add_records(&mut self, page: &[CopiedRecord]) {
        for CopiedRecord { key: (table, key), record } in page {
            let expiry = record.expires_at.map_or(Vec::new(), |at| at.to_be_bytes().to_vec());
            self.add(0, &[table, key, &record.version.to_be_bytes(), &record.value, &expiry]);
        }
    }

    fn add_events(&mut self, page: &[CopiedEvent]) {
        for CopiedEvent { key: (table, key), entry } in page {
            self.add(1, &[table, key, &entry.seq.to_be_bytes(), &entry.event]);
        }
    }

    fn add_audit(&mut self, page: &[AuditEntry], link: &mut AuditLink) -> Result<(), StoreError> {
        for entry in page {
            *link = link.next(&entry.body);
            if *link != entry.link {
                return Err(StoreError::AuditDamaged { number: link.number });
            }
            self.add(2, &[&entry.link.number.to_be_bytes(), &entry.link.hash, &entry.body]);
        }
        Ok(())
    }

    /// Items of all kinds.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Copies everything, reads it back, declares the copy complete, and makes the source refuse to open.
///
/// `progress` hears what is being done and how many items are done. Nothing else may have the source open.
pub fn copy(
    from: &dyn Source,
    mut to: Box<dyn Target>,
    went_to: &str,
    progress: &mut dyn FnMut(&'static str, u64),
) -> Result<Summary, StoreError> {
    let standing = from.standing()?;
    let copied = pages(from, &standing, |page, done| {
        match page {
            Page::Records(page) => to.put_records(page)?,
            Page::Events(page) => to.put_events(page)?,
            Page::Audit(page) => to.put_audit(page)?,
        }
        progress("copying", done);
        Ok(())
    })?;
    to.settle(&standing)?;
    if from.standing()? != standing {
        return Err(incomplete("the source changed meanwhile: stop every daemon that uses it"));
    }
    let read_back = pages(&*to, &standing, |_, done| {
        progress("reading back", done);
        Ok(())
    })?;
    if read_back != copied || to.standing()? != standing {
        return Err(incomplete("what was read back is not what was written: do not use the target"));
    }
    to.finish()?;
    from.retire(went_to)?;
    Ok(copied)
}

enum Page<'a> {
    Records(&'a [CopiedRecord]),
    Events(&'a [CopiedEvent]),
    Audit(&'a [AuditEntry]),
}

/// Goes through a store; `each` hears of every page and how many items there were up to it.
fn pages<S: Source + ?Sized>(
    store: &S,
    standing: &Standing,
    mut each: impl FnMut(Page<'_>, u64) -> Result<(), StoreError>,
) -> Result<Summary, StoreError> {
    let mut summary = Summary::default();
    let mut after = None;
    loop {
        let page = store.copied_records(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        summary.add_records(&page);
        each(Page::Records(&page), summary.total())?;
    }
    let mut after = None;
    loop {
        let page = store.copied_events(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        summary.add_events(&page);
        each(Page::Events(&page), summary.total())?;
    }
    let mut link = standing.audit.start;
    loop {
        let page = store.copied_audit(link.number, PAGE)?;
        if page.is_empty() {
            break;
        }
        summary.add_audit(&page, &mut link)?;
        each(Page::Audit(&page), summary.total())?;
    }
    if link != standing.audit.head {
        return Err(StoreError::AuditDamaged { number: link.number + 1 });
    }
    Ok(summary)
}

fn incomplete(cause: &str) -> StoreError {
    StoreError::Database { action: "copy the store", cause: cause.to_owned() }
}

/// Items of a page: with the largest values, some 50 MiB.
const PAGE: usize = 200;
