//! The promises of the storage contract, one test each.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use certseal_store::{
    Expect, LEASES, Lease, MAX_KEY_BYTES, MAX_TRANSACTION_WRITES, SledOptions, SledStore, Storage, StoreError, Table,
    Transaction, Write,
};

mod support;

use support::{Backend, PostgresBackend, SledBackend};

/// Each promise is a test with every backend.
macro_rules! on_every_backend {
    ($($promise:ident,)*) => {
        mod sled {
            $(#[test] fn $promise() { super::$promise(&super::SledBackend::scratch()) })*
        }
        mod postgres {
            $(#[test] fn $promise() { super::$promise(&super::PostgresBackend::scratch()) })*
        }
    };
}

on_every_backend! {
    a_write_applies_only_to_the_version_it_expects,
    of_many_rivals_one_wins_each_version,
    a_conflict_in_one_write_undoes_its_whole_transaction_and_no_other,
    the_feed_holds_the_newest_event_of_each_key_in_order,
    a_follower_of_the_feed_misses_nothing,
    lists_are_bounded_ordered_and_keep_to_their_table,
    what_was_acknowledged_is_there_after_reopening,
    what_is_too_large_is_refused,
    an_audit_entry_is_there_exactly_when_its_transaction_is,
    a_required_record_guards_a_transaction,
    what_is_purged_raises_the_floor_of_the_feed,
    a_lease_has_one_holder_and_a_late_write_under_a_lost_one_is_refused,
    of_many_that_want_a_lease_one_gets_it,
}

fn a_write_applies_only_to_the_version_it_expects(backend: &dyn Backend) {
    let store = backend.open();
    let put = |version, expect| store.commit(Write::put(SITES, "a", version, "v").expect(expect).into());
    let found = |result: Result<_, StoreError>| match result {
        Err(StoreError::Conflict { table: SITES, key, found, .. }) if key == b"a" => found,
        other => panic!("expected a conflict, got {other:?}"),
    };

    assert_eq!(found(put(1, Expect::Version(1))), None);
    put(1, Expect::Absent).unwrap();
    assert_eq!(found(put(2, Expect::Absent)), Some(1));
    assert_eq!(found(put(2, Expect::Version(7))), Some(1));
    put(2, Expect::Version(1)).unwrap();
    put(9, Expect::Any).unwrap();
    assert_eq!(store.get(SITES, b"a").unwrap().unwrap().version, 9);

    assert_eq!(found(store.commit(Write::delete(SITES, "a").expect(Expect::Version(2)).into())), Some(9));
    store.commit(Write::delete(SITES, "a").expect(Expect::Version(9)).into()).unwrap();
    assert_eq!(store.get(SITES, b"a").unwrap(), None);
    put(1, Expect::Absent).unwrap();
}

fn of_many_rivals_one_wins_each_version(backend: &dyn Backend) {
    let store = backend.open();
    store.commit(Write::put(SITES, "counter", 0, "").into()).unwrap();
    let increments = 25;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut done = 0;
                while done < increments {
                    let version = store.get(SITES, b"counter").unwrap().unwrap().version;
                    let next = Write::put(SITES, "counter", version + 1, "").expect(Expect::Version(version));
                    match store.commit(next.into()) {
                        Ok(_) => done += 1,
                        Err(StoreError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(store.get(SITES, b"counter").unwrap().unwrap().version, 4 * increments);
}

fn a_conflict_in_one_write_undoes_its_whole_transaction_and_no_other(backend: &dyn Backend) {
    let store = backend.open();
    store.commit(Write::put(SITES, "b", 1, "old").event("old").into()).unwrap();
    let before = store.head().unwrap();
    let torn = Transaction::from(Write::put(SITES, "a", 1, vec![0; 100_000]).expires_at(1).event("a"))
        .with(Write::put(SITES, "b", 2, "new").event("new"))
        .with(Write::delete(SITES, "c").expect(Expect::Version(1)).event("c"));
    assert!(matches!(store.commit(torn), Err(StoreError::Conflict { found: None, .. })));

    assert_eq!(store.get(SITES, b"a").unwrap(), None);
    assert_eq!(store.get(SITES, b"b").unwrap().unwrap().value, b"old");
    assert_eq!(store.expired(SITES, u64::MAX, 10).unwrap(), []);
    assert_eq!(events(&*store, 0), ["old"]);
    assert_eq!(store.head().unwrap(), before);

    let in_order = Transaction::from(Write::put(SITES, "d", 1, "first").expect(Expect::Absent))
        .with(Write::put(SITES, "d", 2, "second").expect(Expect::Version(1)));
    store.commit(in_order).unwrap();
    assert_eq!(store.get(SITES, b"d").unwrap().unwrap().value, b"second");
}

fn the_feed_holds_the_newest_event_of_each_key_in_order(backend: &dyn Backend) {
    let store = backend.open();
    let put = |table, key, event: &str| store.commit(Write::put(table, key, 1, "v").event(event).into()).unwrap();
    put(SITES, "a", "a1");
    let cursor = put(SITES, "b", "b1").seq;
    put(ROUTES, "a", "route a1");
    store.commit(Write::put(SITES, "silent", 1, "v").into()).unwrap();
    put(SITES, "a", "a2");
    store.commit(Write::delete(SITES, "b").event("b gone").into()).unwrap();

    assert_eq!(events(&*store, 0), ["route a1", "a2", "b gone"]);
    assert_eq!(events(&*store, cursor), ["route a1", "a2", "b gone"]);
    let first = store.feed(0, 1).unwrap().remove(0);
    assert_eq!(events(&*store, first.seq), ["a2", "b gone"]);
    assert_eq!(store.feed(store.head().unwrap().seq, 10).unwrap(), []);
    assert_eq!(store.feed(u64::MAX, 10).unwrap(), []);
}

fn a_follower_of_the_feed_misses_nothing(backend: &dyn Backend) {
    let store = backend.open();
    let (writers, keys, rounds) = (3, 4, 60);
    let finished = AtomicBool::new(false);
    let mut seen = HashMap::new();
    thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let (mut cursor, mut seen) = (0, HashMap::new());
            loop {
                let last_round = finished.load(Ordering::Acquire);
                let page = store.feed(cursor, 3).unwrap();
                if page.is_empty() && last_round {
                    return seen;
                }
                for entry in page {
                    assert!(entry.seq > cursor);
                    cursor = entry.seq;
                    let event = String::from_utf8(entry.event).unwrap();
                    let (key, version) = event.split_once(' ').unwrap();
                    let version: u64 = version.parse().unwrap();
                    let earlier = seen.insert(key.to_owned(), version);
                    assert!(earlier.is_none_or(|earlier| earlier < version));
                }
            }
        });
        let writing: Vec<_> = (0..writers)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    for round in 1..=rounds {
                        let key = format!("{writer}-{}", round % keys);
                        let event = format!("{key} {round}");
                        store.commit(Write::put(SITES, key, round, "v").event(event).into()).unwrap();
                    }
                })
            })
            .collect();
        writing.into_iter().for_each(|writer| writer.join().unwrap());
        finished.store(true, Ordering::Release);
        seen = follower.join().unwrap();
    });
    let stored = store.scan(SITES, None, 100).unwrap();
    assert_eq!(stored.len() as u64, writers * keys);
    for (key, record) in stored {
        assert_eq!(seen[std::str::from_utf8(&key).unwrap()], record.version);
    }
}

