//! Reads: records by key, lists in key and expiry order, and the feed.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::{
    apply::Trees,
    layout::{self, Header},
    published::Published,
};
use crate::{AuditEnds, AuditEntry, AuditLink, Entry, Record, StoreError, Table, storage::log_damaged};

/// A reader of the database, for any number of threads.
pub(super) struct Reader {
    trees: Trees,
    published: Arc<Published>,
}

type Listed = Vec<(Vec<u8>, Record)>;

impl Reader {
    pub(super) fn new(trees: Trees, published: Arc<Published>) -> Self {
        Self { trees, published }
    }

    pub(super) fn trees(&self) -> &Trees {
        &self.trees
    }

    pub(super) fn record(&self, table: Table, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let record_key = layout::record_key(table, key);
        let stored = || self.checked(self.trees.records.get(&record_key));
        let mut bytes = stored()?;
        while let Some(present) = &bytes {
            if let Some(record) = self.assembled(&record_key, present)? {
                return Ok(Some(record));
            }
            // The writer may have replaced a long value between its header and its parts: then the header differs.
            let again = stored()?;
            if again == bytes {
                return Err(StoreError::Corrupt { table, key: key.to_owned() });
            }
            bytes = again;
        }
        Ok(None)
    }

    pub(super) fn after(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Listed, StoreError> {
        let start = match after {
            Some(key) => Bound::Excluded(layout::record_key(table, key)),
            None => Bound::Included(layout::table_prefix(table)),
        };
        self.listed(table, start, &layout::table_prefix(table), limit)
    }

    pub(super) fn with_prefix(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Listed, StoreError> {
        let prefix = layout::record_key(table, prefix);
        self.listed(table, Bound::Included(prefix.clone()), &prefix, limit)
    }

    pub(super) fn expired(&self, table: Table, now: u64, limit: usize) -> Result<Listed, StoreError> {
        let prefix = layout::table_prefix(table);
        let mut listed = Vec::new();
        for item in self.trees.expiry.scan_prefix(&prefix).keys() {
            let item = self.checked(item)?;
            let Some((expires_at, key)) = layout::expiry_parts(&item[prefix.len()..]) else { continue };
            if listed.len() >= limit || expires_at > now {
                break;
            }
            // Entries that outlived their record, because it was damaged when it was replaced, do not count.
            if let Some(record) = self.record_or_log(table, key)?
                && record.expires_at == Some(expires_at)
            {
                listed.push((key.to_vec(), record));
            }
        }
        Ok(listed)
    }

    pub(super) fn feed(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let durable = self.published.position().seq;
        if after >= durable || limit == 0 {
            return Ok(Vec::new());
        }
        let range = (Bound::Excluded(after.to_be_bytes()), Bound::Included(durable.to_be_bytes()));
        let mut entries = BTreeMap::new();
        for item in self.trees.feed.range(range) {
            let (key, bytes) = self.checked(item)?;
            let Ok(seq) = <[u8; 8]>::try_from(&*key) else { continue };
            entries.extend(entry(u64::from_be_bytes(seq), &bytes));
            if entries.len() == limit {
                break;
            }
        }
        // Read last: an event that was replaced during the scan above is here, or its successor is durable by now
        // and follows after `durable`.
        let replaced = self.published.replaced(after, durable);
        entries.extend(replaced.iter().filter_map(|(seq, bytes)| entry(*seq, bytes)));
        Ok(entries.into_values().take(limit).collect())
    }

    pub(super) fn floor(&self) -> Result<u64, StoreError> {
        let stored = self.checked(self.trees.meta.get(layout::FLOOR_KEY))?;
        match stored {
            None => Ok(0),
            // Nothing is complete then but the newest.
            Some(bytes) => Ok(layout::decode_floor(&bytes).unwrap_or_else(|| self.published.position().seq)),
        }
    }

    pub(super) fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let AuditEnds { start, head } = self.audit_ends()?;
        let (after, durable) = (after.max(start.number), head.number);
        if after >= durable {
            return Ok(Vec::new());
        }
        let range = (Bound::Excluded(after.to_be_bytes()), Bound::Included(durable.to_be_bytes()));
        let mut entries = Vec::new();
        for item in self.trees.audit.range(range).take(limit) {
            let (key, bytes) = self.checked(item)?;
            let Ok(number) = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes) else { continue };
            // One that is cut short is shown as it is: the chain tells that it is not what was written.
            let (link, body) =
                layout::decode_audit(number, &bytes).unwrap_or((AuditLink { number, hash: [0; 32] }, &bytes));
            entries.push(AuditEntry { link, body: body.to_vec() });
        }
        Ok(entries)
    }

    pub(super) fn audit_ends(&self) -> Result<AuditEnds, StoreError> {
        let stored = self.checked(self.trees.meta.get(layout::AUDIT_START_KEY))?;
        let start = match stored {
            None => AuditLink::START,
            Some(bytes) => layout::decode_link(&bytes).ok_or(StoreError::AuditDamaged { number: 0 })?,
        };
        Ok(AuditEnds { start, head: self.published.reached().audit })
    }

    fn listed(&self, table: Table, start: Bound<Vec<u8>>, prefix: &[u8], limit: usize) -> Result<Listed, StoreError> {
        let table_len = layout::table_prefix(table).len();
        let mut listed = Vec::new();
        for item in self.trees.records.range((start, Bound::Unbounded)) {
            let (record_key, bytes) = self.checked(item)?;
            if listed.len() >= limit || !record_key.starts_with(prefix) {
                break;
            }
            let key = &record_key[table_len..];
            let record = match self.assembled(&record_key, &bytes)? {
                Some(record) => Some(record),
                None => self.record_or_log(table, key)?,
            };
            listed.extend(record.map(|record| (key.to_vec(), record)));
        }
        Ok(listed)
    }

    fn record_or_log(&self, table: Table, key: &[u8]) -> Result<Option<Record>, StoreError> {
        match self.record(table, key) {
            Err(StoreError::Corrupt { .. }) => {
                log_damaged(table, key);
                Ok(None)
            }
            other => other,
        }
    }

    /// The record whose header was read; none if it is damaged or has just been replaced.
    pub(super) fn assembled(&self, record_key: &[u8], bytes: &[u8]) -> Result<Option<Record>, StoreError> {
        let Some((header, inline)) = Header::decode(record_key, bytes) else { return Ok(None) };
        let mut value = inline.to_vec();
        for index in 0..header.chunks() {
            let chunk_key = layout::chunk_key(record_key, header.generation, index);
            match self.checked(self.trees.chunks.get(chunk_key))? {
                Some(chunk) => value.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
        let intact = header.vouches_for(&value);
        Ok(intact.then_some(Record { version: header.version, value, expires_at: header.expires_at }))
    }

    /// An engine that cannot read is not to be written to.
    fn checked<T>(&self, result: Result<T, sled::Error>) -> Result<T, StoreError> {
        result.map_err(|error| {
            let error = StoreError::engine("read")(error);
            self.published.fail(&error.to_string());
            error
        })
    }
}

/// The entry with its sequence as a sort key; none, with a log line, if it is damaged.
fn entry(seq: u64, bytes: &[u8]) -> Option<(u64, Entry)> {
    let Some(event) = layout::decode_event(seq, bytes) else {
        tracing::error!(seq, "left out a damaged event of the feed");
        return None;
    };
    Some((seq, Entry { seq, event: event.to_vec() }))
}
