//! The embedded backend: sled, with the syncs that make its commits durable.
//!
//! Submodules: [`open`] the directory and its checks, [`writer`] group commit, [`apply`] a group's transactions, [`reader`]
//! records and lists, [`published`] what the feed may show, [`high_water`] the independent witness, [`layout`] bytes,
//! [`portable`] copies from and to other engines.

mod apply;
mod directory;
mod high_water;
mod layout;
mod open;
mod options;
mod portable;
mod published;
mod reached;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::{fs::File, path::Path, sync::Arc};

pub use self::options::SledOptions;
use self::{
    open::Opened,
    published::Published,
    reader::Reader,
    writer::{Space, Writer},
};
use crate::{
    AuditEnds, AuditEntry, Done, Entry, Position, Record, Storage, StoreError, Table, Transaction,
    queue::{Queue, Work},
};

/// A [`Storage`] in one directory of one machine.
///
/// Dropping it finishes what was committed, stops the writer and releases the directory.
pub struct SledStore {
    // Dropped in this order: the engine lets go of its files before another store may lock the directory.
    queue: Queue,
    reader: Reader,
    published: Arc<Published>,
    space: Space,
    max_value_bytes: usize,
    _database: sled::Db,
    _lock: File,
}

impl SledStore {
    /// Opens the store in `directory`, creating both if needed; the directory's mode becomes 0700.
    ///
    /// Refuses a database that is behind its high-water file ([`StoreError::Behind`]) or of another epoch, and a
    /// directory that is in use ([`StoreError::Locked`]).
    pub fn open(directory: &Path, options: SledOptions) -> Result<Self, StoreError> {
        Self::start(Opened::verified(directory, &options)?, &options)
    }

    /// Opens a directory that was restored from a copy, whatever position it has, under a new epoch.
    ///
    /// Every reader of the feed then notices that its cursor belongs to another history. Changes acknowledged after the
    /// copy was made are lost.
    pub fn open_restored(directory: &Path, options: SledOptions) -> Result<Self, StoreError> {
        Self::start(Opened::restored(directory, &options)?, &options)
    }

    fn start(opened: Opened, options: &SledOptions) -> Result<Self, StoreError> {
        let Opened { directory, lock, database, trees, log, high_water, reached } = opened;
        let published = Arc::new(Published::new(reached));
        let space = Space::new(directory.clone(), options.reserve_bytes);
        let reader = Reader::new(trees.clone(), Arc::clone(&published));
        let mut writer = Writer::new(trees, log, high_water, reached, Arc::clone(&published), space.clone());
        let queue = Queue::start(move |group| writer.answers(group))?;
        Ok(Self {
            queue,
            reader,
            published,
            space,
            max_value_bytes: options.max_value_bytes,
            _database: database,
            _lock: lock,
        })
    }
}

impl Storage for SledStore {
    fn submit(&self, transaction: Transaction, done: Done) {
        let accepted = self.published.usable().and_then(|()| transaction.check_size(self.max_value_bytes));
        match accepted {
            Ok(()) if transaction.is_empty() => done(self.head()),
            Ok(()) => self.queue.submit(Work::Apply(transaction), done),
            Err(refused) => done(Err(refused)),
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.reader.record(table, key)
    }

    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        self.reader.after(table, after, limit)
    }

    fn scan_prefix(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        self.reader.with_prefix(table, prefix, limit)
    }

    fn head(&self) -> Result<Position, StoreError> {
        Ok(self.published.position())
    }

    fn feed(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.reader.feed(after, limit)
    }

    fn expired(&self, table: Table, now: u64, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        self.reader.expired(table, now, limit)
    }

    fn floor(&self) -> Result<u64, StoreError> {
        self.reader.floor()
    }

    fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.reader.audit(after, limit)
    }

    fn audit_ends(&self) -> Result<AuditEnds, StoreError> {
        self.reader.audit_ends()
    }

    fn drop_audit(&self, through: u64) -> Result<(), StoreError> {
        self.published.usable()?;
        self.queue.ask(Work::DropAudit(through)).map(drop)
    }

    fn healthy(&self) -> Result<(), StoreError> {
        self.published.usable()?;
        self.queue.healthy()?;
        self.space.check()
    }
}
