//! The state of certstore: durable records, the issuers that count now, and the wake-up of waiting readers.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use certseal_seal::{VerifyingKey, VerifyingKeys, ring_issuers};
use certseal_service::problem::Refusal;
use certseal_store::{Expect, Position, Record, Storage, StoreError, Transaction, Write};
use certseal_wire::{Caller, Event, KeyRing, Kind, ProblemKind, PutOutcome};
use tokio::sync::watch;

use crate::{
    metrics::Metrics,
    records::{self, CHALLENGES, Checked, ONLY, RING, Stored},
};

/// The key ring, and the issuers that count under it.
#[derive(Default)]
struct Trusted {
    ring: Arc<KeyRing>,
    issuers: VerifyingKeys,
}

impl From<KeyRing> for Trusted {
    fn from(ring: KeyRing) -> Self {
        Self { issuers: ring_issuers(&ring), ring: Arc::new(ring) }
    }
}

pub(crate) struct Vault {
    storage: Arc<dyn Storage>,
    security: VerifyingKey,
    trusted: RwLock<Trusted>,
    /// Held while a ring is checked and stored, so that rings take effect in the order in which they are stored.
    ring_writes: Mutex<()>,
    /// Held shared while stanzas are added, and alone while a rotation is verified or old stanzas go: nothing that was
    /// not verified may be what is left.
    pub(crate) stanzas: RwLock<()>,
    news: watch::Sender<u64>,
    pub(crate) metrics: Metrics,
}

