//! A group of transactions, applied to the engine as one cross-tree transaction: the engine writes its log once for each.

use std::collections::HashMap;

use sled::{
    Transactional,
    transaction::{ConflictableTransactionError, TransactionError, TransactionalTree, UnabortableTransactionError},
};

use super::{
    layout::{self, CHUNK_BYTES, Header},
    published::Published,
    reached::Reached,
};
use crate::{Change, Expect, Position, StoreError, Transaction, Write};

/// The trees of the database.
#[derive(Clone)]
pub(super) struct Trees {
    /// Record key -> header, and the value if it is short.
    pub(super) records: sled::Tree,
    /// Record key, generation, index -> part of a long value.
    pub(super) chunks: sled::Tree,
    /// Table, expiry, key -> nothing.
    pub(super) expiry: sled::Tree,
    /// Sequence -> event.
    pub(super) feed: sled::Tree,
    /// Record key -> sequence of its newest event.
    pub(super) newest: sled::Tree,
    /// Number -> link of the chain, entry.
    pub(super) audit: sled::Tree,
    /// The position, the ends of the audit log, and the feed's floor.
    pub(super) meta: sled::Tree,
}

impl Trees {
    pub(super) fn open(database: &sled::Db) -> Result<Self, sled::Error> {
        Ok(Self {
            records: database.open_tree("records")?,
            chunks: database.open_tree("chunks")?,
            expiry: database.open_tree("expiry")?,
            feed: database.open_tree("feed")?,
            newest: database.open_tree("newest")?,
            audit: database.open_tree("audit")?,
            meta: database.open_tree("meta")?,
        })
    }

    /// Applies transactions after `before`, each after those before it; answers their outcomes and what they reached.
    /// Nothing is durable yet.
    pub(super) fn apply<'t>(
        &self,
        transactions: impl Iterator<Item = &'t Transaction> + Clone,
        before: Reached,
        published: &Published,
    ) -> Result<(Vec<Result<Position, StoreError>>, Reached), StoreError> {
        let trees = (&self.records, &self.chunks, &self.expiry, &self.feed, &self.newest, &self.audit, &self.meta);
        let applied = trees.transaction(|(records, chunks, expiry, feed, newest, audit, meta)| {
            let mut step = Step { records, chunks, expiry, feed, newest, audit, meta, published, reached: before };
            let outcomes = transactions.clone().map(|one| step.apply(one)).collect::<Result<Vec<_>, _>>()?;
            step.finish(before)?;
            Ok::<_, ConflictableTransactionError<StoreError>>((outcomes, step.reached))
        });
        applied.map_err(|error| match error {
            TransactionError::Abort(error) => error,
            TransactionError::Storage(error) => StoreError::engine("apply transactions")(error),
        })
    }
}

impl Trees {
    /// Drops entries of the audit log up to `through`, if they are durable.
    ///
    /// The start moves first: entries that a kill in between leaves behind lie below it, and are not shown any more.
    pub(super) fn drop_audit(&self, through: u64, before: Reached) -> Result<Reached, StoreError> {
        let engine = || StoreError::engine("drop entries of the audit log");
        let last = self.audit.get(through.to_be_bytes()).map_err(engine())?;
        let Some((link, _)) = last.as_ref().and_then(|bytes| layout::decode_audit(through, bytes)) else {
            return Ok(before);
        };
        self.meta.insert(layout::AUDIT_START_KEY, layout::encode_link(&link).as_slice()).map_err(engine())?;
        for key in self.audit.range(..=through.to_be_bytes()).keys() {
            self.audit.remove(key.map_err(engine())?).map_err(engine())?;
        }
        let position = Position { seq: before.position.seq + 1, ..before.position };
        self.meta.insert(layout::POSITION_KEY, &layout::encode_position(position)).map_err(engine())?;
        Ok(Reached { position, ..before })
    }
}

/// Transactions being applied.
struct Step<'a> {
    records: &'a TransactionalTree,
    chunks: &'a TransactionalTree,
    expiry: &'a TransactionalTree,
    feed: &'a TransactionalTree,
    newest: &'a TransactionalTree,
    audit: &'a TransactionalTree,
    meta: &'a TransactionalTree,
    published: &'a Published,
    reached: Reached,
}

type Applied<T> = Result<T, UnabortableTransactionError>;

