//! Who works on which sites: shards that a process holds for a while.
//!
//! Several processes share one journal. A process works on a site only while it holds the site's shard, and every write of
//! such work requires the shard's fence: it moves when another process takes the shard. A process that was frozen and goes
//! on, certain that it still holds what others took meanwhile, writes nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use certseal_seal::sha256;
use certseal_store::{Expect, Storage, StoreError, Table, Write};
use certseal_wire::DnsName;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The shards that this process holds.
pub(crate) struct Leases {
    storage: Arc<dyn Storage>,
    own: String,
    /// No other process can have the journal open: what is leased is left over from an earlier run.
    is_alone: bool,
    held: Mutex<HashMap<u8, Held>>,
}

#[derive(Clone, Copy)]
struct Held {
    fence: u64,
    /// By a clock that nobody sets.
    until: Instant,
}

/// Of one shard.
#[derive(Serialize, Deserialize)]
struct Lease {
    holder: String,
    until: Timestamp,
}

impl Lease {
    fn ended(now: Timestamp) -> Self {
        Self { holder: String::new(), until: now }
    }
}

/// A shard's lease and fence as they are stored.
struct StoredLease {
    version: Option<u64>,
    lease: Option<Lease>,
    fence: u64,
}

impl StoredLease {
    fn is_held_by(&self, holder: &str) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.holder == holder)
    }

    fn is_free(&self, now: Timestamp, is_alone: bool) -> bool {
        self.lease.as_ref().is_none_or(|lease| is_alone || lease.until <= now)
    }

    /// Another lease in its place; with another fence when `moves_fence`.
    fn writes(&self, shard: u8, lease: &Lease, moves_fence: bool) -> Vec<Write> {
        let expect = self.version.map_or(Expect::Absent, Expect::Version);
        let put = Write::put(LEASES, [shard], self.version.unwrap_or(0) + 1, bytes(lease)).expect(expect);
        let expect = if self.fence == 0 { Expect::Absent } else { Expect::Version(self.fence) };
        let moved = moves_fence.then(|| Write::put(FENCES, [shard], self.fence + 1, Vec::new()).expect(expect));
        std::iter::once(put).chain(moved).collect()
    }
}

impl Leases {
    pub(crate) fn new(storage: Arc<dyn Storage>, is_alone: bool) -> Result<Self, getrandom::Error> {
        let mut own = [0; 8];
        getrandom::fill(&mut own)?;
        Ok(Self { storage, own: format!("{:016x}", u64::from_be_bytes(own)), is_alone, held: Mutex::default() })
    }

    /// Whether this process works on the site.
    pub(crate) fn has(&self, site: &DnsName) -> bool {
        self.held().get(&shard(site)).is_some_and(|held| held.until > Instant::now())
    }

    /// What a write of work on the site requires; none when the site's shard is not held.
    pub(crate) fn fence(&self, site: &DnsName) -> Option<Write> {
        let shard = shard(site);
        let held = self.held().get(&shard).copied().filter(|held| held.until > Instant::now())?;
        Some(Write::require(FENCES, [shard], Expect::Version(held.fence)))
    }

    /// Keeps what is held, and takes or gives back shards until each live process has its part of them.
    ///
    /// # Errors
    /// Of the storage. What was held is kept until its time is over.
    pub(crate) fn renew(&self, now: Timestamp) -> Result<(), StoreError> {
        // From before the request: the lease ends here before it ends for others.
        let until = Instant::now() + LOCAL_TIME;
        if self.is_alone && self.held().len() == usize::from(SHARDS) {
            // Nobody looks.
            self.held().values_mut().for_each(|held| held.until = until);
            return Ok(());
        }
        let lease = Lease { holder: self.own.clone(), until: now + LEASE_TIME };
        self.storage.commit(Write::put(MEMBERS, self.own.as_str(), 1, bytes(&lease)).into())?;
        let part = self.part(now)?;
        let mut kept = Vec::new();
        for shard in 0..SHARDS {
            let stored = self.stored(shard)?;
            if kept.len() < part && (stored.is_free(now, self.is_alone) || stored.is_held_by(&self.own)) {
                kept.push((shard, stored));
            } else {
                let was_held = self.held().remove(&shard).is_some();
                if was_held && stored.is_held_by(&self.own) {
                    self.commit(stored.writes(shard, &Lease::ended(now), false))?;
                }
            }
        }
        // All at once, and one by one when somebody else came first to any of them.
        let takes = |(shard, stored): &(u8, StoredLease)| {
            // A fence that is not known here is not held, whatever the lease says.
            let is_known = self.held().get(shard).is_some_and(|held| held.fence == stored.fence);
            (stored.writes(*shard, &lease, !is_known), stored.fence + u64::from(!is_known))
        };
        let all: Vec<Write> = kept.iter().flat_map(|kept| takes(kept).0).collect();
        let has_all = self.commit(all)?;
        for kept in kept {
            let (writes, fence) = takes(&kept);
            if has_all || self.commit(writes)? {
                self.held().insert(kept.0, Held { fence, until });
            } else {
                self.held().remove(&kept.0);
            }
        }
        Ok(())
    }

    /// Gives everything back, so that others need not wait.
    pub(crate) fn release(&self, now: Timestamp) -> Result<(), StoreError> {
        let held: Vec<u8> = self.held().drain().map(|(shard, _)| shard).collect();
        self.storage.commit(Write::delete(MEMBERS, self.own.as_str()).into())?;
        for shard in held {
            let stored = self.stored(shard)?;
            if stored.is_held_by(&self.own) {
                self.commit(stored.writes(shard, &Lease::ended(now), false))?;
            }
        }
        Ok(())
    }