fn lists_are_bounded_ordered_and_keep_to_their_table(backend: &dyn Backend) {
    let store = backend.open();
    for (key, expires_at) in [("aa", 30), ("ab", 10), ("b", 20)] {
        store.commit(Write::put(SITES, key, 1, key).expires_at(expires_at).into()).unwrap();
        store.commit(Write::put(ROUTES, key, 1, key).into()).unwrap();
    }
    store.commit(Write::put(SITES, "b", 2, "b").expires_at(25).into()).unwrap();
    let keys = |listed: Vec<(Vec<u8>, _)>| -> Vec<String> {
        listed.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
    };
    assert_eq!(keys(store.scan(SITES, None, 10).unwrap()), ["aa", "ab", "b"]);
    assert_eq!(keys(store.scan(SITES, Some(b"aa"), 1).unwrap()), ["ab"]);
    assert_eq!(keys(store.scan_prefix(SITES, b"a", 10).unwrap()), ["aa", "ab"]);
    assert_eq!(keys(store.scan_prefix(SITES, b"", 10).unwrap()), ["aa", "ab", "b"]);
    assert_eq!(keys(store.expired(SITES, 20, 10).unwrap()), ["ab"]);
    assert_eq!(keys(store.expired(SITES, u64::MAX, 2).unwrap()), ["ab", "b"]);
    assert_eq!(keys(store.expired(ROUTES, u64::MAX, 10).unwrap()), [""; 0]);
    assert_eq!(store.scan(SITES, None, 0).unwrap(), []);
}