impl Vault {
    pub(crate) fn new(storage: Arc<dyn Storage>, security: VerifyingKey, metrics: Metrics) -> anyhow::Result<Self> {
        let ring = storage.get(RING, ONLY)?;
        let trusted = match ring.as_ref().and_then(Stored::decode) {
            Some(stored) => Checked::ring(stored.bytes, &security).map(|(_, ring)| Trusted::from(ring)),
            None => Ok(Trusted::default()),
        };
        let trusted =
            trusted.map_err(|refusal| anyhow::anyhow!("the stored key ring does not count: {}", refusal.0))?;
        let head = storage.head()?.seq;
        Ok(Self {
            storage,
            security,
            trusted: RwLock::new(trusted),
            ring_writes: Mutex::new(()),
            stanzas: RwLock::new(()),
            news: watch::Sender::new(head),
            metrics,
        })
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

    /// The issuers whose signatures count now.
    pub(crate) fn issuers(&self) -> VerifyingKeys {
        // The lock is held for assignments only, which leave no half-made state behind.
        self.trusted.read().unwrap_or_else(PoisonError::into_inner).issuers.clone()
    }

    /// The key ring; an empty one of version 0 before the first.
    pub(crate) fn ring(&self) -> Arc<KeyRing> {
        self.trusted.read().unwrap_or_else(PoisonError::into_inner).ring.clone()
    }

    /// Stores a bundle, route, account list or checkpoint.
    pub(crate) fn put(&self, checked: Checked) -> Result<PutOutcome, Refusal> {
        let outcome = self.replace(&checked)?;
        self.metrics.written(checked.kind, outcome.changed);
        Ok(outcome)
    }

    /// Stores the ring; from then on its issuers count. What it changes about unseal keys needs a rotation that two
    /// people agreed on, which moves on in the same transaction.
    pub(crate) fn put_ring(&self, caller: &Caller, bytes: Vec<u8>) -> Result<PutOutcome, Refusal> {
        let (checked, ring) = Checked::ring(bytes, &self.security)?;
        let _alone = self.ring_writes.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match self.prepare(&checked)? {
            None => PutOutcome { version: checked.version, changed: false },
            Some(write) => {
                let moved = self.rotation_moved_by(caller, &self.ring(), &ring)?;
                self.commit_and_announce(Transaction { writes: moved.into_iter().chain([write]).collect() })?;
                PutOutcome { version: checked.version, changed: true }
            }
        };
        *self.trusted.write().unwrap_or_else(PoisonError::into_inner) = ring.into();
        self.metrics.written(Kind::Ring, outcome.changed);
        Ok(outcome)
    }

    /// The security team's key.
    pub(crate) fn security(&self) -> &VerifyingKey {
        &self.security
    }

    /// Compare-and-swap: the version must be above the stored one. The same bytes again are no change.
    ///
    /// It need not be the very next: a writer that goes on after this store came back from a backup is ahead of it.
    fn replace(&self, checked: &Checked) -> Result<PutOutcome, Refusal> {
        let version = checked.version;
        let Some(write) = self.prepare(checked)? else { return Ok(PutOutcome { version, changed: false }) };
        self.commit_and_announce(write.into())?;
        Ok(PutOutcome { version, changed: true })
    }

    /// The write that replaces a record; none when it is there already.
    fn prepare(&self, checked: &Checked) -> Result<Option<Write>, Refusal> {
        let (table, key) = (records::table(checked.kind), records::key(checked.kind, &checked.name));
        let current = self.get(checked.kind, &checked.name)?;
        let version = checked.version;
        let (expect, before, revision) = match &current {
            Some(stored) if stored.version == version && stored.bytes == checked.bytes => return Ok(None),
            Some(stored) => (Expect::Version(stored.revision), stored.version, stored.revision),
            None => (Expect::Absent, 0, 0),
        };
        if version <= before {
            return Err(conflict(before, version));
        }
        let mut event = checked.event();
        // Pools that served it before must learn that they no longer do.
        event.pools.extend(current.map(|stored| stored.pools).unwrap_or_default());
        event.pools.sort();
        event.pools.dedup();
        // They learn it from the route, and the feed keeps the newest event only: a pool that missed the one that said
        // so has to see those that follow.
        let pools = if checked.kind == Kind::Route { &event.pools } else { &checked.pools };
        let value = Stored::encode(version, pools, &checked.bytes);
        let event = serde_json::to_vec(&event).map_err(Refusal::internal)?;
        Ok(Some(Write::put(table, key, revision + 1, value).expect(expect).event(event)))
    }

    /// Keeps a challenge until `expires_at`, in seconds since 1970.
    pub(crate) fn put_challenge(&self, key: Vec<u8>, bytes: Vec<u8>, expires_at: u64) -> Result<(), Refusal> {
        self.commit(Write::put(CHALLENGES, key, 1, bytes).expires_at(expires_at).into()).map(drop)
    }

    pub(crate) fn challenge(&self, key: &[u8], now: u64) -> Result<Option<Record>, Refusal> {
        let record = self.storage.get(CHALLENGES, key).map_err(refusal)?;
        Ok(record.filter(|record| record.expires_at.is_none_or(|end| end > now)))
    }

    pub(crate) fn delete_challenges(&self, keys: impl IntoIterator<Item = Vec<u8>>) -> Result<(), Refusal> {
        self.commit(keys.into_iter().map(|key| Write::delete(CHALLENGES, key)).collect()).map(drop)
    }

    pub(crate) fn get(&self, kind: Kind, name: &str) -> Result<Option<Stored>, Refusal> {
        let record = self.storage.get(records::table(kind), records::key(kind, name)).map_err(refusal)?;
        let unreadable = || Refusal::internal(format!("the stored {kind} {name} is not one of ours"));
        record.map(|record| Stored::decode(&record).ok_or_else(unreadable)).transpose()
    }

    /// Commits, and wakes who waits for news.
    pub(crate) fn commit_and_announce(&self, transaction: Transaction) -> Result<(), Refusal> {
        let position = self.commit(transaction)?;
        self.announce(position);
        Ok(())
    }

    pub(crate) fn commit(&self, transaction: Transaction) -> Result<Position, Refusal> {
        self.storage.commit(transaction).map_err(|error| {
            self.metrics.commit_failed();
            refusal(error)
        })
    }

    fn announce(&self, position: Position) {
        self.news.send_if_modified(|seq| {
            let newer = position.seq > *seq;
            *seq = (*seq).max(position.seq);
            newer
        });
    }
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
        _ => Refusal::internal(error),
    }
}

fn conflict(stored: u64, came: u64) -> Refusal {
    Refusal::new(ProblemKind::Conflict, format!("expected a version above {stored}, which is stored, got {came}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use certseal_store::{SledOptions, SledStore};
    use certseal_wire::PoolName;

    use super::*;

    pub(crate) fn vault(dir: &std::path::Path) -> Vault {
        let security = certseal_seal::SigningKey::generate().unwrap().verifying_key();
        let storage = SledStore::open(dir, SledOptions::default()).unwrap();
        Vault::new(Arc::new(storage), security, Metrics::default()).unwrap()
    }

    fn pools(names: &[&str]) -> Vec<PoolName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn put(vault: &Vault, kind: Kind, version: u64, names: &[&str]) {
        let bytes = version.to_be_bytes().to_vec();
        vault.put(Checked { kind, name: "a.example".into(), version, pools: pools(names), bytes }).unwrap();
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
