//! The effect of a group of transactions, worked out in memory: conditions, sequences and the net effect.
//!
//! Pure: the touched keys as the database holds them come in, the writes that are needed come out.

use std::collections::HashMap;

use crate::{AuditEnds, AuditLink, Change, Expect, Position, StoreError, Table, Transaction, Write};

/// The one row that everybody who writes locks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) position: Position,
    pub(super) floor: u64,
    pub(super) audit: AuditEnds,
}

/// A record's key.
pub(super) type Key<'a> = (Table, &'a [u8]);

/// A key as the database holds it, and as the group leaves it.
#[derive(Clone, Copy, Default)]
pub(super) struct Slot<'a> {
    pub(super) version: Option<u64>,
    /// There is a record whose version cannot be read.
    pub(super) damaged: bool,
    /// The sequence of the key's event.
    pub(super) event: Option<u64>,
    /// The sequence of its event in the database, before the group.
    pub(super) stored_event: Option<u64>,
    pub(super) record: Effect<Put<'a>>,
    pub(super) announced: Effect<(u64, &'a [u8])>,
}

/// A net effect.
#[derive(Clone, Copy, Default)]
pub(super) enum Effect<T> {
    #[default]
    None,
    Set(T),
    Remove,
}

/// A record to write.
#[derive(Clone, Copy)]
pub(super) struct Put<'a> {
    pub(super) version: u64,
    pub(super) value: &'a [u8],
    pub(super) expires_at: Option<u64>,
}

/// A group being worked out.
pub(super) struct GroupEffect<'a> {
    pub(super) state: State,
    pub(super) slots: HashMap<Key<'a>, Slot<'a>>,
    pub(super) audit: Vec<(AuditLink, &'a [u8])>,
}

impl<'a> GroupEffect<'a> {
    /// Applies the transaction after those before it, or changes nothing.
    pub(super) fn apply(&mut self, transaction: &'a Transaction) -> Result<Position, StoreError> {
        let State { position, floor, .. } = self.state;
        let mut step = TransactionEffect { group: self, changed: HashMap::new(), seq: position.seq, floor };
        for write in &transaction.writes {
            step.write(write)?;
        }
        let TransactionEffect { changed, seq, floor, .. } = step;
        self.slots.extend(changed);
        // Without events it takes a sequence of its own, so that its loss would be noticed.
        self.state.position.seq = seq.max(position.seq + 1);
        self.state.floor = floor;
        for entry in &transaction.audit {
            self.state.audit.head = self.state.audit.head.next(entry);
            self.audit.push((self.state.audit.head, entry));
        }
        Ok(self.state.position)
    }
}

/// A transaction being applied: its changes count only once all of it is applied.
struct TransactionEffect<'g, 'a> {
    group: &'g GroupEffect<'a>,
    changed: HashMap<Key<'a>, Slot<'a>>,
    seq: u64,
    floor: u64,
}

impl<'a> TransactionEffect<'_, 'a> {
    fn write(&mut self, write: &'a Write) -> Result<(), StoreError> {
        let key = (write.table, write.key.as_slice());
        let earlier = self.changed.get(&key).or_else(|| self.group.slots.get(&key));
        let mut slot = earlier.copied().unwrap_or_default();
        slot.check(write)?;
        match &write.change {
            Change::Keep => return Ok(()),
            Change::Put { version, value, expires_at } => {
                slot.version = Some(*version);
                slot.record = Effect::Set(Put { version: *version, value, expires_at: *expires_at });
            }
            Change::Delete | Change::Purge => {
                slot.version = None;
                slot.record = Effect::Remove;
            }
        }
        slot.damaged = false;
        match &write.event {
            _ if write.change == Change::Purge => {
                // A reader that has not read the event yet will miss it.
                self.floor = self.floor.max(slot.event.unwrap_or(0));
                slot.event = None;
                slot.announced = Effect::Remove;
            }
            Some(event) => {
                self.seq += 1;
                slot.event = Some(self.seq);
                slot.announced = Effect::Set((self.seq, event));
            }
            None => {}
        }
        self.changed.insert(key, slot);
        Ok(())
    }
}

impl Slot<'_> {
    fn check(&self, write: &Write) -> Result<(), StoreError> {
        if self.damaged && write.expect != Expect::Any {
            return Err(StoreError::Corrupt { table: write.table, key: write.key.clone() });
        }
        let holds = match write.expect {
            Expect::Any => true,
            Expect::Absent => self.version.is_none(),
            Expect::Version(version) => self.version == Some(version),
        };
        if holds {
            return Ok(());
        }
        let (table, key, expected, found) = (write.table, write.key.clone(), write.expect, self.version);
        Err(StoreError::Conflict { table, key, expected, found })
    }
}
