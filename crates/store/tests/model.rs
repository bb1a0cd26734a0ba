//! The store against a model: sorted maps and a list of events, under random transactions and reopenings.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, sync::Arc};

use certseal_store::{
    AuditEnds, AuditEntry, AuditLink, Change, Expect, Storage, StoreError, Table, Transaction, Write,
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{TestCaseResult, TestRunner},
};

use support::{Backend, PostgresBackend, SledBackend, postgres::Server};

#[test]
fn the_sled_store_agrees_with_its_model() {
    agree(40, || Box::new(SledBackend::scratch()));
}

/// Its server crashes and cuts its connections now and then.
#[test]
fn the_postgres_store_agrees_with_its_model() {
    let server = Arc::new(Server::start());
    agree(16, || Box::new(PostgresBackend::on(&server)));
}

fn agree(cases: u32, scratch: impl Fn() -> Box<dyn Backend>) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config).run(&vec(step(), 1..40), |steps| agrees(&*scratch(), steps)).unwrap();
}

fn agrees(backend: &dyn Backend, steps: Vec<Step>) -> TestCaseResult {
    let mut store = backend.open();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(writes, audit) => {
                let expected = model.commit(&writes, &audit);
                match store.commit(Transaction { writes, audit }) {
                    Ok(position) => prop_assert_eq!(expected, Ok(position.seq)),
                    Err(StoreError::Conflict { found, .. }) => prop_assert_eq!(expected, Err(found)),
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
            }
            Step::DropAudit(through) => {
                let dropped = model.drop_audit(through);
                store.drop_audit(through).map_err(|error| TestCaseError::fail(error.to_string()))?;
                // Dropping takes a sequence of its own where it drops anything.
                model.seq += u64::from(dropped);
            }
            Step::Reopen => {
                drop(store);
                store = backend.open();
            }
            Step::Disturb(how) => backend.disturb(how),
        }
        prop_assert_eq!(store.head().unwrap().seq, model.seq);
    }
    model.compare(&*store)
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Write>, Vec<Vec<u8>>),
    DropAudit(u64),
    Reopen,
    Disturb(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let audit = vec(vec(any::<u8>(), 0..4), 0..3);
    prop_oneof![
        12 => (vec(write(), 1..5), audit).prop_map(|(writes, audit)| Step::Commit(writes, audit)),
        1 => (0..6u64).prop_map(Step::DropAudit),
        1 => Just(Step::Reopen),
        1 => (0..16u8).prop_map(Step::Disturb),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let table = prop_oneof![Just(FIRST), Just(SECOND)];
    let key = vec(0..3u8, 0..3);
    let expect = prop_oneof![
        6 => Just(Expect::Any),
        1 => Just(Expect::Absent),
        1 => (0..4u64).prop_map(Expect::Version),
    ];
    let size = prop_oneof![4 => 0..10usize, 1 => 32_760..32_780usize, 1 => 65_530..65_545usize];
    let put = (0..4u64, size, any::<u8>(), proptest::option::of(0..5u64))
        .prop_map(|(version, size, fill, expires_at)| Change::Put { version, value: vec![fill; size], expires_at });
    let change = prop_oneof![6 => put, 2 => Just(Change::Delete), 1 => Just(Change::Purge), 1 => Just(Change::Keep)];
    let event = proptest::option::of(vec(any::<u8>(), 0..8));
    (table, key, expect, change, event).prop_map(|(table, key, expect, change, event)| Write {
        table,
        key,
        expect,
        change,
        event,
    })
}

type Key = (Table, Vec<u8>);
type Stored = (u64, Vec<u8>, Option<u64>);

#[derive(Clone, Default)]
struct Model {
    records: BTreeMap<Key, Stored>,
    feed: BTreeMap<u64, (Key, Vec<u8>)>,
    seq: u64,
    floor: u64,
    audit: Vec<Vec<u8>>,
    dropped: usize,
}

impl Model {
    /// Whether there was anything to drop.
    fn drop_audit(&mut self, through: u64) -> bool {
        let drops = through > self.dropped as u64 && through <= self.audit.len() as u64;
        if drops {
            self.dropped = through as usize;
        }
        drops
    }

    fn commit(&mut self, writes: &[Write], audit: &[Vec<u8>]) -> Result<u64, Option<u64>> {
        let mut next = self.clone();
        for write in writes {
            let key = (write.table, write.key.clone());
            let found = next.records.get(&key).map(|(version, ..)| *version);
            match write.expect {
                Expect::Absent if found.is_some() => return Err(found),
                Expect::Version(version) if found != Some(version) => return Err(found),
                _ => {}
            }
            match &write.change {
                Change::Put { version, value, expires_at } => {
                    next.records.insert(key.clone(), (*version, value.clone(), *expires_at));
                }
                Change::Delete | Change::Purge => {
                    next.records.remove(&key);
                }
                Change::Keep => continue,
            }
            if write.change == Change::Purge {
                let event = next.feed.iter().find(|(_, (other, _))| *other == key).map(|(seq, _)| *seq);
                if let Some(seq) = event {
                    next.feed.remove(&seq);
                    next.floor = next.floor.max(seq);
                }
                continue;
            }
            if let Some(event) = &write.event {
                next.seq += 1;
                next.feed.retain(|_, (other, _)| *other != key);
                next.feed.insert(next.seq, (key, event.clone()));
            }
        }
        next.seq = next.seq.max(self.seq + 1);
        next.audit.extend_from_slice(audit);
        *self = next;
        Ok(self.seq)
    }

    fn compare(&self, store: &dyn Storage) -> TestCaseResult {
        for table in [FIRST, SECOND] {
            let records = || self.records.iter().filter(move |((of, _), _)| *of == table);
            let stored: Vec<_> = records().map(|((_, key), stored)| (key.clone(), stored.clone())).collect();
            prop_assert_eq!(listed(store.scan(table, None, 100).unwrap()), stored.clone());
            let after: Vec<_> = stored.iter().filter(|(key, _)| key.as_slice() > &[1][..]).take(3).cloned().collect();
            prop_assert_eq!(listed(store.scan(table, Some(&[1]), 3).unwrap()), after);
            let within: Vec<_> = stored.iter().filter(|(key, _)| key.starts_with(&[1])).cloned().collect();
            prop_assert_eq!(listed(store.scan_prefix(table, &[1], 100).unwrap()), within);
            let mut expired: Vec<_> =
                stored.iter().filter(|(_, (.., at))| at.is_some_and(|at| at <= 2)).cloned().collect();
            expired.sort_by_key(|(key, (.., at))| (*at, key.clone()));
            prop_assert_eq!(listed(store.expired(table, 2, 100).unwrap()), expired);
            for (key, stored) in &stored {
                let record = store.get(table, key).unwrap().unwrap();
                prop_assert_eq!(&(record.version, record.value, record.expires_at), stored);
            }
            // Backwards, twice, and with one that is not there.
            let mut keys: Vec<_> = stored.iter().rev().chain(&stored).map(|(key, _)| (table, key.as_slice())).collect();
            keys.insert(keys.len() / 2, (table, b"missing"));
            let all = store.get_all(&keys).unwrap();
            for ((table, key), record) in keys.iter().zip(&all) {
                prop_assert_eq!(record, &store.get(*table, key).unwrap());
            }
            prop_assert_eq!(all.len(), keys.len());
        }
        let feed: Vec<_> = store.feed(0, 1000).unwrap().into_iter().map(|entry| (entry.seq, entry.event)).collect();
        let expected: Vec<_> = self.feed.iter().map(|(seq, (_, event))| (*seq, event.clone())).collect();
        prop_assert_eq!(feed, expected);
        prop_assert_eq!(store.floor().unwrap(), self.floor);

        let links: Vec<AuditLink> = std::iter::once(AuditLink::START)
            .chain(self.audit.iter().scan(AuditLink::START, |link, entry| {
                *link = link.next(entry);
                Some(*link)
            }))
            .collect();
        let ends = AuditEnds { start: links[self.dropped], head: links[self.audit.len()] };
        prop_assert_eq!(store.audit_ends().unwrap(), ends);
        let entries = |skipped: usize| {
            let entries = links[1..].iter().zip(&self.audit).skip(skipped);
            entries.map(|(link, body)| AuditEntry { link: *link, body: body.clone() })
        };
        prop_assert_eq!(store.audit(0, 1000).unwrap(), entries(self.dropped).collect::<Vec<_>>());
        prop_assert_eq!(store.audit(2, 2).unwrap(), entries(self.dropped.max(2)).take(2).collect::<Vec<_>>());
        Ok(())
    }
}

fn listed(listed: Vec<(Vec<u8>, certseal_store::Record)>) -> Vec<(Vec<u8>, Stored)> {
    listed.into_iter().map(|(key, record)| (key, (record.version, record.value, record.expires_at))).collect()
}

// One name begins with the other, so that their keys would mix without a proper boundary.
const FIRST: Table = Table::new("t");
const SECOND: Table = Table::new("t\0");
