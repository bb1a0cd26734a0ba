//! The store against a model: sorted maps and a list of events, under random transactions and reopenings.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use certseal_store::{Change, Expect, SledOptions, SledStore, Storage, StoreError, Table, Transaction, Write};
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_its_model(steps in vec(step(), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let open = || SledStore::open(directory.path(), SledOptions::default()).unwrap();
        let mut store = open();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Commit(writes) => {
                    let expected = model.commit(&writes);
                    match store.commit(Transaction::from(writes)) {
                        Ok(position) => prop_assert_eq!(expected, Ok(position.seq)),
                        Err(StoreError::Conflict { found, .. }) => prop_assert_eq!(expected, Err(found)),
                        Err(error) => return Err(TestCaseError::fail(error.to_string())),
                    }
                }
                Step::Reopen => {
                    drop(store);
                    store = open();
                }
            }
            prop_assert_eq!(store.head().unwrap().seq, model.seq);
        }
        model.compare(&store)?;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Write>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![12 => vec(write(), 1..5).prop_map(Step::Commit), 1 => Just(Step::Reopen)]
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
    let change = prop_oneof![3 => put, 1 => Just(Change::Delete)];
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
}

impl Model {
    fn commit(&mut self, writes: &[Write]) -> Result<u64, Option<u64>> {
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
                Change::Delete => {
                    next.records.remove(&key);
                }
            }
            if let Some(event) = &write.event {
                next.seq += 1;
                next.feed.retain(|_, (other, _)| *other != key);
                next.feed.insert(next.seq, (key, event.clone()));
            }
        }
        next.seq = next.seq.max(self.seq + 1);
        *self = next;
        Ok(self.seq)
    }

    fn compare(&self, store: &SledStore) -> Result<(), TestCaseError> {
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
            for (key, stored) in stored {
                let record = store.get(table, &key).unwrap().unwrap();
                prop_assert_eq!((record.version, record.value, record.expires_at), stored);
            }
        }
        let feed: Vec<_> = store.feed(0, 1000).unwrap().into_iter().map(|entry| (entry.seq, entry.event)).collect();
        let expected: Vec<_> = self.feed.iter().map(|(seq, (_, event))| (*seq, event.clone())).collect();
        prop_assert_eq!(feed, expected);
        Ok(())
    }
}

fn listed(listed: Vec<(Vec<u8>, certseal_store::Record)>) -> Vec<(Vec<u8>, Stored)> {
    listed.into_iter().map(|(key, record)| (key, (record.version, record.value, record.expires_at))).collect()
}

// One name begins with the other, so that their keys would mix without a proper boundary.
const FIRST: Table = Table::new("t");
const SECOND: Table = Table::new("t\0");
