//! The state of certstore: durable records, the issuers that count now, and the wake-up of waiting readers.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use certseal_seal::{VerifyingKey, VerifyingKeys, ring_issuers};
use certseal_service::problem::Refusal;
use certseal_store::{Entry as FeedEntry, Expect, Position, Record, Storage, StoreError, Table, Transaction, Write};
use certseal_wire::{AuditAction, Event, KeyRing, Kind, ProblemKind, PutOutcome};
use tokio::sync::watch;

use crate::{
    audit::{Actor, Entry},
    config::Retention,
    metrics::Metrics,
    put::{entry, says_departed},
    records::{self, CHALLENGES, Checked, LATE, MARKS, ONLY, RING, ROUTES, Stored},
};

/// The key ring, and the issuers that count under it.
#[derive(Default)]
pub(crate) struct Trusted {
    /// An empty one of version 0 before the first.
    pub(crate) ring: KeyRing,
    pub(crate) issuers: VerifyingKeys,
    /// Of the ring's record; 0 before the first.
    revision: u64,
}

impl Trusted {
    /// Holds as long as this ring is the stored one.
    pub(crate) fn guard(&self) -> Write {
        Write::require(RING, ONLY, expect(self.revision))
    }
}

pub(crate) struct Vault {
    storage: Arc<dyn Storage>,
    security: VerifyingKey,
    /// As last seen. Another process may have stored a newer ring: what rests on this one is committed under its guard.
    trusted: RwLock<Arc<Trusted>>,
    news: watch::Sender<u64>,
    retention: Retention,
    /// Whether a backup is being restored: nobody else is served meanwhile.
    restoring: AtomicBool,
    /// What this process is called among those that share the database: random.
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
        let (news, restoring) = (watch::Sender::new(head), AtomicBool::new(false));
        let process = format!("{:016x}", getrandom::u64().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?);
        let vault = Self { storage, security, trusted, news, retention, restoring, process, metrics };
        let ring = vault.refresh().and_then(|_| vault.refresh_restoring());
        ring.map_err(|refusal| anyhow::anyhow!("the stored key ring does not count: {}", refusal.0))?;
        Ok(vault)
    }

    pub(crate) fn healthy(&self) -> Result<(), StoreError> {
        self.storage.healthy()
    }

    /// Sees the sequence number of the newest durable event.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
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

    pub(crate) fn set_restoring(&self, restoring: bool) {
        self.restoring.store(restoring, Ordering::Relaxed);
    }

    pub(crate) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// The key ring as last seen, and the issuers whose signatures count under it.
    pub(crate) fn trusted(&self) -> Arc<Trusted> {
        // The lock is held for assignments only, which leave no half-made state behind.
        self.trusted.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key ring as it is stored now, whoever stored it.
    pub(crate) fn refresh(&self) -> Result<Arc<Trusted>, Refusal> {
        let Some(record) = self.storage.get(RING, ONLY).map_err(refusal)? else { return Ok(self.trusted()) };
        let known = self.trusted();
        if known.revision == record.version {
            return Ok(known);
        }
        let stored = Stored::decode(&record).ok_or_else(|| Refusal::internal("the stored ring is not one of ours"))?;
        let (_, ring) = Checked::ring(stored.bytes, &self.security)?;
        Ok(self.trust(ring, record.version))
    }

    fn trust(&self, ring: KeyRing, revision: u64) -> Arc<Trusted> {
        let newer = Arc::new(Trusted { issuers: ring_issuers(&ring), ring, revision });
        let mut trusted = self.trusted.write().unwrap_or_else(PoisonError::into_inner);
        if trusted.revision < revision {
            *trusted = newer.clone();
        }
        newer
    }

    /// Stores the ring; from then on its issuers count. What it changes about unseal keys needs a rotation that two
    /// people agreed on, which moves on in the same transaction.
    pub(crate) fn put_ring(&self, actor: &Actor, bytes: Vec<u8>) -> Result<PutOutcome, Refusal> {
        let (checked, ring) = Checked::ring(bytes, &self.security)?;
        let trusted = self.refresh()?;
        let (version, mut changed) = (checked.version, false);
        // Before anything is looked at: what is sealed late meanwhile moves the mark.
        let late = self.mark_guard(LATE)?;
        if let Some(write) = self.prepare(&checked, &trusted.ring, false)? {
            let moved = self.rotation_moved_by(actor, &trusted.ring, &ring)?;
            let writes = [trusted.guard(), late].into_iter().chain(moved).chain([write]).collect();
            let transaction = Transaction { writes, audit: entry(actor, &checked).bytes()? };
            let position = self.committed(transaction).map_err(refusal)?;
            self.trust(ring, trusted.revision + 1);
            self.announce(position);
            changed = true;
        }
        self.metrics.written(Kind::Ring, changed);
        Ok(PutOutcome { version, changed })
    }

    /// The security team's key.
    pub(crate) fn security(&self) -> &VerifyingKey {
        &self.security
    }

    /// Whether the newest route says that the site has left.
    pub(crate) fn has_departed(&self, site: &str) -> Result<bool, Refusal> {
        let (route, _) = self.seen(ROUTES, site.as_bytes())?;
        Ok(route.is_some_and(|route| says_departed(&route)))
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
            Err(error) => Err(refusal(error)),
        }
    }

    /// Keeps a challenge until the time that `check` answers, in seconds since 1970.
    pub(crate) fn put_challenge(
        &self,
        actor: &Actor,
        key: &str,
        bytes: &[u8],
        check: impl Fn(&Trusted) -> Result<u64, Refusal>,
    ) -> Result<(), Refusal> {
        self.commit_under_ring(|trusted| {
            let entry = Entry::new(actor, AuditAction::PutChallenge).target(key);
            let write = Write::put(CHALLENGES, key, 1, bytes).expires_at(check(trusted)?);
            Ok(Transaction { writes: vec![write], audit: entry.bytes()? })
        })
    }

    /// Commits what `build` finds good under the key ring, if that is still the stored one then.
    pub(crate) fn commit_under_ring(
        &self,
        build: impl Fn(&Trusted) -> Result<Transaction, Refusal>,
    ) -> Result<(), Refusal> {
        let mut trusted = self.trusted();
        loop {
            match self.committed(build(&trusted)?.with(trusted.guard())) {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict { table, .. }) if table == RING => trusted = self.refresh()?,
                Err(error) => return Err(refusal(error)),
            }
        }
    }

    pub(crate) fn challenge(&self, key: &str, now: u64) -> Result<Option<Record>, Refusal> {
        let record = self.storage.get(CHALLENGES, key.as_bytes()).map_err(refusal)?;
        Ok(record.filter(|record| record.expires_at.is_none_or(|end| end > now)))
    }

    pub(crate) fn delete_challenge(&self, actor: &Actor, key: &str) -> Result<(), Refusal> {
        let entry = Entry::new(actor, AuditAction::DeleteChallenges).target(key);
        self.commit(entry, Write::delete(CHALLENGES, key).into()).map(drop)
    }

    /// The record, or the tombstone that is left of it.
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Result<Option<Stored>, Refusal> {
        let record = self.storage.get(records::table(kind), records::key(kind, name)).map_err(refusal)?;
        let unreadable = || Refusal::internal(format!("the stored {kind} {name} is not one of ours"));
        record.map(|record| Stored::decode(&record).ok_or_else(unreadable)).transpose()
    }

    /// Events with the records that they tell of: none for one that is gone, damaged, or was replaced meanwhile; the newer
    /// event follows then. Those of which `is_wanted` says no are left out.
    pub(crate) fn with_records(
        &self,
        entries: &[FeedEntry],
        is_wanted: impl Fn(&Event) -> bool,
    ) -> Result<Vec<(u64, Event, Option<Stored>)>, Refusal> {
        let mut events = Vec::with_capacity(entries.len());
        for entry in entries {
            let event = parse_event(&entry.event)?;
            if is_wanted(&event) {
                events.push((entry.seq, event));
            }
        }
        let keys: Vec<_> = events.iter().map(|(_, event)| records::table_and_key(event.kind, &event.name)).collect();
        let found = self.storage.get_all(&keys).map_err(refusal)?;
        let together = |((seq, event), record): ((u64, Event), Option<Record>)| {
            let stored = record.and_then(|record| {
                let stored = Stored::decode(&record);
                if stored.is_none() {
                    tracing::error!(kind = %event.kind, name = event.name, "left out a record that is not one of ours");
                }
                stored
            });
            let stored = stored.filter(|stored| !event.deleted && stored.version == event.version);
            (seq, event, stored.filter(|stored| !stored.is_tombstone()))
        };
        Ok(events.into_iter().zip(found).map(together).collect())
    }

    /// A requirement that nobody sets this mark before the commit.
    pub(crate) fn mark_guard(&self, mark: &str) -> Result<Write, Refusal> {
        let record = self.storage.get(MARKS, mark.as_bytes()).map_err(refusal)?;
        Ok(Write::require(MARKS, mark, expect_record(record.as_ref())))
    }

    /// Commits what `entry` tells of together with the entry, and wakes who waits for news.
    pub(crate) fn commit_and_announce(&self, entry: Entry, transaction: Transaction) -> Result<(), Refusal> {
        let position = self.commit(entry, transaction)?;
        self.announce(position);
        Ok(())
    }

    /// Commits what `entry` tells of together with the entry.
    pub(crate) fn commit(&self, entry: Entry, mut transaction: Transaction) -> Result<Position, Refusal> {
        transaction.audit.extend(entry.bytes()?);
        self.commit_unaudited(transaction)
    }

    /// For what is no change of anything that counts, and for transactions that bring their entries along.
    pub(crate) fn commit_unaudited(&self, transaction: Transaction) -> Result<Position, Refusal> {
        self.committed(transaction).map_err(refusal)
    }

    fn committed(&self, transaction: Transaction) -> Result<Position, StoreError> {
        self.storage.commit(transaction).inspect_err(|_| self.metrics.commit_failed())
    }

    /// Wakes who waits for news up to this position.
    pub(crate) fn announce(&self, position: Position) {
        announce(&self.news, position);
    }

    /// What [`announce`] tells the news by, for who must not hold the vault.
    pub(crate) fn news_sender(&self) -> watch::Sender<u64> {
        self.news.clone()
    }
}

