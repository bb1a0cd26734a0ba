//! A store in memory, for what the journal asks of one.

use std::{collections::BTreeMap, sync::Mutex};

use certseal_store::{
    AuditEnds, AuditEntry, Change, Done, Entry, Expect, Position, Record, Storage, StoreError, Table, Transaction,
};

#[derive(Default)]
pub(super) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    records: BTreeMap<(&'static str, Vec<u8>), Record>,
    seq: u64,
}

impl Storage for Memory {
    fn submit(&self, transaction: Transaction, done: Done) {
        done(self.applied(transaction));
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Record>, StoreError> {
        Ok(self.0.lock().unwrap().records.get(&(table.name(), key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        let state = self.0.lock().unwrap();
        let first = (table.name(), after.unwrap_or_default().to_vec());
        let rest = state.records.range(first..).filter(|((_, key), _)| after != Some(key));
        let of_table = rest.take_while(|((name, _), _)| *name == table.name());
        Ok(of_table.take(limit).map(|((_, key), record)| (key.clone(), record.clone())).collect())
    }

    fn scan_prefix(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        let mut found = self.scan(table, None, usize::MAX)?;
        found.retain(|(key, _)| key.starts_with(prefix));
        found.truncate(limit);
        Ok(found)
    }

    fn head(&self) -> Result<Position, StoreError> {
        Ok(position(self.0.lock().unwrap().seq))
    }

    fn expired(&self, table: Table, now: u64, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        let mut found = self.scan(table, None, usize::MAX)?;
        found.retain(|(_, record)| record.expires_at.is_some_and(|at| at <= now));
        found.sort_by_key(|(_, record)| record.expires_at);
        found.truncate(limit);
        Ok(found)
    }

    fn healthy(&self) -> Result<(), StoreError> {
        Ok(())
    }

    // The journal has no feed and no audit log.
    fn feed(&self, _: u64, _: usize) -> Result<Vec<Entry>, StoreError> {
        Ok(Vec::new())
    }

    fn floor(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn audit(&self, _: u64, _: usize) -> Result<Vec<AuditEntry>, StoreError> {
        Ok(Vec::new())
    }

    fn audit_ends(&self) -> Result<AuditEnds, StoreError> {
        unreachable!("the journal has no audit log")
    }

    fn drop_audit(&self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Memory {
    /// Of each table how many records there are.
    pub(super) fn count(&self, table: &str) -> usize {
        self.0.lock().unwrap().records.keys().filter(|(name, _)| *name == table).count()
    }

    fn applied(&self, transaction: Transaction) -> Result<Position, StoreError> {
        let state = &mut *self.0.lock().unwrap();
        let mut before = Vec::new();
        for write in transaction.writes {
            let place = (write.table.name(), write.key);
            let version = state.records.get(&place).map(|record| record.version);
            let holds = match write.expect {
                Expect::Any => true,
                Expect::Absent => version.is_none(),
                Expect::Version(expected) => version == Some(expected),
            };
            if !holds {
                for (place, record) in before.into_iter().rev() {
                    match record {
                        Some(record) => drop(state.records.insert(place, record)),
                        None => drop(state.records.remove(&place)),
                    }
                }
                return Err(StoreError::Conflict {
                    table: write.table,
                    key: place.1,
                    expected: write.expect,
                    found: version,
                });
            }
            before.push((place.clone(), state.records.get(&place).cloned()));
            match write.change {
                Change::Put { version, value, expires_at } => {
                    drop(state.records.insert(place, Record { version, value, expires_at }))
                }
                Change::Delete | Change::Purge => drop(state.records.remove(&place)),
                Change::Keep => {}
            }
        }
        state.seq += 1;
        Ok(position(state.seq))
    }
}

fn position(seq: u64) -> Position {
    Position { epoch: [0; 16], seq }
}
