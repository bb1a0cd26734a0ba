//! A store that is copied into another engine goes on there as if nothing had happened.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use certseal_store::{
    PostgresOptions, PostgresStore, SledOptions, SledStore, Storage, StoreError, Table, Transaction, Write,
    migrate::{Source, Summary, Target, copy},
};

use support::postgres::{Database, Server};

#[test]
fn a_copy_carries_everything_over_in_both_directions() {
    let (directory, database) = (tempfile::tempdir().unwrap(), Server::shared().database());
    let (first, last) = (directory.path().join("first"), directory.path().join("last"));
    let original = filled(&first);
    let before = seen(&original);
    let summary = copied(&original, postgres_target(&database));
    assert_eq!(summary.counts, [before.0.len() as u64, before.1.len() as u64, before.2.len() as u64]);
    drop(original);

    let moved = SledStore::open(&first, SledOptions::default()).map(drop);
    assert!(matches!(moved, Err(StoreError::Moved { to, .. }) if to == "elsewhere"));
    let store = PostgresStore::open(options(&database)).unwrap();
    assert_eq!(seen(&store), before);
    // Cursors and the chain go on.
    let next = store.commit(Transaction::from(Write::put(TABLE, "new", 1, "v").event("new")).audited("new")).unwrap();
    assert_eq!(next.seq, before.3.position.seq + 1);
    assert_eq!(store.audit_ends().unwrap().head, before.3.audit.head.next(b"new"));
    store.commit(Write::purge(TABLE, "new").into()).unwrap();
    let before = seen(&store);
    drop(store);

    a_minute_later(&database);
    let source = PostgresStore::source(options(&database)).unwrap();
    copied(&*source, SledStore::target(&last, SledOptions::default(), "database").unwrap());
    assert!(matches!(PostgresStore::open(options(&database)), Err(StoreError::Moved { .. })));
    let store = SledStore::open(&last, SledOptions::default()).unwrap();
    assert_eq!(seen(&store), before);
    for n in 0..20 {
        store.commit(Write::put(TABLE, "long", 10 + n, vec![n as u8; 90_000]).event("long again").into()).unwrap();
    }
    assert_eq!(store.get(TABLE, b"long").unwrap().unwrap().value, vec![19; 90_000]);
    drop(store);
    SledStore::open(&last, SledOptions::default()).unwrap();
}

#[test]
fn an_unfinished_copy_does_not_open_and_begins_anew() {
    let (directory, database) = (tempfile::tempdir().unwrap(), Server::shared().database());
    let original = filled(&directory.path().join("original"));
    let target = directory.path().join("target");
    let page = original.copied_records(None, 3).unwrap();

    let mut begun = postgres_target(&database);
    begun.put_records(&page).unwrap();
    drop(begun);
    let refused = PostgresStore::open(options(&database)).map(drop);
    assert!(matches!(refused, Err(StoreError::Unfinished { origin }) if origin == "a test"));
    let mut begun = SledStore::target(&target, SledOptions::default(), "a test").unwrap();
    begun.put_records(&page).unwrap();
    drop(begun);
    let refused = SledStore::open(&target, SledOptions::default()).map(drop);
    assert!(matches!(refused, Err(StoreError::Unfinished { origin }) if origin == "a test"));

    let before = seen(&original);
    // First the one whose source stays open.
    let again = SledStore::target(&target, SledOptions::default(), "a test").unwrap();
    copied(&original, again);
    assert_eq!(seen(&SledStore::open(&target, SledOptions::default()).unwrap()), before);
    copied(&original, postgres_target(&database));
    assert_eq!(seen(&PostgresStore::open(options(&database)).unwrap()), before);
}

/// The writes of a forgotten daemon while its data is copied would be missing in the copy.
#[test]
fn a_database_in_which_a_store_was_seen_a_moment_ago_is_not_copied() {
    let database = Server::shared().database();
    let store = PostgresStore::open(options(&database)).unwrap();
    let copied = || PostgresStore::source(options(&database)).map(drop);
    let refused = copied().unwrap_err();
    assert!(matches!(refused, StoreError::StillOpen { seconds: 0..30 }), "{refused}");
    assert!(refused.to_string().contains("stop every certstore that uses it, wait a minute"));
    // It writes on: that is seen at once. One that only stays open shows itself, too, after a while.
    a_minute_later(&database);
    store.commit(Write::put(TABLE, "a", 1, "v").into()).unwrap();
    assert!(matches!(copied(), Err(StoreError::StillOpen { .. })));
    database.sql("UPDATE certseal.writers SET seen_at = now() + interval '1 hour'");
    assert!(matches!(copied(), Err(StoreError::StillOpen { seconds: 0 })), "the clock was put back");
    drop(store);
    a_minute_later(&database);
    copied().unwrap();
}