/// Wakes who waits for news up to this position.
pub(crate) fn announce(news: &watch::Sender<u64>, position: Position) {
    news.send_if_modified(|seq| {
        let newer = position.seq > *seq;
        *seq = (*seq).max(position.seq);
        newer
    });
}

/// A write that sets a mark: guards that were taken before do not hold any more.
pub(crate) fn mark(mark: &str) -> Result<Write, Refusal> {
    // Random, so that two processes that set it at one time do not hide one another.
    let version = getrandom::u64().map_err(Refusal::internal)? >> 1;
    Ok(Write::put(MARKS, mark, version, Vec::new()))
}

/// What a write expects of a record that had this revision; 0 for one that was not there.
pub(crate) fn expect(revision: u64) -> Expect {
    if revision == 0 { Expect::Absent } else { Expect::Version(revision) }
}

fn expect_record(record: Option<&Record>) -> Expect {
    record.map_or(Expect::Absent, |record| Expect::Version(record.version))
}

/// Seconds since 1970; 0 for what lies before.
pub(crate) fn seconds(at: jiff::Timestamp) -> u64 {
    at.as_second().try_into().unwrap_or(0)
}

/// Reads an event as it was stored.
pub(crate) fn parse_event(bytes: &[u8]) -> Result<Event, Refusal> {
    serde_json::from_slice(bytes).map_err(Refusal::internal)
}

