//! A store in which somebody comes between a reading and what follows from it.

use std::sync::{Arc, Mutex};

use certseal_store::{AuditEnds, AuditEntry, Done, Entry, Position, Record, Storage, StoreError, Table, Transaction};

pub(super) struct Interleaved {
    inner: Arc<dyn Storage>,
    after: After,
    /// It is called once.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// The reading after which somebody comes.
#[derive(PartialEq)]
enum After {
    Get(Table),
    Scan(Table),
}

impl Interleaved {
    pub(super) fn after_a_get(
        inner: Arc<dyn Storage>,
        table: Table,
        meanwhile: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self { inner, after: After::Get(table), meanwhile: Mutex::new(Some(Box::new(meanwhile))) }
    }

    pub(super) fn after_a_scan(
        inner: Arc<dyn Storage>,
        table: Table,
        meanwhile: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self { inner, after: After::Scan(table), meanwhile: Mutex::new(Some(Box::new(meanwhile))) }
    }

    fn read(&self, reading: After) {
        let meanwhile = self.meanwhile.lock().unwrap().take_if(|_| reading == self.after);
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }
}

impl Storage for Interleaved {
    fn submit(&self, transaction: Transaction, done: Done) {
        self.inner.submit(transaction, done);
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let found = self.inner.get(table, key);
        self.read(After::Get(table));
        found
    }

    fn get_all(&self, keys: &[(Table, &[u8])]) -> Result<Vec<Option<Record>>, StoreError> {
        self.inner.get_all(keys)
    }

    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        let found = self.inner.scan(table, after, limit);
        self.read(After::Scan(table));
        found
    }

    fn scan_prefix(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        self.inner.scan_prefix(table, prefix, limit)
    }

    fn head(&self) -> Result<Position, StoreError> {
        self.inner.head()
    }

    fn feed(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.inner.feed(after, limit)
    }

    fn expired(&self, table: Table, now: u64, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        self.inner.expired(table, now, limit)
    }

    fn floor(&self) -> Result<u64, StoreError> {
        self.inner.floor()
    }

    fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.inner.audit(after, limit)
    }

    fn audit_ends(&self) -> Result<AuditEnds, StoreError> {
        self.inner.audit_ends()
    }

    fn drop_audit(&self, through: u64) -> Result<(), StoreError> {
        self.inner.drop_audit(through)
    }

    fn healthy(&self) -> Result<(), StoreError> {
        self.inner.healthy()
    }
}
