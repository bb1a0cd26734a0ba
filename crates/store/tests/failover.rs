//! The primary is killed or stopped under load, and nothing that was acknowledged is lost.
//!
//! Three servers replicate with quorum-synchronous commits; another one takes over each time. `CERTSEAL_FAILOVER_KILLS`
//! says how often it is killed, once when it is not set; `CERTSEAL_FAILOVER_FREEZES` how often it is stopped with SIGSTOP
//! and goes on after it was replaced, never when it is not set.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use certseal_store::{
    AuditLink, Expect, PostgresOptions, PostgresStore, Storage, StoreError, Table, Transaction, Write,
};

use support::cluster::Cluster;

#[test]
fn failovers_lose_nothing_that_was_acknowledged() {
    let kills = env::var("CERTSEAL_FAILOVER_KILLS").map_or(1, |kills| kills.parse().unwrap());
    survived("kill", kills, |cluster, _| {
        let killed = cluster.kill_primary();
        cluster.wait_for_failover_and_rejoin(&killed);
    });
}

/// A primary that hangs breaks no connection, and when it goes on it still takes itself for the primary.
#[test]
fn a_primary_that_is_frozen_and_goes_on_loses_nothing_and_serves_nobody() {
    let freezes = env::var("CERTSEAL_FAILOVER_FREEZES").map_or(0, |freezes| freezes.parse().unwrap());
    survived("freeze", freezes, |cluster, notes| {
        let frozen = cluster.freeze_primary();
        cluster.wait_for_failover(&frozen.name);
        let (failed_over, before) = (Instant::now(), notes.0.lock().unwrap().writes.len());
        while notes.0.lock().unwrap().writes.len() < before + 100 {
            assert!(failed_over.elapsed() < Duration::from_secs(90), "no writes at the new primary");
            thread::sleep(Duration::from_millis(50));
        }
        println!("100 writes at the new primary {:.1} s after it led", failed_over.elapsed().as_secs_f64());
        cluster.thaw(frozen);
    });
}

/// Runs writers and a follower while the primary is interrupted so many times.
fn survived(what: &str, times: usize, interrupt: impl Fn(&mut Cluster, &Notes)) {
    if times == 0 {
        return;
    }
    let mut cluster = Cluster::start();
    let options = || PostgresOptions { give_up: Duration::from_secs(90), ..PostgresOptions::new(cluster.url()) };
    let stores = [options(), options()].map(|options| PostgresStore::open(options).unwrap());
    let reader = PostgresStore::open(options()).unwrap();
    let (notes, done) = (Notes::default(), AtomicBool::new(false));
    let mut interrupted_at = Vec::new();

    let seen = thread::scope(|scope| {
        let following = scope.spawn(|| follow(&reader, &done));
        let writing: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, notes, done) = (&stores[writer % 2], &notes, &done);
                scope.spawn(move || write(store, writer, notes, done))
            })
            .collect();
        // Ends the threads when a wait below panics.
        let stop = SetOnDrop(&done);
        thread::sleep(Duration::from_secs(3));
        for _ in 0..times {
            interrupted_at.push(Instant::now());
            interrupt(&mut cluster, &notes);
            thread::sleep(Duration::from_secs(3));
        }
        drop(stop);
        writing.into_iter().for_each(|writer| writer.join().unwrap());
        following.join().unwrap()
    });

    let notes = notes.0.into_inner().unwrap();
    for (time, at) in interrupted_at.iter().enumerate() {
        println!("{what} {}: {:.1} s without an acknowledged write", time + 1, notes.gap_after(*at).as_secs_f64());
    }
    println!("{what}: {times} times, {} writes acknowledged, {} of unknown outcome", notes.writes.len(), notes.unknown);
    check(&reader, &notes, &seen);
}