fn what_was_acknowledged_is_there_after_reopening(backend: &dyn Backend) {
    let store = backend.open();
    let long: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    store.commit(Write::put(SITES, "long", 1, long.clone()).event("long").into()).unwrap();
    let head = store.commit(Write::put(SITES, "short", 1, "v").expires_at(9).event("short").into()).unwrap();
    drop(store);

    let store = backend.open();
    assert_eq!(store.head().unwrap(), head);
    assert_eq!(store.get(SITES, b"long").unwrap().unwrap().value, long);
    assert_eq!(store.get(SITES, b"short").unwrap().unwrap().expires_at, Some(9));
    assert_eq!(events(&*store, 0), ["long", "short"]);
    let next = store.commit(Write::delete(SITES, "long").into()).unwrap();
    assert_eq!((next.epoch, next.seq), (head.epoch, head.seq + 1));
}

#[test]
fn a_database_behind_its_high_water_file_is_refused_until_it_is_declared_restored() {
    let (directory, store) = scratch();
    let copied = store.commit(Write::put(SITES, "a", 1, "v").event("a1").into()).unwrap();
    drop(store);
    let (engine, copy) = (directory.path().join("sled"), directory.path().join("copy"));
    copy_directory(&engine, &copy);
    let store = open(directory.path()).unwrap();
    let acknowledged = store.commit(Write::put(SITES, "a", 2, "v").into()).unwrap();
    drop(store);

    fs::remove_dir_all(&engine).unwrap();
    copy_directory(&copy, &engine);
    match open(directory.path()).map(drop) {
        Err(StoreError::Behind { expected, found, .. }) => assert_eq!((expected, found), (acknowledged, Some(copied))),
        other => panic!("expected a refusal, got {other:?}"),
    }
    fs::remove_dir_all(&engine).unwrap();
    assert!(matches!(open(directory.path()).map(drop), Err(StoreError::Behind { found: None, .. })));
    assert!(!engine.exists(), "a refusal must not create an empty database");

    copy_directory(&copy, &engine);
    let restored = SledStore::open_restored(directory.path(), SledOptions::default()).unwrap();
    let position = restored.head().unwrap();
    assert_eq!(position.seq, copied.seq);
    assert_ne!(position.epoch, copied.epoch);
    assert_eq!(events(&restored, 0), ["a1"]);
    drop(restored);
    assert_eq!(open(directory.path()).unwrap().head().unwrap(), position);

    fs::remove_dir_all(&engine).unwrap();
    copy_directory(&copy, &engine);
    assert!(matches!(open(directory.path()).map(drop), Err(StoreError::EpochMismatch { .. })));
}

