//! The state of certstore: durable records, the key ring that counts now, and the wake-up of waiting readers.
//!
//! A vault reads, commits and announces. The rules of each kind of record are in [`domain`](crate::domain).

mod news;
mod trusted;

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use certseal_seal::VerifyingKey;
use certseal_service::problem::Refusal;
use certseal_store::{Expect, Position, Record, Storage, StoreError, Table, Transaction, Write};
use certseal_wire::{KeyRing, Kind};

use crate::{
    audit_note::AuditNote,
    config::Retention,
    documents::Checked,
    guards::expect_record,
    metrics::Metrics,
    records::{self, MARKS, ONLY, RESTORING, RING, Stored},
    refusal::storage_refusal,
};
pub(crate) use news::News;
pub(crate) use trusted::Trusted;

pub(crate) struct Vault {
    storage: Arc<dyn Storage>,
    security: VerifyingKey,
    /// The ring as last seen. Another process may have stored a newer one: a decision that rests on this one is committed
    /// under its guard.
    trusted: RwLock<Arc<Trusted>>,
    news: News,
    retention: Retention,
    /// Whether a backup is being restored: nobody else is served meanwhile.
    restoring: AtomicBool,
    /// The name of this process among those that share the database: random.
    process: String,
    pub(crate) metrics: Metrics,
}

