//! The storage contract: the promises of every backend.

use crate::{
    Done, Entry, Position, Record, StoreError, Table, Transaction,
    audit::{AuditEnds, AuditEntry},
    queue::waited,
};

/// A transactional store of versioned records, with a feed of their changes.
///
/// Reads of records see committed state, which may be a moment ahead of what is durable; a caller reads the writes that
/// it committed. The feed and its head show only what is durable, so that no cursor ever gets ahead of a crash.
pub trait Storage: Send + Sync + 'static {
    /// Applies all writes of the transaction in their order, or none, and returns once they are durable.
    ///
    /// The position is that of the transaction's last event. A transaction without events takes a sequence of its
    /// own, so that its loss would be noticed; an empty transaction changes nothing and answers the head. The entries
    /// for the audit log are appended together with the writes, or not at all.
    ///
    /// After [`StoreError::Conflict`], [`StoreError::Full`], [`StoreError::TooLarge`] or [`StoreError::Corrupt`]
    /// nothing was changed, nor after [`StoreError::Database`] from a server. After any other error the outcome is unknown
    /// until the store has been opened again, or, with a server, until the record has been read again.
    fn commit(&self, transaction: Transaction) -> Result<Position, StoreError> {
        waited(|done| self.submit(transaction, done))
    }

    /// Like [`commit`](Self::commit), but does not wait for the disk: `done` is called once the outcome is there, on a
    /// thread that it must not keep. It waits for a place in the queue only, when too much is queued already.
    ///
    /// `done` must not hold the store, which waits for that thread when its last handle is dropped. When the store breaks
    /// down meanwhile, `done` is dropped without a call, and the outcome is unknown.
    fn submit(&self, transaction: Transaction, done: Done);

    /// The record under this key; [`StoreError::Corrupt`] if its checksum does not match.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Record>, StoreError>;

    /// The records under these keys, in their order, none for those that are missing. Damaged ones are left out and
    /// logged.
    fn get_all(&self, keys: &[(Table, &[u8])]) -> Result<Vec<Option<Record>>, StoreError> {
        let get = |(table, key): &(Table, &[u8])| match self.get(*table, key) {
            Err(StoreError::Corrupt { .. }) => {
                log_damaged(*table, key);
                Ok(None)
            }
            other => other,
        };
        keys.iter().map(get).collect()
    }

    /// At most `limit` records with keys greater than `after`, in key order.
    ///
    /// A page is not a snapshot: records that change while it is read appear in their old or new state. Damaged
    /// records are left out and logged, here and in the other lists; ask for one by name to see its error.
    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError>;

    /// At most `limit` records whose keys begin with `prefix`, in key order.
    fn scan_prefix(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError>;

    /// The last durable position.
    fn head(&self) -> Result<Position, StoreError>;

    /// At most `limit` entries with sequences greater than `after`, ascending.
    ///
    /// The last entry's sequence is the next cursor. Sequences have holes where newer events replaced older ones; a
    /// reader that follows its cursor misses no key's newest event.
    fn feed(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError>;

    /// At most `limit` records whose `expires_at` is not after `now`, the earliest first.
    fn expired(&self, table: Table, now: u64, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError>;

    /// The sequence from which the feed is complete: at or after it, a cursor misses nothing. Below it, purged events
    /// are missing. Ask after reading the feed, so that nothing is purged in between.
    fn floor(&self) -> Result<u64, StoreError>;

    /// At most `limit` entries of the audit log with numbers greater than `after`, ascending, of those that are kept.
    fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError>;

    /// Where the audit log begins and ends.
    fn audit_ends(&self) -> Result<AuditEnds, StoreError>;

    /// Drops the entries of the audit log up to this number, after they were exported; the chain goes on. Returns
    /// once that is durable.
    fn drop_audit(&self, through: u64) -> Result<(), StoreError>;

    /// Whether a commit would be accepted now.
    fn healthy(&self) -> Result<(), StoreError>;
}

pub(crate) fn log_damaged(table: Table, key: &[u8]) {
    tracing::error!(%table, key = %key.escape_ascii(), "left out a damaged record");
}
