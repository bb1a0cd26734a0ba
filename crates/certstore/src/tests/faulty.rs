//! A storage that fails where a test says so, and on which others write where a test says so.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex},
};

use certseal_seal::SigningKey;
use certseal_store::{
    AuditEnds, AuditEntry, Change, Done, Entry, Expect, Position, Record, SledOptions, SledStore, Storage, StoreError,
    Table, Transaction,
};

use crate::{config::Retention, metrics::Metrics, vault::Vault};

/// A [`SledStore`] behind faults.
pub(crate) struct Faulty {
    inner: SledStore,
    /// Answered to everything, while there is one.
    failure: Mutex<Option<StoreError>>,
    damaged: Arc<Mutex<HashSet<Key>>>,
    lost_audit: Mutex<HashSet<u64>>,
    /// Actions of others, each once.
    meanwhile: Mutex<Vec<(At, Meanwhile)>>,
}

/// Where somebody else comes in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Right before the next commit.
    BeforeCommit,
    /// When the next commit that is waited for is durable, before it is answered.
    AfterCommit,
    /// Right after the next read of a record of this table.
    AfterGet(Table),
}

type Key = (Table, Vec<u8>);

type Meanwhile = Box<dyn FnOnce() + Send>;

/// A vault over faults, and the faults.
pub(crate) fn vault(directory: &Path) -> (Arc<Vault>, Arc<Faulty>) {
    vault_of(directory, &SigningKey::generate().unwrap())
}

/// The same, with this security key.
pub(crate) fn vault_of(directory: &Path, security: &SigningKey) -> (Arc<Vault>, Arc<Faulty>) {
    let faulty = Arc::new(Faulty::open(directory));
    let vault = Vault::new(faulty.clone(), security.verifying_key(), Retention::default(), Metrics::default());
    (Arc::new(vault.unwrap()), faulty)
}

impl Faulty {
    fn open(directory: &Path) -> Self {
        let inner = SledStore::open(directory, SledOptions::default()).unwrap();
        Self {
            inner,
            failure: Mutex::default(),
            damaged: Arc::default(),
            lost_audit: Mutex::default(),
            meanwhile: Mutex::default(),
        }
    }

    /// Answers `failure` to everything from now on, or no longer.
    pub(crate) fn fail(&self, failure: Option<StoreError>) {
        *self.failure.lock().unwrap() = failure;
    }

    /// Damages a record, until it is written again.
    pub(crate) fn damage(&self, table: Table, key: &[u8]) {
        self.damaged.lock().unwrap().insert((table, key.to_vec()));
    }

    /// Leaves an entry out of the audit log.
    pub(crate) fn lose_audit_entry(&self, number: u64) {
        self.lost_audit.lock().unwrap().insert(number);
    }

    /// Does something once, as another process would.
    pub(crate) fn meanwhile(&self, at: At, action: impl FnOnce() + Send + 'static) {
        self.meanwhile.lock().unwrap().push((at, Box::new(action)));
    }

    /// Whether everything has happened that was to happen in between.
    pub(crate) fn is_done(&self) -> bool {
        self.meanwhile.lock().unwrap().is_empty()
    }

    fn passes(&self, at: At) {
        let action = {
            let mut meanwhile = self.meanwhile.lock().unwrap();
            let next = meanwhile.iter().position(|(place, _)| *place == at);
            next.map(|next| meanwhile.remove(next).1)
        };
        // The lock is free by now: the action uses the storage too.
        if let Some(action) = action {
            action();
        }
    }

    /// The faults that a commit meets before it is begun. Answers which records it writes.
    fn before(&self, transaction: &Transaction) -> Result<HashSet<Key>, StoreError> {
        self.passes(At::BeforeCommit);
        self.answers()?;
        for write in transaction.writes.iter().filter(|write| write.expect != Expect::Any) {
            self.sound(write.table, &write.key)?;
        }
        let writes = transaction.writes.iter().filter(|write| write.change != Change::Keep);
        Ok(writes.map(|write| (write.table, write.key.clone())).collect())
    }

    fn answers(&self) -> Result<(), StoreError> {
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn sound(&self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        if self.damaged.lock().unwrap().contains(&(table, key.to_vec())) {
            Err(StoreError::Corrupt { table, key: key.to_vec() })
        } else {
            Ok(())
        }
    }

    fn sound_ones(&self, table: Table, found: Vec<(Vec<u8>, Record)>) -> Vec<(Vec<u8>, Record)> {
        found.into_iter().filter(|(key, _)| self.sound(table, key).is_ok()).collect()
    }
}

impl Storage for Faulty {
    fn commit(&self, transaction: Transaction) -> Result<Position, StoreError> {
        let written = self.before(&transaction)?;
        let position = self.inner.commit(transaction)?;
        self.damaged.lock().unwrap().retain(|key| !written.contains(key));
        self.passes(At::AfterCommit);
        Ok(position)
    }

    fn submit(&self, transaction: Transaction, done: Done) {
        let written = match self.before(&transaction) {
            Ok(written) => written,
            Err(error) => return done(Err(error)),
        };
        let damaged = self.damaged.clone();
        let healed = move |outcome: Result<Position, StoreError>| {
            if outcome.is_ok() {
                damaged.lock().unwrap().retain(|key| !written.contains(key));
            }
            done(outcome);
        };
        self.inner.submit(transaction, Box::new(healed));
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.answers()?;
        self.sound(table, key)?;
        let found = self.inner.get(table, key);
        self.passes(At::AfterGet(table));
        found
    }

    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        self.answers()?;
        Ok(self.sound_ones(table, self.inner.scan(table, after, limit)?))
    }

    fn scan_prefix(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        self.answers()?;
        Ok(self.sound_ones(table, self.inner.scan_prefix(table, prefix, limit)?))
    }

    fn head(&self) -> Result<Position, StoreError> {
        self.answers()?;
        self.inner.head()
    }

    fn feed(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.answers()?;
        self.inner.feed(after, limit)
    }

    fn expired(&self, table: Table, now: u64, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        self.answers()?;
        Ok(self.sound_ones(table, self.inner.expired(table, now, limit)?))
    }

    fn floor(&self) -> Result<u64, StoreError> {
        self.answers()?;
        self.inner.floor()
    }

    fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.answers()?;
        let mut entries = self.inner.audit(after, limit)?;
        let lost = self.lost_audit.lock().unwrap();
        entries.retain(|entry| !lost.contains(&entry.link.number));
        Ok(entries)
    }

    fn audit_ends(&self) -> Result<AuditEnds, StoreError> {
        self.answers()?;
        self.inner.audit_ends()
    }

    fn drop_audit(&self, through: u64) -> Result<(), StoreError> {
        self.answers()?;
        self.inner.drop_audit(through)
    }

    fn healthy(&self) -> Result<(), StoreError> {
        self.answers()?;
        self.inner.healthy()
    }
}