impl Vault {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        security: VerifyingKey,
        retention: Retention,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let head = storage.head()?.seq;
        let trusted = RwLock::default();
        let (news, restoring) = (News::new(head), AtomicBool::new(false));
        let process = format!("{:016x}", getrandom::u64().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?);
        let vault = Self { storage, security, trusted, news, retention, restoring, process, metrics };
        let ring = vault.refresh().and_then(|_| vault.refresh_restoring());
        ring.map_err(|refusal| anyhow::anyhow!("the stored key ring does not count: {}", refusal.0))?;
        Ok(vault)
    }

    pub(crate) fn healthy(&self) -> Result<(), StoreError> {
        self.storage.healthy()
    }

    /// The news; a clone of them does not hold the vault.
    pub(crate) fn news(&self) -> &News {
        &self.news
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// The name of this process, as the holder of leases.
    pub(crate) fn process(&self) -> &str {
        &self.process
    }

    /// Whether a backup is being restored, as last seen.
    pub(crate) fn is_restoring(&self) -> bool {
        self.restoring.load(Ordering::Relaxed)
    }

    /// Looks whether a backup is being restored, here or in another process.
    pub(crate) fn refresh_restoring(&self) -> Result<(), Refusal> {
        let mark = self.storage.get(MARKS, RESTORING.as_bytes()).map_err(storage_refusal)?;
        self.restoring.store(mark.is_some(), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// The key ring as last seen, and the issuers whose signatures count under it.
    pub(crate) fn trusted(&self) -> Arc<Trusted> {
        // The lock is held for assignments only, which leave no half-made state behind.
        self.trusted.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key ring as it is stored now, by this process or another one.
    pub(crate) fn refresh(&self) -> Result<Arc<Trusted>, Refusal> {
        let Some(record) = self.storage.get(RING, ONLY).map_err(storage_refusal)? else { return Ok(self.trusted()) };
        let trusted = self.trusted();
        if trusted.revision == record.version {
            return Ok(trusted);
        }
        let stored = Stored::decode(&record).ok_or_else(|| Refusal::internal("the stored ring is not one of ours"))?;
        let (_, ring) = Checked::ring(stored.bytes, &self.security)?;
        Ok(self.trust(Trusted::new(ring, record.version)))
    }

    /// Trusts a ring that was committed in the place of `before`.
    pub(crate) fn trust_after(&self, before: &Trusted, ring: KeyRing) {
        self.trust(Trusted::new(ring, before.revision + 1));
    }

    fn trust(&self, newer: Trusted) -> Arc<Trusted> {
        let newer = Arc::new(newer);
        let mut trusted = self.trusted.write().unwrap_or_else(PoisonError::into_inner);
        if trusted.revision < newer.revision {
            *trusted = newer.clone();
        }
        newer
    }

    /// The security team's key.
    pub(crate) fn security(&self) -> &VerifyingKey {
        &self.security
    }

    /// A record that goes together with another one, and the condition that it stays as it is. A damaged one says nothing,
    /// and stands in nobody's way.
    pub(crate) fn seen(&self, table: Table, key: &[u8]) -> Result<(Option<Record>, Expect), Refusal> {
        match self.storage.get(table, key) {
            Ok(record) => {
                let unmoved = expect_record(record.as_ref());
                Ok((record, unmoved))
            }
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%table, key = %key.escape_ascii(), %error, "passed over a damaged record");
                Ok((None, Expect::Any))
            }
            Err(error) => Err(storage_refusal(error)),
        }
    }

    /// Commits the transaction that `build` makes under the key ring, if that ring is still the stored one then.
    pub(crate) fn commit_under_ring(
        &self,
        build: impl Fn(&Trusted) -> Result<Transaction, Refusal>,
    ) -> Result<(), Refusal> {
        let mut trusted = self.trusted();
        loop {
            match self.committed(build(&trusted)?.with(trusted.guard())) {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict { table, .. }) if table == RING => trusted = self.refresh()?,
                Err(error) => return Err(storage_refusal(error)),
            }
        }
    }

    /// The record, or the tombstone that is left of it.
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Result<Option<Stored>, Refusal> {
        let record = self.storage.get(records::table(kind), records::key(kind, name)).map_err(storage_refusal)?;
        record.map(|record| decoded(record, kind, name)).transpose()
    }

    /// The same for several records, each with an answer of its own.
    pub(crate) fn get_all(&self, wanted: &[(Kind, &str)]) -> Vec<Result<Option<Stored>, Refusal>> {
        let keys: Vec<_> = wanted.iter().map(|(kind, name)| records::table_and_key(*kind, name)).collect();
        let found = match self.storage.get_all(&keys) {
            Ok(found) => found,
            Err(error) => return wanted.iter().map(|_| Err(storage_refusal(error.clone()))).collect(),
        };
        let answer = |(record, (kind, name)): (Option<Record>, &(Kind, &str))| match record {
            Some(record) => decoded(record, *kind, name).map(Some),
            // The storage leaves out a damaged record like a missing one; asked for it alone, it tells them apart.
            None => self.get(*kind, name),
        };
        found.into_iter().zip(wanted).map(answer).collect()
    }

    /// A requirement that nobody sets this mark before the commit.
    pub(crate) fn mark_guard(&self, mark: &str) -> Result<Write, Refusal> {
        let record = self.storage.get(MARKS, mark.as_bytes()).map_err(storage_refusal)?;
        Ok(Write::require(MARKS, mark, expect_record(record.as_ref())))
    }

    /// Commits a change together with the note that tells of it, and wakes readers that wait for news.
    pub(crate) fn commit_and_announce(&self, note: AuditNote, transaction: Transaction) -> Result<(), Refusal> {
        let position = self.commit(note, transaction)?;
        self.news.announce(position);
        Ok(())
    }

    /// Commits a change together with the note that tells of it.
    pub(crate) fn commit(&self, note: AuditNote, mut transaction: Transaction) -> Result<Position, Refusal> {
        transaction.audit.extend(note.bytes()?);
        self.commit_unaudited(transaction)
    }

    /// Commits a transaction that brings its notes along, or one that changes nothing that anybody relies on.
    pub(crate) fn commit_unaudited(&self, transaction: Transaction) -> Result<Position, Refusal> {
        self.committed(transaction).map_err(storage_refusal)
    }

    fn committed(&self, transaction: Transaction) -> Result<Position, StoreError> {
        self.storage.commit(transaction).inspect_err(|_| self.metrics.commit_failed())
    }
}

fn decoded(record: Record, kind: Kind, name: &str) -> Result<Stored, Refusal> {
    let unreadable = || Refusal::internal(format!("the stored {kind} {name} is not one of ours"));
    Stored::decode(&record).ok_or_else(unreadable)
}