impl Step<'_> {
    /// Applies one transaction, or changes nothing.
    fn apply(&mut self, transaction: &Transaction) -> Applied<Result<Position, StoreError>> {
        if let Err(refused) = self.check(transaction)? {
            return Ok(Err(refused));
        }
        // Long values are stored under a number that no earlier transaction had.
        let before = self.reached.position.seq;
        for write in &transaction.writes {
            self.write(write, before)?;
        }
        for entry in &transaction.audit {
            self.reached.audit = self.reached.audit.next(entry);
            let link = &self.reached.audit;
            self.audit.insert(&link.number.to_be_bytes(), layout::encode_audit(link, entry))?;
        }
        // Without events it takes a sequence of its own.
        self.reached.position.seq = self.reached.position.seq.max(before + 1);
        Ok(Ok(self.reached.position))
    }

    /// Notes how far they came.
    fn finish(&self, before: Reached) -> Applied<()> {
        if self.reached.position != before.position {
            self.meta.insert(layout::POSITION_KEY, &layout::encode_position(self.reached.position))?;
        }
        if self.reached.audit != before.audit {
            self.meta.insert(layout::AUDIT_HEAD_KEY, layout::encode_link(&self.reached.audit).as_slice())?;
        }
        Ok(())
    }

    /// Whether the conditions hold, each after the writes before it. Nothing is written yet.
    fn check(&self, transaction: &Transaction) -> Applied<Result<(), StoreError>> {
        let mut changed = HashMap::new();
        for write in &transaction.writes {
            let (table, key) = (write.table, &write.key);
            let found = match changed.get(&(table, key)) {
                Some(version) => Ok(*version),
                None => match self.records.get(layout::record_key(table, key))? {
                    None => Ok(None),
                    Some(bytes) => match Header::decode(&layout::record_key(table, key), &bytes) {
                        Some((header, _)) => Ok(Some(header.version)),
                        None => Err(StoreError::Corrupt { table, key: key.clone() }),
                    },
                },
            };
            let holds = match (write.expect, &found) {
                (Expect::Any, _) => true,
                (_, Err(damaged)) => return Ok(Err(damaged.clone())),
                (Expect::Absent, Ok(found)) => found.is_none(),
                (Expect::Version(version), Ok(found)) => *found == Some(version),
            };
            if !holds {
                let (expected, found) = (write.expect, found.unwrap_or_default());
                return Ok(Err(StoreError::Conflict { table, key: key.clone(), expected, found }));
            }
            match write.change {
                Change::Put { version, .. } => drop(changed.insert((table, key), Some(version))),
                Change::Delete | Change::Purge => drop(changed.insert((table, key), None)),
                Change::Keep => {}
            }
        }
        Ok(Ok(()))
    }

    fn write(&mut self, write: &Write, generation: u64) -> Applied<()> {
        if write.change == Change::Keep {
            return Ok(());
        }
        let record_key = layout::record_key(write.table, &write.key);
        // The parts and the expiry entry of a damaged record cannot be found: readers skip them.
        if let Some(bytes) = self.records.get(&record_key)?
            && let Some((earlier, _)) = Header::decode(&record_key, &bytes)
        {
            self.clear(write, &record_key, earlier)?;
        }
        match &write.change {
            Change::Put { version, value, expires_at } => {
                let header = Header::new(*version, *expires_at, generation, value);
                self.put(write, &record_key, header, value)?;
            }
            Change::Delete | Change::Purge => {
                self.records.remove(record_key.as_slice())?;
            }
            Change::Keep => {}
        }
        if write.change == Change::Purge {
            return self.silence(&record_key);
        }
        if let Some(event) = &write.event {
            self.announce(&record_key, event)?;
        }
        Ok(())
    }

    /// Removes what belongs to the record in other trees.
    fn clear(&self, write: &Write, record_key: &[u8], earlier: Header) -> Applied<()> {
        for index in 0..earlier.chunks() {
            self.chunks.remove(layout::chunk_key(record_key, earlier.generation, index))?;
        }
        if let Some(expires_at) = earlier.expires_at {
            self.expiry.remove(layout::expiry_key(write.table, expires_at, &write.key))?;
        }
        Ok(())
    }

    fn put(&self, write: &Write, record_key: &[u8], header: Header, value: &[u8]) -> Applied<()> {
        let inline = if header.chunks() == 0 { value } else { &[] };
        if header.chunks() > 0 {
            for (index, chunk) in (0..).zip(value.chunks(CHUNK_BYTES)) {
                self.chunks.insert(layout::chunk_key(record_key, header.generation, index), chunk)?;
            }
        }
        if let Some(expires_at) = header.expires_at {
            self.expiry.insert(layout::expiry_key(write.table, expires_at, &write.key), &[])?;
        }
        self.records.insert(record_key, header.encode(record_key, inline))?;
        Ok(())
    }

    /// Removes the key's event, and raises the feed's floor above it.
    fn silence(&self, record_key: &[u8]) -> Applied<()> {
        let newest = self.newest.remove(record_key)?;
        let Some(seq) = self.replace_event(record_key, newest)? else { return Ok(()) };
        let floor = self.meta.get(layout::FLOOR_KEY)?.and_then(|bytes| layout::decode_floor(&bytes));
        if floor.is_none_or(|floor| floor < seq) {
            self.meta.insert(layout::FLOOR_KEY, layout::encode_floor(seq))?;
        }
        Ok(())
    }

    /// Takes the event that `newest` names out of the feed; answers its sequence.
    fn replace_event(&self, record_key: &[u8], newest: Option<sled::IVec>) -> Applied<Option<u64>> {
        // If the sequence is damaged, the event stays: readers see it before newer ones.
        let earlier = newest.and_then(|bytes| layout::decode_newest(record_key, &bytes));
        if let Some(earlier) = earlier
            && let Some(encoded) = self.feed.remove(&earlier.to_be_bytes())?
        {
            self.published.set_aside(earlier, encoded);
        }
        Ok(earlier)
    }

    /// Appends the event in place of the key's earlier one.
    fn announce(&mut self, record_key: &[u8], event: &[u8]) -> Applied<()> {
        self.reached.position.seq += 1;
        let seq = self.reached.position.seq;
        let newest = self.newest.insert(record_key, layout::encode_newest(record_key, seq))?;
        self.replace_event(record_key, newest)?;
        self.feed.insert(&seq.to_be_bytes(), layout::encode_event(seq, event))?;
        Ok(())
    }
}
