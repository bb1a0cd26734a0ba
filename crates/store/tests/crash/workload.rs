//! The writer that crashes, and the look at what it leaves behind.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use certseal_store::{AuditLink, Expect, SledOptions, SledStore, Storage, StoreError, Table, Transaction, Write};

/// A writer in a process of its own, killed on drop.
pub(crate) struct Writer(Child);

impl Writer {
    /// Starts to write into the store in `store`, and to note in `notes` what was acknowledged.
    pub(crate) fn start(store: &Path, notes: &Path) -> Self {
        Self(command(store, notes, false).spawn().unwrap())
    }

    /// Like `start`, with an engine of the same kind that is flushed, but never synced: the control.
    pub(crate) fn start_unsynced(store: &Path, notes: &Path) -> Self {
        Self(command(store, notes, true).spawn().unwrap())
    }

    /// Like `start`, under a program that runs it, such as strace.
    pub(crate) fn start_under(program: &str, args: &[&str], store: &Path, notes: &Path) -> Self {
        let inner = command(store, notes, false);
        let mut outer = Command::new(program);
        outer.args(args).arg(inner.get_program()).args(inner.get_args());
        outer.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        Self(outer.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(&mut self) {
        let give_up = Instant::now() + Duration::from_secs(60);
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < give_up, "the writer goes on although its store cannot");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `count` more changes are acknowledged than `before` says.
    pub(crate) fn progress(&mut self, notes: &Path, before: usize, count: usize) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while noted(notes).lines().count() < before + count {
            if let Some(status) = self.0.try_wait().unwrap() {
                panic!("the writer ended early: {status}");
            }
            assert!(Instant::now() < give_up, "the writer writes nothing");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(store: &Path, notes: &Path, unsynced: bool) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "workload::writes_until_it_is_stopped", "--nocapture"])
        .env(STORE, store)
        .env(NOTES, notes)
        .env(UNSYNCED, if unsynced { "1" } else { "" })
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The writer's side; does nothing unless it was started as one.
#[test]
fn writes_until_it_is_stopped() {
    let Some(store) = env::var_os(STORE) else { return };
    let notes = File::options().append(true).create(true).open(env::var_os(NOTES).unwrap()).unwrap();
    if env::var_os(UNSYNCED).as_deref() == Some(OsStr::new("1")) {
        write_unsynced(Path::new(&store), &notes)
    } else {
        write(Path::new(&store), notes)
    }
}

/// Four threads, each of which changes two tables, the feed and the audit log in every transaction.
fn write(directory: &Path, notes: File) {
    let Ok(store) = open(directory) else { return };
    let notes = Mutex::new(notes);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, notes) = (&store, &notes);
            scope.spawn(move || {
                for n in 0u64.. {
                    let key = format!("{writer}-{}", n % KEYS);
                    let Ok(record) = store.get(LEFT, key.as_bytes()) else { return };
                    let version = record.map_or(0, |record| record.version);
                    let expect = if version == 0 { Expect::Absent } else { Expect::Version(version) };
                    let next = version + 1;
                    let event = format!("{key} {next}");
                    let both = Transaction::from(Write::put(LEFT, key.as_str(), next, value(next)).expect(expect))
                        .with(Write::put(RIGHT, key.as_str(), next, value(next)).event(event.as_str()))
                        .audited(event.as_str());
                    // A store that cannot write ends the writer.
                    let Ok(position) = store.commit(both) else { return };
                    // In one system call, so that a kill cannot cut a line short.
                    let note = format!("{event} {}\n", position.seq);
                    notes.lock().unwrap().write_all(note.as_bytes()).unwrap();
                }
            });
        }
    });
}

/// The engine alone, as its documentation says that it is made durable.
fn write_unsynced(directory: &Path, mut notes: &File) {
    let database = sled::open(directory).unwrap();
    for n in 0u64.. {
        let (key, next) = (format!("0-{}", n % KEYS), n / KEYS + 1);
        database.insert(&key, next.to_be_bytes().repeat(190)).unwrap();
        database.flush().unwrap();
        notes.write_all(format!("{key} {next} {n}\n").as_bytes()).unwrap();
    }
}