#[test]
fn a_full_disk_refuses_commits_before_anything_changes() {
    let (directory, store) = scratch();
    let head = store.commit(Write::put(SITES, "a", 1, "v").into()).unwrap();
    drop(store);
    let options = SledOptions { reserve_bytes: u64::MAX, ..SledOptions::default() };
    let store = SledStore::open(directory.path(), options).unwrap();
    let refused = store.commit(Write::put(SITES, "a", 2, "v").event("a2").into());
    assert!(matches!(refused, Err(StoreError::Full { reserve: u64::MAX, .. })));
    assert!(matches!(store.healthy(), Err(StoreError::Full { .. })));
    assert_eq!(store.get(SITES, b"a").unwrap().unwrap().version, 1);
    assert_eq!(store.head().unwrap(), head);
    drop(store);

    let store = open(directory.path()).unwrap();
    store.healthy().unwrap();
    store.commit(Write::put(SITES, "a", 2, "v").into()).unwrap();
}

fn what_is_too_large_is_refused(backend: &dyn Backend) {
    let store = backend.open();
    let limit = SledOptions::default().max_value_bytes;
    store.commit(Write::put(SITES, vec![b'k'; MAX_KEY_BYTES], 1, vec![0; limit]).into()).unwrap();
    let too_many = (0..=MAX_TRANSACTION_WRITES).map(|n| Write::delete(SITES, n.to_string())).collect();
    let too_large = [
        Write::put(SITES, "k", 1, vec![0; limit + 1]).into(),
        Write::delete(SITES, vec![b'k'; MAX_KEY_BYTES + 1]).into(),
        Write::delete(SITES, "k").event(vec![0; certseal_store::MAX_EVENT_BYTES + 1]).into(),
        (0..17u8).map(|n| Write::put(SITES, [n], 1, vec![0; limit])).collect(),
        too_many,
    ];
    for transaction in too_large {
        assert!(matches!(store.commit(transaction), Err(StoreError::TooLarge { .. })));
    }
}