#[test]
fn nothing_is_copied_over_a_store_that_has_data() {
    let (directory, database) = (tempfile::tempdir().unwrap(), Server::shared().database());
    drop(filled(&directory.path().join("full")));
    assert!(SledStore::target(&directory.path().join("full"), SledOptions::default(), "a test").is_err());
    let store = PostgresStore::open(options(&database)).unwrap();
    store.commit(Write::put(TABLE, "a", 1, "v").into()).unwrap();
    drop(store);
    assert!(PostgresStore::target(options(&database), "a test").is_err());
    let store = PostgresStore::open(options(&database)).unwrap();
    assert_eq!(store.get(TABLE, b"a").unwrap().unwrap().version, 1);
}

/// The database stores other values than came: the comparison has to notice, and the source stays in use.
#[test]
fn a_copy_that_differs_is_refused() {
    for (table, column) in [("records", "value"), ("feed", "event")] {
        let (directory, database) = (tempfile::tempdir().unwrap(), Server::shared().database());
        let original = filled(directory.path());
        let target = postgres_target(&database);
        database.sql(&format!(
            "CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN NEW.{column} = NEW.{column} || 'x'::bytea; RETURN NEW; END $$;
             CREATE TRIGGER damage BEFORE INSERT ON certseal.{table} FOR EACH ROW WHEN (NEW.key = 'k7')
                 EXECUTE FUNCTION damage()"
        ));
        assert!(copy(&original, target, "elsewhere", &mut |_, _| {}).is_err());
        assert!(matches!(PostgresStore::open(options(&database)), Err(StoreError::Unfinished { .. })));
        drop(original);
        SledStore::open(directory.path(), SledOptions::default()).unwrap();
    }
}

/// More than a page of records, long ones, expiries, tombstones, purged ones, and a log whose beginning is gone.
fn filled(directory: &Path) -> SledStore {
    let store = SledStore::open(directory, SledOptions::default()).unwrap();
    for n in 0..450 {
        let write = Write::put(TABLE, format!("k{n}"), n, format!("value {n}")).event(format!("event {n}"));
        let write = if n % 3 == 0 { write.expires_at(n) } else { write };
        store.commit(Transaction::from(write).audited(format!("entry {n}"))).unwrap();
    }
    store.commit(Write::put(OTHER, "long", 1, vec![1; 200_000]).into()).unwrap();
    store.commit(Write::put(TABLE, "long", 1, vec![2; 90_000]).event("long").into()).unwrap();
    store.commit(Write::put(TABLE, "", 1, "under the empty key").event("empty").into()).unwrap();
    store.commit(Write::delete(TABLE, "k5").event("k5 is gone").into()).unwrap();
    store.commit(Write::purge(TABLE, "k6").into()).unwrap();
    store.drop_audit(100).unwrap();
    store
}

type Seen = (
    Vec<(Vec<u8>, certseal_store::Record)>,
    Vec<certseal_store::Entry>,
    Vec<certseal_store::AuditEntry>,
    certseal_store::migrate::Standing,
);

fn seen(store: &dyn Storage) -> Seen {
    let mut records = store.scan(TABLE, None, 10_000).unwrap();
    records.extend(store.scan(OTHER, None, 10_000).unwrap());
    assert_eq!(store.expired(TABLE, 100, 1000).unwrap().len(), 33, "of the multiples of 3 up to 99, k6 was purged");
    let (position, floor, audit) = (store.head().unwrap(), store.floor().unwrap(), store.audit_ends().unwrap());
    let standing = certseal_store::migrate::Standing { position, floor, audit };
    (records, store.feed(0, 10_000).unwrap(), store.audit(0, 10_000).unwrap(), standing)
}

fn copied(from: &dyn Source, to: Box<dyn Target>) -> Summary {
    let mut heard = 0;
    let summary = copy(from, to, "elsewhere", &mut |_, done| heard = done).unwrap();
    assert_eq!(heard, summary.total());
    summary
}

fn postgres_target(database: &Database) -> Box<dyn Target> {
    PostgresStore::target(options(database), "a test").unwrap()
}

/// Nobody was seen in the database for a minute.
fn a_minute_later(database: &Database) {
    database.sql("UPDATE certseal.writers SET seen_at = now() - interval '61 seconds'");
}

fn options(database: &Database) -> PostgresOptions {
    PostgresOptions::new(database.url())
}

const TABLE: Table = Table::new("t");
const OTHER: Table = Table::new("other");