    fn stored(&self, shard: u8) -> Result<StoredLease, StoreError> {
        let record = self.storage.get(LEASES, &[shard])?;
        let fence = self.storage.get(FENCES, &[shard])?.map_or(0, |record| record.version);
        let lease = record.as_ref().and_then(|record| serde_json::from_slice(&record.value).ok());
        Ok(StoredLease { version: record.map(|record| record.version), lease, fence })
    }

    /// How many shards each live process has.
    fn part(&self, now: Timestamp) -> Result<usize, StoreError> {
        if self.is_alone {
            return Ok(SHARDS.into());
        }
        let members = self.storage.scan(MEMBERS, None, MAX_MEMBERS)?;
        let is_live = |record: &certseal_store::Record| {
            serde_json::from_slice::<Lease>(&record.value).is_ok_and(|lease| lease.until > now)
        };
        let live = members.iter().filter(|(_, record)| is_live(record)).count().max(1);
        for (key, _) in members.iter().filter(|(_, record)| !is_live(record)) {
            self.storage.commit(Write::delete(MEMBERS, key.clone()).into())?;
        }
        Ok(usize::from(SHARDS).div_ceil(live))
    }

    /// False when somebody else came first.
    fn commit(&self, writes: Vec<Write>) -> Result<bool, StoreError> {
        match self.storage.commit(writes.into()) {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u8, Held>> {
        // Held for single operations only, which leave no half-made state behind.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a site belongs.
fn shard(site: &DnsName) -> u8 {
    sha256(site.as_str().as_bytes()).0[0] % SHARDS
}

fn bytes(lease: &Lease) -> Vec<u8> {
    // Serialization fails for maps with other than text keys only; this has none.
    serde_json::to_vec(lease).expect("a lease serializes")
}

/// Between two renewals.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(5);

/// For how long others leave a shard alone; and, a little less, for how long its holder works. Clocks of different machines
/// may differ by the rest: the fence is what makes it safe, this only what makes it rare.
const LEASE_TIME: SignedDuration = SignedDuration::from_secs(20);
const LOCAL_TIME: Duration = Duration::from_secs(15);

/// Parts that the sites are divided into.
const SHARDS: u8 = 16;

/// Processes that are counted.
const MAX_MEMBERS: usize = 100;

const LEASES: Table = Table::new("leases");
/// One record for each shard, without a value: its version is the fence.
const FENCES: Table = Table::new("fences");
/// The processes that live.
const MEMBERS: Table = Table::new("members");

#[cfg(test)]
mod tests {
    use certseal_store::{SledOptions, SledStore, Transaction};

    use super::*;

    fn storage(dir: &tempfile::TempDir) -> Arc<dyn Storage> {
        Arc::new(SledStore::open(dir.path(), SledOptions::default()).unwrap())
    }

    fn names() -> Vec<DnsName> {
        (0..200).map(|n| format!("site-{n}.example").parse().unwrap()).collect()
    }

    fn count(leases: &Leases) -> usize {
        names().iter().filter(|name| leases.has(name)).count()
    }

    #[test]
    fn processes_share_the_sites_and_one_that_is_gone_leaves_its_part_to_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(&dir);
        let now = Timestamp::now();
        let [a, b] = [0, 1].map(|_| Leases::new(storage.clone(), false).unwrap());
        a.renew(now).unwrap();
        assert_eq!((count(&a), count(&b)), (200, 0));
        b.renew(now).unwrap();
        assert_eq!(count(&b), 0, "what is held is held");
        a.renew(now).unwrap();
        b.renew(now).unwrap();
        assert!(count(&a) > 0 && count(&b) > 0);
        assert!(names().iter().all(|name| a.has(name) != b.has(name)), "each site has one process");
        // `b` ends in order; then `a` is killed, and another one comes once its time is over.
        b.release(now).unwrap();
        a.renew(now).unwrap();
        assert_eq!((count(&a), count(&b)), (200, 0));
        let c = Leases::new(storage, false).unwrap();
        c.renew(now + SignedDuration::from_secs(1)).unwrap();
        assert_eq!(count(&c), 0);
        c.renew(now + SignedDuration::from_secs(30)).unwrap();
        assert_eq!(count(&c), 200);
    }

    #[test]
    fn a_process_that_was_frozen_writes_nothing_when_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(&dir);
        let (now, site) = (Timestamp::now(), names().remove(0));
        let frozen = Leases::new(storage.clone(), false).unwrap();
        frozen.renew(now).unwrap();
        let work = |leases: &Leases| {
            let write = Write::put(Table::new("work"), "x", 1, "x");
            storage.commit(Transaction::from(write).with(leases.fence(&site).unwrap()))
        };
        assert!(work(&frozen).is_ok(), "the control");
        let other = Leases::new(storage.clone(), false).unwrap();
        other.renew(now + SignedDuration::from_secs(30)).unwrap();
        // It was frozen after its look at the clock.
        assert!(frozen.has(&site) && other.has(&site));
        assert!(matches!(work(&frozen), Err(StoreError::Conflict { .. })));
        assert!(work(&other).is_ok());
        frozen.renew(now + SignedDuration::from_secs(30)).unwrap();
        assert!(!frozen.has(&site));
    }

    #[test]
    fn a_process_that_has_the_journal_alone_waits_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let storage = storage(&dir);
        Leases::new(storage.clone(), true).unwrap().renew(now).unwrap();
        let after_a_kill = Leases::new(storage, true).unwrap();
        after_a_kill.renew(now).unwrap();
        assert_eq!(count(&after_a_kill), 200);
    }
}
