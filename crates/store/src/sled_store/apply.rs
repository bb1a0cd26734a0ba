//! One transaction, applied to the engine as one cross-tree transaction.

use sled::{
    Transactional,
    transaction::{ConflictableTransactionError, TransactionError, TransactionalTree, UnabortableTransactionError},
};

use super::{
    layout::{self, CHUNK_BYTES, Header},
    published::Published,
};
use crate::{AuditLink, Change, Expect, Position, StoreError, Transaction, Write};

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

/// How far the writer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) position: Position,
    pub(super) audit: AuditLink,
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

    /// Applies the transaction after `before` and returns what it reached. Nothing is durable yet.
    pub(super) fn apply(
        &self,
        transaction: &Transaction,
        before: Reached,
        published: &Published,
    ) -> Result<Reached, StoreError> {
        let Reached { position, audit: link } = before;
        let links = transaction.audit.iter().scan(link, |link, entry| {
            *link = link.next(entry);
            Some((*link, entry))
        });
        let entries: Vec<_> = links.collect();
        let trees = (&self.records, &self.chunks, &self.expiry, &self.feed, &self.newest, &self.audit, &self.meta);
        let applied = trees.transaction(|(records, chunks, expiry, feed, newest, audit, meta)| {
            let (generation, seq) = (position.seq, position.seq);
            let mut step = Step { records, chunks, expiry, feed, newest, meta, published, generation, seq };
            for write in &transaction.writes {
                step.write(write)?;
            }
            for (link, entry) in &entries {
                audit.insert(&link.number.to_be_bytes(), layout::encode_audit(link, entry))?;
            }
            let position = Position { epoch: position.epoch, seq: step.seq.max(position.seq + 1) };
            let reached = Reached { position, audit: entries.last().map_or(link, |(link, _)| *link) };
            meta.insert(layout::POSITION_KEY, &layout::encode_position(reached.position))?;
            if !entries.is_empty() {
                meta.insert(layout::AUDIT_HEAD_KEY, layout::encode_link(&reached.audit).as_slice())?;
            }
            Ok(reached)
        });
        applied.map_err(|error| match error {
            TransactionError::Abort(error) => error,
            TransactionError::Storage(error) => StoreError::engine("apply a transaction")(error),
        })
    }
}

impl Trees {
    /// Drops entries of the audit log up to `through`, if they are durable.
    ///
    /// The start moves first: what a kill in between leaves behind lies below it, and is not shown any more.
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

/// A transaction being applied.
struct Step<'a> {
    records: &'a TransactionalTree,
    chunks: &'a TransactionalTree,
    expiry: &'a TransactionalTree,
    feed: &'a TransactionalTree,
    newest: &'a TransactionalTree,
    meta: &'a TransactionalTree,
    published: &'a Published,
    generation: u64,
    seq: u64,
}

impl Step<'_> {
    fn write(&mut self, write: &Write) -> Result<(), ConflictableTransactionError<StoreError>> {
        let record_key = layout::record_key(write.table, &write.key);
        let earlier = self.earlier(write, &record_key)?;
        if write.change == Change::Keep {
            return Ok(());
        }
        if let Some(earlier) = earlier {
            self.clear(write, &record_key, earlier)?;
        }
        match &write.change {
            Change::Put { version, value, expires_at } => {
                let header = Header::new(*version, *expires_at, self.generation, value);
                self.put(write, &record_key, header, value)?;
            }
            Change::Delete | Change::Purge => {
                self.records.remove(record_key.as_slice())?;
            }
            Change::Keep => {}
        }
        if write.change == Change::Purge {
            return Ok(self.silence(&record_key)?);
        }
        if let Some(event) = &write.event {
            self.announce(&record_key, event)?;
        }
        Ok(())
    }

    /// The header of the record that is there, once the write's condition holds.
    fn earlier(
        &self,
        write: &Write,
        record_key: &[u8],
    ) -> Result<Option<Header>, ConflictableTransactionError<StoreError>> {
        let stored = self.records.get(record_key)?;
        let earlier = match &stored {
            None => None,
            Some(bytes) => match Header::decode(record_key, bytes) {
                Some((header, _)) => Some(header),
                // The parts and the expiry entry of a damaged record cannot be found: readers skip them.
                None if write.expect == Expect::Any => None,
                None => return abort(StoreError::Corrupt { table: write.table, key: write.key.clone() }),
            },
        };
        let found = earlier.map(|header| header.version);
        let holds = match write.expect {
            Expect::Any => true,
            Expect::Absent => found.is_none(),
            Expect::Version(version) => found == Some(version),
        };
        if !holds {
            return abort(StoreError::Conflict {
                table: write.table,
                key: write.key.clone(),
                expected: write.expect,
                found,
            });
        }
        Ok(earlier)
    }

    /// Removes what belongs to the record in other trees.
    fn clear(&self, write: &Write, record_key: &[u8], earlier: Header) -> Result<(), UnabortableTransactionError> {
        for index in 0..earlier.chunks() {
            self.chunks.remove(layout::chunk_key(record_key, earlier.generation, index))?;
        }
        if let Some(expires_at) = earlier.expires_at {
            self.expiry.remove(layout::expiry_key(write.table, expires_at, &write.key))?;
        }
        Ok(())
    }

    fn put(
        &self,
        write: &Write,
        record_key: &[u8],
        header: Header,
        value: &[u8],
    ) -> Result<(), UnabortableTransactionError> {
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
    fn silence(&self, record_key: &[u8]) -> Result<(), UnabortableTransactionError> {
        let newest = self.newest.remove(record_key)?;
        let Some(seq) = self.replace_event(record_key, newest)? else { return Ok(()) };
        let floor = self.meta.get(layout::FLOOR_KEY)?.and_then(|bytes| layout::decode_floor(&bytes));
        if floor.is_none_or(|floor| floor < seq) {
            self.meta.insert(layout::FLOOR_KEY, layout::encode_floor(seq))?;
        }
        Ok(())
    }

    /// Takes the event that `newest` names out of the feed; answers its sequence.
    fn replace_event(
        &self,
        record_key: &[u8],
        newest: Option<sled::IVec>,
    ) -> Result<Option<u64>, UnabortableTransactionError> {
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
    fn announce(&mut self, record_key: &[u8], event: &[u8]) -> Result<(), UnabortableTransactionError> {
        self.seq += 1;
        let newest = self.newest.insert(record_key, layout::encode_newest(record_key, self.seq))?;
        self.replace_event(record_key, newest)?;
        self.feed.insert(&self.seq.to_be_bytes(), layout::encode_event(self.seq, event))?;
        Ok(())
    }
}

fn abort<T>(error: StoreError) -> Result<T, ConflictableTransactionError<StoreError>> {
    Err(ConflictableTransactionError::Abort(error))
}
