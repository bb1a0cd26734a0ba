//! The division of sites among processes: shards that a process leases.
//!
//! Several processes share one journal. A process works on a site only while it holds the lease of the site's shard, and every
//! write of such work has the lease's guard. A process that was frozen and goes on, certain that it still holds what others
//! took meanwhile, writes nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use certseal_seal::sha256;
use certseal_store::{Lease, Storage, StoreError, Table, Write};
use certseal_wire::DnsName;
use jiff::Timestamp;

/// The shards that this process holds.
pub(crate) struct Leases {
    storage: Arc<dyn Storage>,
    own: String,
    /// No other process can have the journal open: leases in it are left over from an earlier run.
    is_alone: bool,
    held: Mutex<HashMap<u8, Held>>,
}

#[derive(Clone)]
struct Held {
    lease: Lease,
    /// By a clock that nobody sets.
    until: Instant,
}

impl Leases {
    pub(crate) fn new(storage: Arc<dyn Storage>, is_alone: bool) -> Result<Self, getrandom::Error> {
        let mut own = [0; 8];
        getrandom::fill(&mut own)?;
        // A process that is alone takes over from itself.
        let own = if is_alone { "the only one".to_owned() } else { format!("{:016x}", u64::from_be_bytes(own)) };
        Ok(Self { storage, own, is_alone, held: Mutex::default() })
    }

    /// Whether no other process can have the journal open.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Whether this process works on the site.
    pub(crate) fn has(&self, site: &DnsName) -> bool {
        self.held().get(&shard(site)).is_some_and(|held| held.until > Instant::now())
    }

    /// Whether this process does what one of all of them has to do.
    pub(crate) fn leads(&self) -> bool {
        self.held().get(&LEADER).is_some_and(|held| held.until > Instant::now())
    }

    /// The guard that a write of work on the site requires; none when the site's shard is not held.
    pub(crate) fn guard(&self, site: &DnsName) -> Option<Write> {
        let held = self.held();
        let held = held.get(&shard(site)).filter(|held| held.until > Instant::now())?;
        Some(held.lease.guard())
    }

    /// Keeps what is held, and takes or gives back shards until each live process has its part of them.
    ///
    /// # Errors
    /// Of the storage. Leases that were held are kept until their time is over.
    pub(crate) fn renew(&self, now: Timestamp) -> Result<(), StoreError> {
        // From before the request: the lease ends here before it ends for others.
        let until = Instant::now() + LOCAL_TIME;
        if self.is_alone && self.held().len() == usize::from(SHARDS) {
            // Nobody else looks.
            self.held().values_mut().for_each(|held| held.until = until);
            return Ok(());
        }
        let (part, now) = (self.part(now)?, seconds(now));
        for shard in 0..SHARDS {
            let held = self.held().get(&shard).map(|held| held.lease.clone());
            let others = self.held().keys().filter(|other| **other != shard).count();
            let lease = match held {
                Some(lease) if others < part => lease.renew(&*self.storage, LEASE_SECONDS, now)?,
                Some(lease) => {
                    // Before others may have it.
                    self.held().remove(&shard);
                    lease.release(&*self.storage)?;
                    None
                }
                None if others < part => Lease::acquire(&*self.storage, &name(shard), &self.own, LEASE_SECONDS, now)?,
                None => None,
            };
            match lease {
                Some(lease) => self.held().insert(shard, Held { lease, until }),
                None => self.held().remove(&shard),
            };
        }
        Ok(())
    }

    /// Gives everything back, so that others need not wait.
    ///
    /// # Errors
    /// Of the storage. Leases that are not given back then are others' when their time is over.
    pub(crate) fn release(&self) -> Result<(), StoreError> {
        let held: Vec<Lease> = self.held().drain().map(|(_, held)| held.lease).collect();
        self.storage.commit(Write::delete(MEMBERS, self.own.as_str()).into())?;
        held.into_iter().try_for_each(|lease| lease.release(&*self.storage))
    }

    /// How many shards each live process has, after a note that this one lives.
    fn part(&self, now: Timestamp) -> Result<usize, StoreError> {
        if self.is_alone {
            return Ok(SHARDS.into());
        }
        let alive = Write::put(MEMBERS, self.own.as_str(), 1, "").expires_at(seconds(now) + LEASE_SECONDS);
        self.storage.commit(alive.into())?;
        for (gone, _) in self.storage.expired(MEMBERS, seconds(now), MAX_MEMBERS)? {
            self.storage.commit(Write::delete(MEMBERS, gone).into())?;
        }
        let live = self.storage.scan(MEMBERS, None, MAX_MEMBERS)?.len().max(1);
        Ok(usize::from(SHARDS).div_ceil(live))
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

fn name(shard: u8) -> String {
    format!("sites {shard}")
}

fn seconds(instant: Timestamp) -> u64 {
    instant.as_second().try_into().unwrap_or(0)
}

/// Between two renewals.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(5);

/// For how long others leave a shard alone; and, a little less, for how long its holder works. Clocks of different machines
/// may differ by the rest: the guard is what makes it safe, this only what makes it rare.
const LEASE_SECONDS: u64 = 20;
const LOCAL_TIME: Duration = Duration::from_secs(15);

/// Parts that the sites are divided into.
const SHARDS: u8 = 16;

/// The shard whose holder leads.
const LEADER: u8 = 0;

/// Processes that are counted.
const MAX_MEMBERS: usize = 100;

/// The processes that live.
const MEMBERS: Table = Table::new("members");

#[cfg(test)]
mod tests {
    use certseal_store::{SledOptions, SledStore, Transaction};
    use jiff::SignedDuration;

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
        b.release().unwrap();
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
            storage.commit(Transaction::from(write).with(leases.guard(&site).unwrap()))
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
