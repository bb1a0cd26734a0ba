//! The writes that are made together, and the values that are read.

use std::fmt;

use crate::{Expect, Position, StoreError, Table};

/// A stored value.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The version its writer gave it.
    pub version: u64,
    /// The bytes its writer gave it.
    pub value: Vec<u8>,
    /// When [`crate::Storage::expired`] begins to list it, in Unix seconds. Nothing is deleted by itself.
    pub expires_at: Option<u64>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("value", &Size(&self.value))
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

/// The effect of a write on its record.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Creates or replaces it.
    Put {
        /// The version to store; the store compares versions and never chooses them.
        version: u64,
        /// The bytes to store.
        value: Vec<u8>,
        /// When [`crate::Storage::expired`] begins to list it, in Unix seconds.
        expires_at: Option<u64>,
    },
    /// Removes it, if it is there.
    Delete,
    /// Removes it together with its event: nobody hears of it any more. Cursors from before that event are then below
    /// [`crate::Storage::floor`].
    Purge,
    /// Leaves it as it is: only the condition counts.
    Keep,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { version, value, expires_at } => f
                .debug_struct("Put")
                .field("version", version)
                .field("value", &Size(value))
                .field("expires_at", expires_at)
                .finish(),
            Self::Delete => f.write_str("Delete"),
            Self::Purge => f.write_str("Purge"),
            Self::Keep => f.write_str("Keep"),
        }
    }
}

/// One change of one record, under a condition, with the event that tells the feed.
#[derive(Clone, PartialEq, Eq)]
pub struct Write {
    /// The record's table.
    pub table: Table,
    /// The record's key, of at most [`MAX_KEY_BYTES`].
    pub key: Vec<u8>,
    /// The condition; if it does not hold, the transaction ends in a conflict.
    pub expect: Expect,
    /// The change.
    pub change: Change,
    /// Appended to the feed in place of the key's earlier event; at most [`MAX_EVENT_BYTES`]. A deletion that readers
    /// of the feed must hear about needs one too.
    pub event: Option<Vec<u8>>,
}

impl Write {
    /// Creates or replaces a record, whatever is there.
    pub fn put(table: Table, key: impl Into<Vec<u8>>, version: u64, value: impl Into<Vec<u8>>) -> Self {
        Self::new(table, key, Change::Put { version, value: value.into(), expires_at: None })
    }

    /// Removes a record, whatever is there.
    pub fn delete(table: Table, key: impl Into<Vec<u8>>) -> Self {
        Self::new(table, key, Change::Delete)
    }

    /// Removes a record and its event, whatever is there: for tombstones that everybody has read.
    pub fn purge(table: Table, key: impl Into<Vec<u8>>) -> Self {
        Self::new(table, key, Change::Purge)
    }

    /// Changes nothing: the transaction applies only while this holds.
    pub fn require(table: Table, key: impl Into<Vec<u8>>, expect: Expect) -> Self {
        Self::new(table, key, Change::Keep).expect(expect)
    }

    /// Sets the condition.
    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// Sets when the record expires, in Unix seconds. Only what is put has an expiry.
    pub fn expires_at(mut self, unix_seconds: u64) -> Self {
        if let Change::Put { expires_at, .. } = &mut self.change {
            *expires_at = Some(unix_seconds);
        }
        self
    }

    /// Sets the event for the feed.
    pub fn event(mut self, event: impl Into<Vec<u8>>) -> Self {
        self.event = Some(event.into());
        self
    }

    fn value(&self) -> &[u8] {
        match &self.change {
            Change::Put { value, .. } => value,
            Change::Delete | Change::Purge | Change::Keep => &[],
        }
    }

    fn new(table: Table, key: impl Into<Vec<u8>>, change: Change) -> Self {
        Self { table, key: key.into(), expect: Expect::Any, change, event: None }
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("table", &self.table)
            .field("key", &format_args!("{}", self.key.escape_ascii()))
            .field("expect", &self.expect)
            .field("change", &self.change)
            .field("event", &self.event.as_deref().map(Size))
            .finish()
    }
}