fn an_audit_entry_is_there_exactly_when_its_transaction_is(backend: &dyn Backend) {
    let store = backend.open();
    let put = |version, expect| Transaction::from(Write::put(SITES, "a", version, "v").expect(expect));
    store.commit(put(1, Expect::Absent).audited("made").audited("and told")).unwrap();
    assert!(store.commit(put(2, Expect::Absent).audited("refused")).is_err());
    store.commit(Transaction::default().audited("read")).unwrap();

    let bodies = |store: &dyn Storage, after| {
        let entries = store.audit(after, 10).unwrap().into_iter();
        entries.map(|entry| String::from_utf8(entry.body).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(bodies(&*store, 0), ["made", "and told", "read"]);
    store.drop_audit(2).unwrap();
    drop(store);
    let store = backend.open();
    assert_eq!(bodies(&*store, 0), ["read"]);
    let ends = store.audit_ends().unwrap();
    assert_eq!((ends.start.number, ends.head.number), (2, 3));
    assert_eq!(ends.start.next(b"read"), ends.head);
}

fn a_required_record_guards_a_transaction(backend: &dyn Backend) {
    let store = backend.open();
    store.commit(Write::put(ROUTES, "guard", 1, "").event("guard 1").into()).unwrap();
    let guarded = |version| {
        let write = Write::require(ROUTES, "guard", Expect::Version(version));
        store.commit(Transaction::from(write).with(Write::put(SITES, "a", version, "v")))
    };
    assert!(matches!(guarded(2), Err(StoreError::Conflict { table: ROUTES, found: Some(1), .. })));
    assert_eq!(store.get(SITES, b"a").unwrap(), None);
    guarded(1).unwrap();
    assert_eq!(store.get(SITES, b"a").unwrap().unwrap().version, 1);
    assert_eq!(events(&*store, 0), ["guard 1"]);
}

fn what_is_purged_raises_the_floor_of_the_feed(backend: &dyn Backend) {
    let store = backend.open();
    store.commit(Write::put(SITES, "a", 1, "v").event("a1").into()).unwrap();
    let tombstone = store.commit(Write::put(SITES, "a", 2, "").event("a left").into()).unwrap().seq;
    store.commit(Write::put(SITES, "b", 1, "v").event("b1").into()).unwrap();
    assert_eq!(store.floor().unwrap(), 0);
    store.commit(Write::purge(SITES, "a").expect(Expect::Version(2)).into()).unwrap();
    assert_eq!(events(&*store, 0), ["b1"]);
    assert_eq!(store.floor().unwrap(), tombstone);
    assert_eq!(store.get(SITES, b"a").unwrap(), None);
}

fn a_lease_has_one_holder_and_a_late_write_under_a_lost_one_is_refused(backend: &dyn Backend) {
    let store = backend.open();
    let work = |lease: &Lease, value: &str| {
        store.commit(Transaction::from(lease.guard()).with(Write::put(SITES, "work", 1, value)))
    };
    let acquire = |owner, now| Lease::acquire(&*store, "sweep", owner, 10, now).unwrap();
    let first = acquire("a", 100).unwrap();
    assert_eq!(first.expires_at(), 110);
    assert_eq!(acquire("b", 109), None);
    work(&first, "a").unwrap();
    let first = first.renew(&*store, 10, 105).unwrap().unwrap();
    assert_eq!(acquire("b", 114), None);

    let second = acquire("b", 115).unwrap();
    assert!(matches!(work(&first, "late"), Err(StoreError::Conflict { table: LEASES, .. })));
    work(&second, "b").unwrap();
    assert_eq!(store.get(SITES, b"work").unwrap().unwrap().value, b"b");
    assert_eq!(first.clone().renew(&*store, 10, 116).unwrap(), None);
    first.release(&*store).unwrap();
    work(&second, "not released by another").unwrap();

    second.clone().release(&*store).unwrap();
    assert!(work(&second, "released").is_err());
    let third = acquire("a", 116).unwrap();
    assert!(work(&second, "of a holder before").is_err());
    // A restarted owner gets its own lease back, and fences what it had under way.
    let again = acquire("a", 117).unwrap();
    assert!(work(&third, "before the restart").is_err());
    work(&again, "after it").unwrap();
}

fn of_many_that_want_a_lease_one_gets_it(backend: &dyn Backend) {
    let store = backend.open();
    for round in 0..5 {
        let holders = thread::scope(|scope| {
            let wanting = (0..4).map(|n| {
                let store = &store;
                scope.spawn(move || Lease::acquire(&**store, "job", &n.to_string(), 10, round * 10).unwrap().is_some())
            });
            let wanting: Vec<_> = wanting.collect();
            wanting.into_iter().map(|one| one.join().unwrap()).filter(|held| *held).count()
        });
        assert_eq!(holders, 1);
    }
}

#[test]
fn a_directory_has_one_store_and_is_private() {
    let (directory, store) = scratch();
    let nested = directory.path().join("new/nested");
    drop(open(&nested).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&nested), 0o700);
    fs::set_permissions(&nested, fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&nested).unwrap());
    assert_eq!(mode(&nested), 0o700);

    match open(directory.path()).map(drop) {
        Err(StoreError::Locked { directory: named }) => assert_eq!(named, directory.path()),
        other => panic!("expected a refusal, got {other:?}"),
    }
    drop(store);
    open(directory.path()).unwrap();
}

#[test]
fn debug_output_keeps_stored_bytes_to_itself() {
    let write = Write::put(SITES, "a", 1, "canary").event("canary");
    assert!(!format!("{:?}", Transaction::from(write)).contains("canary"));
}

fn scratch() -> (tempfile::TempDir, SledStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    (directory, store)
}

fn open(directory: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(directory, SledOptions::default())
}

fn events(store: &dyn Storage, after: u64) -> Vec<String> {
    let entries = store.feed(after, 100).unwrap();
    entries.into_iter().map(|entry| String::from_utf8(entry.event).unwrap()).collect()
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

const SITES: Table = Table::new("sites");
const ROUTES: Table = Table::new("routes");
