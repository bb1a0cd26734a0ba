//! Room for new sites on demand, in the journal: several processes that share it take from the same buckets, and a process that
//! starts again finds them as they were.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use certseal_issuance::budget::Limit;
use certseal_store::{Expect, Storage, StoreError, Table, Write};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    config::OnDemand as OnDemandConfig,
    expiry::{forget_expired, seconds},
};

/// The buckets of the registered domains, and the one of all sites.
pub(super) struct Room {
    storage: Arc<dyn Storage>,
    per_domain: Limit,
    in_all: Limit,
    swept: Mutex<Option<Instant>>,
}

/// Why a site has to wait: from when on there is room for one of the domain, and for one at all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) of_domain: Option<Timestamp>,
    pub(super) of_all: Option<Timestamp>,
}

/// A bucket as it is stored (GCRA): the instant at which nothing that was taken from it is missing any more.
#[derive(Serialize, Deserialize)]
struct Row {
    at: Timestamp,
}

impl Room {
    /// # Errors
    /// When a limit is too large to be counted.
    pub(super) fn new(config: &OnDemandConfig, storage: Arc<dyn Storage>) -> anyhow::Result<Self> {
        let limit = |name: &str, count: u32| {
            let limit = Limit::new(count, count, SignedDuration::from_hours(1));
            limit.with_context(|| format!("expected at most {} for on_demand.{name}, got {count}", i32::MAX))
        };
        Ok(Self {
            storage,
            per_domain: limit("per_domain", config.per_domain.get())?,
            in_all: limit("in_all", config.in_all.get())?,
            swept: Mutex::default(),
        })
    }

    /// Takes room for a site of a registered domain, or says why there is none.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub(super) fn take(&self, domain: &str, now: Timestamp) -> anyhow::Result<Result<(), Full>> {
        self.sweep(now);
        let (of_domain, of_all) = (format!("domain\n{domain}").into_bytes(), b"all".to_vec());
        for race in 0..MAX_RACES {
            let (domain_row, all_row) = (self.read(&of_domain)?, self.read(&of_all)?);
            let at = |row: &Option<(u64, Timestamp)>| row.map(|(_, at)| at);
            let (domain_at, all_at) =
                match (self.per_domain.take(at(&domain_row), now), self.in_all.take(at(&all_row), now)) {
                    (Ok(domain_at), Ok(all_at)) => (domain_at, all_at),
                    (of_domain, of_all) => return Ok(Err(Full { of_domain: of_domain.err(), of_all: of_all.err() })),
                };
            let writes = vec![row(&of_domain, domain_row, domain_at)?, row(&of_all, all_row, all_at)?];
            match self.storage.commit(writes.into()) {
                Ok(_) => return Ok(Ok(())),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            // Two processes at the same row do not meet again and again.
            let random = u64::from(getrandom::u32().unwrap_or_default());
            std::thread::sleep(Duration::from_micros(random % (1_000 << race.min(6))));
        }
        bail!("others take room for sites on demand all the time")
    }

    fn read(&self, key: &[u8]) -> anyhow::Result<Option<(u64, Timestamp)>> {
        let Some(record) = self.storage.get(ROOM, key)? else { return Ok(None) };
        let Row { at } = serde_json::from_slice(&record.value).context("a bucket of sites on demand")?;
        Ok(Some((record.version, at)))
    }

    fn sweep(&self, now: Timestamp) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|swept| swept.elapsed() > SWEEP_EVERY) {
            *swept = Some(Instant::now());
            drop(swept);
            forget_expired(&*self.storage, ROOM, now);
        }
    }
}

/// The row of a bucket after something was taken, in place of the one that was read.
fn row(key: &[u8], before: Option<(u64, Timestamp)>, at: Timestamp) -> anyhow::Result<Write> {
    let (version, expect) = match before {
        Some((version, _)) => (version + 1, Expect::Version(version)),
        None => (1, Expect::Absent),
    };
    let write = Write::put(ROOM, key, version, serde_json::to_vec(&Row { at })?).expect(expect);
    Ok(write.expires_at(seconds(at).saturating_add(1)))
}

const ROOM: Table = Table::new("on_demand");
/// Others' sites that a take is made again for.
const MAX_RACES: usize = 20;
/// Between two looks for buckets that are full again.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use certseal_store::{SledOptions, SledStore};

    use super::*;

    fn now() -> Timestamp {
        "2026-11-01T00:00:00Z".parse().unwrap()
    }

    fn room(storage: &Arc<dyn Storage>) -> Room {
        let text = "upstream = \"http://127.0.0.1:1\"\npools = [\"eu\"]\npermit = []\nper_domain = 2\nin_all = 3";
        Room::new(&toml::from_str(text).unwrap(), storage.clone()).unwrap()
    }

    #[test]
    fn processes_that_share_a_journal_take_from_the_same_buckets() {
        let dir = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(SledStore::open(dir.path(), SledOptions::default()).unwrap());
        let (one, other) = (room(&storage), room(&storage));
        assert_eq!(one.take("a.example", now()).unwrap(), Ok(()));
        assert_eq!(other.take("a.example", now()).unwrap(), Ok(()));
        let half_an_hour = now() + SignedDuration::from_mins(30);
        let full = Full { of_domain: Some(half_an_hour), of_all: None };
        assert_eq!(one.take("a.example", now()).unwrap(), Err(full));
        assert_eq!(one.take("b.example", now()).unwrap(), Ok(()));
        let full = Full { of_domain: None, of_all: Some(now() + SignedDuration::from_mins(20)) };
        assert_eq!(other.take("c.example", now()).unwrap(), Err(full), "three in all");
        // A refusal takes nothing.
        assert_eq!(other.take("c.example", now() + SignedDuration::from_mins(20)).unwrap(), Ok(()));
        assert!(room(&storage).take("d.example", half_an_hour).unwrap().is_err(), "also after a start");
    }

    #[test]
    fn takes_at_one_time_are_counted_once_each_and_full_buckets_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(SledStore::open(dir.path(), SledOptions::default()).unwrap());
        let taken = std::thread::scope(|scope| {
            let takes: Vec<_> = (0..8)
                .map(|number| {
                    let room = room(&storage);
                    scope.spawn(move || room.take(&format!("{number}.example"), now()).unwrap().is_ok())
                })
                .collect();
            takes.into_iter().map(|take| take.join().unwrap()).filter(|taken| *taken).count()
        });
        assert_eq!(taken, 3);
        let later = now() + SignedDuration::from_hours(2);
        assert_eq!(room(&storage).take("z.example", later).unwrap(), Ok(()));
        assert_eq!(storage.scan(ROOM, None, 100).unwrap().len(), 2, "of all, and of the last domain");
    }
}
