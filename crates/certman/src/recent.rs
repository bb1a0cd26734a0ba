//! The changes that certstore acknowledged lately, which a checkpoint lists.

use std::collections::{HashSet, VecDeque};

use certseal_wire::{Change, Checkpoint, Kind, PoolName};
use jiff::{SignedDuration, Timestamp};

use crate::journal::StoredChange;

/// The changes that certstore acknowledged lately, in the order in which it did. Pure: the clock is passed in.
#[derive(Debug)]
pub(crate) struct RecentChanges {
    entries: VecDeque<RecentChange>,
    /// Changes acknowledged after this instant are in `entries`.
    complete_since: Timestamp,
}

#[derive(Debug)]
struct RecentChange {
    at: Timestamp,
    pool: PoolName,
    change: Change,
}

impl RecentChanges {
    /// These changes, the oldest first. Some of those acknowledged before `complete_since` may be missing.
    pub(crate) fn of(changes: &[StoredChange], complete_since: Timestamp) -> Self {
        let mut recent = Self::new(complete_since);
        for StoredChange { at, pools, change } in changes {
            recent.record(change, pools.iter(), *at);
        }
        recent
    }

    /// Nothing yet. Changes acknowledged before `start` are not known.
    pub(crate) fn new(start: Timestamp) -> Self {
        Self { entries: VecDeque::new(), complete_since: start }
    }

    /// Remembers that certstore has `change`, which edges of `pools` can see.
    pub(crate) fn record<'a>(&mut self, change: &Change, pools: impl Iterator<Item = &'a PoolName>, now: Timestamp) {
        self.entries.extend(pools.map(|pool| RecentChange { at: now, pool: pool.clone(), change: change.clone() }));
        self.forget(now);
    }

    /// The next checkpoint of `pool`: as many of its newest changes as fit, and version `ring` of the key ring.
    pub(crate) fn checkpoint(&mut self, pool: &PoolName, version: u64, ring: u64, now: Timestamp) -> Checkpoint {
        self.forget(now);
        let ring = Change { kind: Kind::Ring, name: String::new(), version: ring };
        let (mut octets, mut listed) = (octets(&ring), HashSet::new());
        let (mut changes, mut complete_since) = (vec![ring], self.complete_since);
        for RecentChange { at, change, .. } in self.entries.iter().rev().filter(|entry| entry.pool == *pool) {
            // The newest comes first, and is the one that counts.
            if !listed.insert((change.kind, change.name.as_str())) {
                continue;
            }
            octets += self::octets(change);
            if octets > Checkpoint::MAX_CHANGES_OCTETS {
                complete_since = *at;
                break;
            }
            changes.push(change.clone());
        }
        Checkpoint { pool: pool.clone(), version, issued_at: now, complete_since, changes }
    }

    fn forget(&mut self, now: Timestamp) {
        let is_old = |entry: &RecentChange| now.duration_since(entry.at) > WINDOW;
        while self.entries.len() > MAX_ENTRIES || self.entries.front().is_some_and(is_old) {
            let Some(RecentChange { at, .. }) = self.entries.pop_front() else { return };
            self.complete_since = self.complete_since.max(at);
        }
    }
}

/// The octets of a change in the list of a checkpoint, with the comma after it.
fn octets(change: &Change) -> usize {
    // Serialization fails for maps with other than text keys only; this has none.
    serde_json::to_vec(change).expect("a change serializes").len() + 1
}

/// How long a change is listed: an edge that was away for less misses nothing.
pub(crate) const WINDOW: SignedDuration = SignedDuration::from_mins(15);

/// The most changes that are remembered, of all pools together: a few megabytes.
const MAX_ENTRIES: usize = 20_000;

#[cfg(test)]
mod tests {
    use certseal_seal::{Bundle, SigningKey};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn pool(name: &str) -> PoolName {
        name.parse().unwrap()
    }

    fn route(name: &str, version: u64) -> Change {
        Change { kind: Kind::Route, name: name.to_owned(), version }
    }

    /// The listed changes, without that of the ring.
    fn listed(changes: &mut RecentChanges, name: &str, now: Timestamp) -> (Vec<Change>, Timestamp) {
        let checkpoint = changes.checkpoint(&pool(name), 1, 7, now);
        assert_eq!(checkpoint.issued_at, now);
        assert_eq!(checkpoint.changes[0], Change { kind: Kind::Ring, name: String::new(), version: 7 });
        (checkpoint.changes[1..].to_vec(), checkpoint.complete_since)
    }

    #[test]
    fn a_checkpoint_lists_the_newest_version_of_each_change_of_its_pool() {
        let mut changes = RecentChanges::new(at(0));
        let bundle = Change { kind: Kind::Bundle, ..route("a.example", 4) };
        changes.record(&route("a.example", 1), [pool("eu"), pool("us")].iter(), at(1));
        changes.record(&route("a.example", 2), [pool("eu")].iter(), at(2));
        changes.record(&bundle, [pool("eu")].iter(), at(3));
        assert_eq!(listed(&mut changes, "eu", at(4)), (vec![bundle, route("a.example", 2)], at(0)));
        assert_eq!(listed(&mut changes, "us", at(4)), (vec![route("a.example", 1)], at(0)));
        assert_eq!(listed(&mut changes, "ap", at(4)), (vec![], at(0)));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten_and_the_checkpoint_says_so() {
        let mut changes = RecentChanges::new(at(0));
        let window = WINDOW.as_secs();
        changes.record(&route("a.example", 1), [pool("eu")].iter(), at(1));
        changes.record(&route("b.example", 1), [pool("eu")].iter(), at(9));
        assert_eq!(listed(&mut changes, "eu", at(window + 1)).0.len(), 2);
        assert_eq!(listed(&mut changes, "eu", at(window + 2)), (vec![route("b.example", 1)], at(1)));
        assert_eq!(listed(&mut changes, "eu", at(window + 10)), (vec![], at(9)));
    }

    #[test]
    fn a_checkpoint_never_grows_beyond_what_certstore_takes() {
        let mut changes = RecentChanges::new(at(0));
        for second in 1..=3000 {
            let name = format!("{second:>0253}");
            changes.record(&route(&name, u64::MAX), [pool("eu")].iter(), at(second % 800));
        }
        let checkpoint = changes.checkpoint(&pool("eu"), u64::MAX, u64::MAX, at(800));
        let signed = SigningKey::generate().unwrap().sign(&checkpoint);
        let octets = serde_json::to_vec(&signed).unwrap().len();
        assert!((100 * 1024..=Bundle::MAX).contains(&octets), "{octets} octets, {} changes", checkpoint.changes.len());
        // The newest that did not fit is where the list begins to be complete.
        let newest_left_out = 3000 - (checkpoint.changes.len() as i64 - 1);
        assert_eq!(checkpoint.complete_since, at(newest_left_out % 800));
    }

    #[test]
    fn memory_is_bounded_whatever_pools_there_are() {
        let mut changes = RecentChanges::new(at(0));
        for number in 0..MAX_ENTRIES as i64 + 5 {
            changes.record(&route("a.example", 1), [pool(&format!("p{number}"))].iter(), at(number / 100));
        }
        assert_eq!(changes.entries.len(), MAX_ENTRIES);
        assert_eq!(listed(&mut changes, "p0", at(300)), (vec![], at(0)));
        assert_eq!(listed(&mut changes, "p5", at(300)).0.len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut changes = RecentChanges::new(at(5000));
        changes.record(&route("a.example", 1), [pool("eu")].iter(), at(5001));
        assert_eq!(listed(&mut changes, "eu", at(10)), (vec![route("a.example", 1)], at(5000)));
    }
}