pub(crate) fn refusal(error: StoreError) -> Refusal {
    match &error {
        StoreError::Conflict { found, .. } => Refusal::new(
            ProblemKind::Conflict,
            format!("another write came first: version {} is stored now; read it and try again", found.unwrap_or(0)),
        ),
        StoreError::Full { .. } => {
            tracing::error!(%error, "write refused");
            Refusal::new(ProblemKind::Full, "the store has too little free disk space; nothing was written")
        }
        StoreError::TooLarge { .. } => Refusal::new(ProblemKind::TooLarge, error.to_string()),
        StoreError::Corrupt { .. } => Refusal::internal(error),
        // Whatever it is, another certstore with the same database may do better.
        _ => {
            tracing::error!(%error, "the storage does not answer");
            Refusal::new(ProblemKind::Unavailable, "the storage does not answer now; the log of certstore says why")
        }
    }
}

#[cfg(test)]
mod faults;

#[cfg(test)]
pub(crate) mod tests {
    use certseal_store::{SledOptions, SledStore};
    use certseal_wire::PoolName;

    use super::*;

    pub(crate) fn vault(dir: &std::path::Path) -> Arc<Vault> {
        vault_of(dir, certseal_seal::SigningKey::generate().unwrap().verifying_key())
    }

    pub(crate) fn vault_of(dir: &std::path::Path, security: VerifyingKey) -> Arc<Vault> {
        let storage = SledStore::open(dir, SledOptions::default()).unwrap();
        Arc::new(Vault::new(Arc::new(storage), security, Retention::default(), Metrics::default()).unwrap())
    }