/// Writes that happen together or not at all.
///
/// They apply in their order: a later write sees what an earlier one did. At most [`MAX_TRANSACTION_WRITES`] and
/// [`MAX_TRANSACTION_BYTES`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The writes, in the order in which they apply.
    pub writes: Vec<Write>,
    /// Entries for the audit log, in their order; each at most [`MAX_AUDIT_ENTRY_BYTES`].
    pub audit: Vec<Vec<u8>>,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("writes", &self.writes).field("audit", &self.audit.len()).finish()
    }
}

impl Transaction {
    /// Adds a write at the end.
    pub fn with(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    /// Adds an entry for the audit log.
    pub fn audited(mut self, entry: impl Into<Vec<u8>>) -> Self {
        self.audit.push(entry.into());
        self
    }

    /// Whether it would change nothing at all.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.audit.is_empty()
    }

    /// Refuses what is larger than the limits of this module and `max_value_bytes` allow.
    pub(crate) fn check_size(&self, max_value_bytes: usize) -> Result<(), StoreError> {
        within("writes in a transaction", self.writes.len(), MAX_TRANSACTION_WRITES)?;
        for write in &self.writes {
            within("bytes of a key", write.key.len(), MAX_KEY_BYTES)?;
            within("bytes of a value", write.value().len(), max_value_bytes)?;
            within("bytes of an event", write.event.as_ref().map_or(0, Vec::len), MAX_EVENT_BYTES)?;
        }
        within("entries for the audit log", self.audit.len(), MAX_TRANSACTION_WRITES)?;
        for entry in &self.audit {
            within("bytes of an audit entry", entry.len(), MAX_AUDIT_ENTRY_BYTES)?;
        }
        within("bytes of a transaction", self.bytes(), MAX_TRANSACTION_BYTES)
    }

    /// Keys, values, events and entries of the audit log together.
    pub(crate) fn bytes(&self) -> usize {
        let write = |write: &Write| write.key.len() + write.value().len() + write.event.as_ref().map_or(0, Vec::len);
        self.writes.iter().map(write).sum::<usize>() + self.audit.iter().map(Vec::len).sum::<usize>()
    }
}

impl From<Write> for Transaction {
    fn from(write: Write) -> Self {
        Self { writes: vec![write], audit: Vec::new() }
    }
}

impl From<Vec<Write>> for Transaction {
    fn from(writes: Vec<Write>) -> Self {
        Self { writes, audit: Vec::new() }
    }
}

impl FromIterator<Write> for Transaction {
    fn from_iter<I: IntoIterator<Item = Write>>(writes: I) -> Self {
        Self::from(Vec::from_iter(writes))
    }
}

/// One event of the feed.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the total order.
    pub seq: u64,
    /// The bytes its writer gave it.
    pub event: Vec<u8>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("seq", &self.seq).field("event", &Size(&self.event)).finish()
    }
}

/// Hears of the outcome of a commit.
pub type Done = Box<dyn FnOnce(Result<Position, StoreError>) + Send>;

/// Stands for bytes in debug output: logs must not repeat what the store keeps.
struct Size<'a>(&'a [u8]);

impl fmt::Debug for Size<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit {
        return Err(StoreError::TooLarge { what, size, limit });
    }
    Ok(())
}

/// The longest key.
pub const MAX_KEY_BYTES: usize = 1024;

/// The longest event.
pub const MAX_EVENT_BYTES: usize = 32 * 1024;

/// The longest entry of the audit log.
pub const MAX_AUDIT_ENTRY_BYTES: usize = 32 * 1024;

/// The most writes in one transaction.
pub const MAX_TRANSACTION_WRITES: usize = 1024;

/// The most bytes in one transaction: keys, values and events together.
pub const MAX_TRANSACTION_BYTES: usize = 4 * 1024 * 1024;