/// How many of the changes that the control noted are lost; all when its database does not open.
pub(crate) fn lost_by_control(directory: &Path, noted: &str) -> usize {
    let Ok(database) = sled::open(directory) else { return noted.lines().count() };
    let is_lost = |key: &str, version: u64| {
        let found = database.get(key).ok().flatten();
        found.and_then(|value| Some(u64::from_be_bytes(value.get(..8)?.try_into().ok()?))).is_none_or(|at| at < version)
    };
    newest(noted).iter().filter(|(key, (version, _))| is_lost(key, *version)).count()
}

pub(crate) fn noted(notes: &Path) -> String {
    fs::read_to_string(notes).unwrap_or_default()
}

/// Opens the store and looks whether all that was noted is there, and nothing by half.
pub(crate) fn check(directory: &Path, noted: &str) {
    check_store(&open(directory).unwrap(), noted);
}

pub(crate) fn check_store(store: &SledStore, noted: &str) {
    let left = store.scan(LEFT, None, 10_000).unwrap();
    assert_eq!(left, store.scan(RIGHT, None, 10_000).unwrap(), "half a transaction");
    let versions: BTreeMap<String, u64> =
        left.iter().map(|(key, record)| (String::from_utf8(key.clone()).unwrap(), record.version)).collect();
    assert!(left.iter().all(|(_, record)| record.value == value(record.version)));

    let head = store.head().unwrap().seq;
    for (key, (version, seq)) in newest(noted) {
        let found = versions.get(key).copied().unwrap_or(0);
        assert!(found >= version, "{key} is at {found}, and {version} was acknowledged");
        assert!(head >= seq);
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

    // The audit log has an entry for every version of every key, and is one chain up to its head.
    let mut link = AuditLink::START;
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        let entries = store.audit(link.number, 1000).unwrap();
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            link = link.next(&entry.body);
            assert_eq!(entry.link, link, "the chain is broken");
            let (key, version) = std::str::from_utf8(&entry.body).unwrap().split_once(' ').unwrap();
            let before = told.insert(key.to_owned(), version.parse().unwrap()).unwrap_or(0);
            assert_eq!(version.parse::<u64>().unwrap(), before + 1, "an entry of {key} is missing or there twice");
        }
    }
    assert_eq!(store.audit_ends().unwrap().head, link);
    assert_eq!(told, versions);
}

/// The highest version of each key that was noted, and its sequence.
fn newest(noted: &str) -> BTreeMap<&str, (u64, u64)> {
    let mut newest = BTreeMap::new();
    for line in noted.lines() {
        let [key, version, seq] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let (version, seq) = (version.parse().unwrap(), seq.parse().unwrap());
        let known: &mut (u64, u64) = newest.entry(key).or_default();
        *known = (*known).max((version, seq));
    }
    newest
}

pub(crate) fn open(directory: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(directory, SledOptions { reserve_bytes: 0, ..SledOptions::default() })
}

/// A directory for the store, and a file for notes, in a scratch directory.
pub(crate) fn places(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("store"), directory.join("notes"))
}

/// Long enough now and then to be stored in parts.
fn value(version: u64) -> Vec<u8> {
    let length = if version.is_multiple_of(7) { 90_000 } else { 1_500 };
    vec![version as u8; length]
}

const STORE: &str = "CERTSEAL_STORE_CRASHING";
const NOTES: &str = "CERTSEAL_STORE_NOTES";
const UNSYNCED: &str = "CERTSEAL_STORE_UNSYNCED";
const WRITERS: usize = 4;
const KEYS: u64 = 40;
const LEFT: Table = Table::new("left");
const RIGHT: Table = Table::new("right");