/// Everything that was acknowledged is there, once, and the follower has heard of it.
fn check(store: &PostgresStore, notes: &Acknowledged, seen: &BTreeMap<u64, String>) {
    let records = store.scan(TABLE, None, 10_000).unwrap();
    let versions: HashMap<String, u64> =
        records.iter().map(|(key, record)| (String::from_utf8(key.clone()).unwrap(), record.version)).collect();
    let mut audit = Vec::new();
    let mut link = AuditLink::START;
    loop {
        let page = store.audit(link.number, 1000).unwrap();
        if page.is_empty() {
            break;
        }
        for entry in page {
            link = link.next(&entry.body);
            assert_eq!(link, entry.link, "the audit log is no chain");
            audit.push(String::from_utf8(entry.body).unwrap());
        }
    }
    assert_eq!(store.audit_ends().unwrap().head, link);
    let mut times: HashMap<&str, u32> = HashMap::new();
    audit.iter().for_each(|entry| *times.entry(entry).or_default() += 1);
    assert!(times.values().all(|times| *times == 1), "a write took effect twice");

    let head = store.head().unwrap().seq;
    let mut sequences = HashMap::new();
    for (event, seq) in &notes.writes {
        let (key, version) = event.split_once(' ').unwrap();
        assert!(versions[key] >= version.parse().unwrap(), "{key} went back behind {version}");
        assert!(times.contains_key(event.as_str()), "{event} was acknowledged and is not in the audit log");
        assert!(*seq <= head);
        assert!(sequences.insert(seq, event).is_none(), "two writes have the sequence {seq}");
    }
    for (seq, event) in seen {
        assert!(sequences.get(seq).is_none_or(|acknowledged| *acknowledged == event), "{seq} has two contents");
    }

    let mut newest = HashMap::new();
    for event in seen.values() {
        let (key, version) = event.split_once(' ').unwrap();
        let earlier = newest.insert(key.to_owned(), version.parse().unwrap());
        assert!(earlier.is_none_or(|earlier: u64| earlier < newest[key]), "the feed went back");
    }
    assert_eq!(newest, versions, "the follower missed something");
    let feed = store.feed(0, 10_000).unwrap();
    assert_eq!(feed.len(), versions.len());
    assert!(feed.iter().all(|entry| seen[&entry.seq].as_bytes() == entry.event));
}

/// Each writer has keys of its own, so a conflict would be a write that was lost or happened twice.
fn write(store: &PostgresStore, writer: usize, notes: &Notes, done: &AtomicBool) {
    for n in 0u64.. {
        if done.load(Ordering::Acquire) {
            return;
        }
        let key = format!("{writer}-{}", n % KEYS);
        let version = store.get(TABLE, key.as_bytes()).unwrap().map_or(0, |record| record.version);
        let expect = if version == 0 { Expect::Absent } else { Expect::Version(version) };
        let event = format!("{key} {}", version + 1);
        let write = Write::put(TABLE, key, version + 1, vec![7; 1500]).expect(expect).event(event.as_str());
        match store.commit(Transaction::from(write).audited(event.as_str())) {
            Ok(position) => notes.acknowledged(event, position.seq),
            Err(StoreError::Unavailable { .. }) => notes.0.lock().unwrap().unknown += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every event of the feed in the order in which it was read.
fn follow(store: &PostgresStore, done: &AtomicBool) -> BTreeMap<u64, String> {
    let (mut cursor, mut seen, mut quiet) = (0, BTreeMap::new(), 0);
    // The writers end after `done` is set: until then pages may be empty for as long as their last write takes.
    while quiet < 20 {
        let page = store.feed(cursor, 50).unwrap();
        quiet = if page.is_empty() && done.load(Ordering::Acquire) { quiet + 1 } else { 0 };
        if page.is_empty() {
            thread::sleep(Duration::from_millis(50));
        }
        for entry in page {
            assert!(entry.seq > cursor, "the feed went back");
            cursor = entry.seq;
            seen.insert(entry.seq, String::from_utf8(entry.event).unwrap());
        }
    }
    seen
}

#[derive(Default)]
struct Notes(Mutex<Acknowledged>);

#[derive(Default)]
struct Acknowledged {
    writes: Vec<(String, u64)>,
    times: Vec<Instant>,
    unknown: usize,
}

impl Notes {
    fn acknowledged(&self, event: String, seq: u64) {
        let mut notes = self.0.lock().unwrap();
        notes.writes.push((event, seq));
        notes.times.push(Instant::now());
    }
}

impl Acknowledged {
    /// The longest time without an acknowledgement in the minute after this.
    fn gap_after(&self, at: Instant) -> Duration {
        let end = at + Duration::from_secs(60);
        let after = self.times.iter().filter(|time| **time >= at && **time < end);
        let times: Vec<_> = std::iter::once(&at).chain(after).collect();
        times.windows(2).map(|pair| *pair[1] - *pair[0]).max().unwrap_or_default()
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

const WRITERS: usize = 4;
const KEYS: u64 = 25;
const TABLE: Table = Table::new("t");
