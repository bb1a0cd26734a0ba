//! Damage, failure and layout, which only show from inside the backend.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use super::{open::ENGINE_DIRECTORY, *};
use crate::{Expect, Write};

#[test]
fn a_damaged_record_harms_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for key in ["a", "b", "c"] {
        store.commit(Write::put(TABLE, key, 1, key).expires_at(5).event(key).into()).unwrap();
    }
    let long = Write::put(TABLE, "long", 1, vec![7; 100_000]).into();
    store.commit(long).unwrap();
    flip_last_bit(&store.reader.trees().records, &layout::record_key(TABLE, b"b"));
    let chunk = store.reader.trees().chunks.last().unwrap().unwrap().0;
    flip_last_bit(&store.reader.trees().chunks, &chunk);
    flip_last_bit(&store.reader.trees().feed, &2u64.to_be_bytes());

    for key in ["b", "long"] {
        let error = store.get(TABLE, key.as_bytes()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { table: TABLE, key: named } if named == key.as_bytes()));
    }
    assert_eq!(keys(store.scan(TABLE, None, 10).unwrap()), ["a", "c"]);
    assert_eq!(keys(store.scan(TABLE, Some(b"a"), 1).unwrap()), ["c"]);
    assert_eq!(keys(store.expired(TABLE, 5, 10).unwrap()), ["a", "c"]);
    let events: Vec<_> = store.feed(1, 1).unwrap().into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, [b"c"], "a damaged event must not stop a reader");
    store.healthy().unwrap();

    store.commit(Write::put(TABLE, "long", 2, "short").expect(Expect::Version(1)).into()).unwrap();
    flip_first_bit(&store.reader.trees().records, &layout::record_key(TABLE, b"b"));
    let conditional = Write::put(TABLE, "b", 2, "new").expect(Expect::Version(1));
    assert!(matches!(store.commit(conditional.into()), Err(StoreError::Corrupt { .. })));
    store.commit(Write::put(TABLE, "b", 2, "repaired").event("b2").into()).unwrap();
    assert_eq!(store.get(TABLE, b"b").unwrap().unwrap().value, b"repaired");
    assert_eq!(keys(store.expired(TABLE, 5, 10).unwrap()), ["a", "c"], "the orphan entry does not count");
}

#[test]
fn values_never_leave_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let value = vec![1; SledOptions::default().max_value_bytes];
    let key = |n: usize| format!("{n:0>width$}", width = crate::MAX_KEY_BYTES);
    // Enough neighbours and rewrites that leaves are split, merged and rewritten whole.
    for round in 1..=3 {
        for n in 0..48 {
            let write = Write::put(TABLE, key(n), round, value.clone()).event(vec![2; crate::MAX_EVENT_BYTES]);
            store.commit(write.into()).unwrap();
        }
        for n in (0..48).filter(|n| n % 5 != 0) {
            let inline = vec![3; layout::CHUNK_BYTES];
            store.commit(Write::put(TABLE, key(n), round, inline).into()).unwrap();
        }
    }
    let engine = directory.path().join(ENGINE_DIRECTORY);
    let outside_log = || fs::read_dir(engine.join("blobs")).unwrap().count();
    assert_eq!(outside_log(), 0);
    let settings = String::from_utf8_lossy(&fs::read(engine.join("conf")).unwrap()).into_owned();
    assert!(settings.contains("segment_size: 4194304"), "{settings}");

    // Control: the same values without being cut do leave the log, although each fits a quarter of a segment.
    for n in 0..48u8 {
        store.reader.trees().chunks.insert([n], value.clone()).unwrap();
    }
    assert_ne!(outside_log(), 0);
}

#[test]
fn the_largest_transaction_commits() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let options = SledOptions::default();
    let count = crate::MAX_TRANSACTION_BYTES / options.max_value_bytes - 1;
    for round in 1..=4 {
        let writes = (0..count).map(|n| Write::put(TABLE, [n as u8], round, vec![n as u8; options.max_value_bytes]));
        store.commit(writes.collect()).unwrap();
    }
    let many = (0..crate::MAX_TRANSACTION_WRITES).map(|n| Write::put(TABLE, n.to_string(), 1, "v").event("e"));
    store.commit(many.collect()).unwrap();
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.scan(TABLE, None, 10_000).unwrap().len(), count + crate::MAX_TRANSACTION_WRITES);
}

#[test]
fn after_a_failed_sync_the_feed_keeps_to_what_is_durable_and_commits_end() {
    let directory = tempfile::tempdir().unwrap();
    let durable = open(directory.path());
    let acknowledged = durable.commit(Write::put(TABLE, "a", 1, "old").event("old").into()).unwrap();
    drop(durable);

    let options = SledOptions::default();
    let mut opened = Opened::verified(directory.path(), &options).unwrap();
    opened.high_water.file = File::open(directory.path().join("high-water")).unwrap();
    let store = SledStore::start(opened, &options).unwrap();
    let replace = || Transaction::from(Write::put(TABLE, "a", 2, "new").event("new"));
    assert!(matches!(store.commit(replace()), Err(StoreError::Io { .. })));

    assert!(matches!(store.commit(replace()), Err(StoreError::Failed { .. })));
    assert!(matches!(store.healthy(), Err(StoreError::Failed { .. })));
    assert_eq!(store.head().unwrap(), acknowledged);
    let feed = store.feed(0, 10).unwrap();
    assert_eq!(feed, [Entry { seq: acknowledged.seq, event: b"old".to_vec() }]);
    assert!(store.reader.trees().feed.get(acknowledged.seq.to_be_bytes()).unwrap().is_none(), "the engine moved on");
}

#[test]
fn a_position_without_its_high_water_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.commit(Write::put(TABLE, "a", 1, "v").into()).unwrap();
    drop(store);
    fs::remove_file(directory.path().join("high-water")).unwrap();
    let refused = SledStore::open(directory.path(), SledOptions::default());
    assert!(matches!(refused, Err(StoreError::Unvouched { problem: "missing", .. })));
}

#[test]
fn a_damaged_position_is_refused_and_a_restore_goes_on_after_the_feed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let last = store.commit(Write::put(TABLE, "a", 1, "v").event("a").into()).unwrap();
    flip_last_bit(&store.reader.trees().meta, layout::POSITION_KEY);
    drop(store);
    let refused = SledStore::open(directory.path(), SledOptions::default());
    assert!(matches!(refused, Err(StoreError::Unvouched { .. })));
    let restored = SledStore::open_restored(directory.path(), SledOptions::default()).unwrap();
    assert_eq!(restored.head().unwrap().seq, last.seq);
}

#[test]
fn a_creation_that_was_cut_short_is_taken_up() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    fs::remove_file(directory.path().join("high-water")).unwrap();
    assert_eq!(open(directory.path()).head().unwrap().seq, 0);
}

fn open(directory: &Path) -> SledStore {
    SledStore::open(directory, SledOptions::default()).unwrap()
}

fn keys(listed: Vec<(Vec<u8>, Record)>) -> Vec<String> {
    listed.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

fn flip_last_bit(tree: &sled::Tree, key: &[u8]) {
    let mut bytes = tree.get(key).unwrap().unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    tree.insert(key, bytes).unwrap();
}

fn flip_first_bit(tree: &sled::Tree, key: &[u8]) {
    let mut bytes = tree.get(key).unwrap().unwrap().to_vec();
    bytes[0] ^= 1;
    tree.insert(key, bytes).unwrap();
}

const TABLE: Table = Table::new("t");