    /// A put, from its beginning to its end.
    pub(crate) fn put_waiting(
        vault: &Arc<Vault>,
        actor: Actor,
        check: impl Fn(&Trusted) -> Result<Checked, Refusal> + Send + Sync + 'static,
    ) -> Result<PutOutcome, Refusal> {
        let put = vault.clone().put(actor, check);
        let waits = || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(put);
        // On a thread of its own: who asks may be asynchronous itself.
        std::thread::scope(|scope| scope.spawn(waits).join().unwrap())
    }

    fn pools(names: &[&str]) -> Vec<PoolName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    pub(crate) fn put(vault: &Arc<Vault>, kind: Kind, version: u64, names: &[&str]) {
        let (bytes, pools) = (version.to_be_bytes().to_vec(), pools(names));
        let checked =
            move |_: &Trusted| Ok(Checked::new(kind, "a.example".into(), version, pools.clone(), bytes.clone()));
        put_waiting(vault, Actor::itself(), checked).unwrap();
    }

    /// The feed keeps one event of the site, and an edge that was away must learn from it that the site has left.
    #[test]
    fn a_pool_that_a_site_left_goes_on_seeing_its_routes_but_not_its_bundles() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path());
        for (version, names) in [(1, ["eu"]), (2, ["us"]), (3, ["us"])] {
            put(&vault, Kind::Route, version, &names);
            put(&vault, Kind::Bundle, version, &names);
        }
        let events = vault.storage().feed(0, 10).unwrap();
        let events: Vec<Event> = events.iter().map(|entry| parse_event(&entry.event).unwrap()).collect();
        let route = events.iter().find(|event| event.kind == Kind::Route).unwrap();
        assert_eq!((events.len(), route.version, &route.pools), (2, 3, &pools(&["eu", "us"])));
        assert_eq!(vault.get(Kind::Route, "a.example").unwrap().unwrap().pools, pools(&["eu", "us"]));
        assert_eq!(vault.get(Kind::Bundle, "a.example").unwrap().unwrap().pools, pools(&["us"]));
    }
}
