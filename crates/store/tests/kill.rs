//! A store whose process is killed under load keeps every write that it acknowledged.
//!
//! The child is this test binary, started again; it notes each acknowledged write in a file, which the kill of a
//! process does not take back.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use certseal_store::{Expect, SledOptions, SledStore, Storage, Table, Transaction, Write};

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let notes = directory.path().join("notes");
    let mut noted_before = 0;
    for round in 0..ROUNDS {
        let mut child = KilledOnDrop(start_child(directory.path()));
        wait_until_noted(&notes, noted_before + 40);
        thread::sleep(Duration::from_millis(31 * round));
        child.0.kill().unwrap();
        child.0.wait().unwrap();

        let acknowledged = fs::read_to_string(&notes).unwrap();
        noted_before = acknowledged.lines().count();
        check(directory.path(), &acknowledged);
    }
}

/// The child's side; does nothing unless it was started as one.
#[test]
fn child_writes_until_it_is_killed() {
    let Ok(directory) = env::var(CHILD) else { return };
    let directory = Path::new(&directory);
    let store = open(directory);
    let notes = Mutex::new(File::options().append(true).create(true).open(directory.join("notes")).unwrap());
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, notes) = (&store, &notes);
            scope.spawn(move || {
                for n in 0u64.. {
                    let key = format!("{writer}-{}", n % KEYS);
                    let version = store.get(LEFT, key.as_bytes()).unwrap().map_or(0, |record| record.version);
                    let expect = if version == 0 { Expect::Absent } else { Expect::Version(version) };
                    let next = version + 1;
                    let event = format!("{key} {next}");
                    let both = Transaction::from(Write::put(LEFT, key.as_str(), next, value(next)).expect(expect))
                        .with(Write::put(RIGHT, key.as_str(), next, value(next)).event(event.as_str()));
                    let position = store.commit(both).unwrap();
                    // In one system call, so that the kill cannot cut a line short.
                    let note = format!("{event} {}\n", position.seq);
                    notes.lock().unwrap().write_all(note.as_bytes()).unwrap();
                }
            });
        }
    });
}

fn check(directory: &Path, acknowledged: &str) {
    let store = open(directory);
    let left = store.scan(LEFT, None, 10_000).unwrap();
    assert_eq!(left, store.scan(RIGHT, None, 10_000).unwrap(), "half a transaction");
    let versions: BTreeMap<String, u64> =
        left.iter().map(|(key, record)| (String::from_utf8(key.clone()).unwrap(), record.version)).collect();
    assert!(left.iter().all(|(_, record)| record.value == value(record.version)));

    let head = store.head().unwrap().seq;
    for line in acknowledged.lines() {
        let [key, version, seq] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        assert!(versions[key] >= version.parse().unwrap(), "{key} went back behind {version}");
        assert!(head >= seq.parse().unwrap());
    }

    let feed = store.feed(0, 10_000).unwrap();
    assert!(feed.is_sorted_by(|a, b| a.seq < b.seq) && feed.iter().all(|entry| entry.seq <= head));
    let announced: BTreeMap<String, u64> = feed
        .iter()
        .map(|entry| {
            let (key, version) = std::str::from_utf8(&entry.event).unwrap().split_once(' ').unwrap();
            (key.to_owned(), version.parse().unwrap())
        })
        .collect();
    assert_eq!(announced.len(), feed.len(), "two events of one key");
    assert_eq!(announced, versions);
}

fn start_child(directory: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn wait_until_noted(notes: &Path, lines: usize) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while fs::read_to_string(notes).is_ok_and(|text| text.lines().count() < lines) || !notes.exists() {
        assert!(Instant::now() < give_up, "the child writes nothing");
        thread::sleep(Duration::from_millis(5));
    }
}

fn open(directory: &Path) -> SledStore {
    SledStore::open(&directory.join("store"), SledOptions::default()).unwrap()
}

/// Long enough now and then to be stored in parts.
fn value(version: u64) -> Vec<u8> {
    let length = if version.is_multiple_of(7) { 90_000 } else { 1_500 };
    vec![version as u8; length]
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CHILD: &str = "CERTSEAL_STORE_KILLED_CHILD";
const ROUNDS: u64 = 5;
const WRITERS: usize = 4;
const KEYS: u64 = 40;
const LEFT: Table = Table::new("left");
const RIGHT: Table = Table::new("right");
