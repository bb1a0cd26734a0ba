//! Copying a directory into another engine, and another engine into a new directory.

use std::{fs, ops::Bound, path::Path, sync::Arc};

use super::{
    SledOptions, SledStore,
    directory::sync_directory,
    high_water::HighWater,
    layout::{self, CHUNK_BYTES, Header},
    open::{self, Opened},
    published::Published,
    reached::Reached,
    reader::Reader,
};
use crate::{
    AuditEntry, Entry, Record, Storage, StoreError,
    migrate::{CopiedEvent, CopiedRecord, Source, Standing, TableKey, Target},
};

impl Source for SledStore {
    fn standing(&self) -> Result<Standing, StoreError> {
        Ok(Standing { position: self.head()?, floor: self.floor()?, audit: self.audit_ends()? })
    }

    fn copied_records(&self, after: Option<&TableKey>, limit: usize) -> Result<Vec<CopiedRecord>, StoreError> {
        self.reader.copied_records(after, limit)
    }

    fn copied_events(&self, after: Option<&TableKey>, limit: usize) -> Result<Vec<CopiedEvent>, StoreError> {
        self.reader.copied_events(after, limit)
    }

    fn copied_audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.audit(after, limit)
    }

    fn retire(&self, went_to: &str) -> Result<(), StoreError> {
        open::write_marker(self.space.directory(), open::MOVED_FILE, went_to)
    }
}

/// A new directory that another store is copied into.
pub(super) struct SledTarget {
    opened: Opened,
    reader: Reader,
}

impl SledStore {
    /// Prepares `directory` for a copy from `origin`. It has to be new, or the leftover of a copy that was cut short.
    pub fn target(directory: &Path, options: SledOptions, origin: &str) -> Result<Box<dyn Target>, StoreError> {
        let opened = Opened::for_copy(directory, &options, origin)?;
        let reader = Reader::new(opened.trees.clone(), Arc::new(Published::new(opened.reached)));
        Ok(Box::new(SledTarget { opened, reader }))
    }
}

impl Source for SledTarget {
    fn standing(&self) -> Result<Standing, StoreError> {
        let audit = self.reader.audit_ends()?;
        Ok(Standing { position: self.opened.reached.position, floor: self.reader.floor()?, audit })
    }

    fn copied_records(&self, after: Option<&TableKey>, limit: usize) -> Result<Vec<CopiedRecord>, StoreError> {
        self.reader.copied_records(after, limit)
    }

    fn copied_events(&self, after: Option<&TableKey>, limit: usize) -> Result<Vec<CopiedEvent>, StoreError> {
        self.reader.copied_events(after, limit)
    }

    fn copied_audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.reader.audit(after, limit)
    }

    fn retire(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Target for SledTarget {
    fn put_records(&mut self, records: &[CopiedRecord]) -> Result<(), StoreError> {
        let trees = &self.opened.trees;
        let engine = || StoreError::engine("write a copied record");
        for CopiedRecord { key: (table, key), record } in records {
            let record_key = raw_key(table, key);
            // No later write of the key has this generation, since sequences stay below it.
            let header = Header::new(record.version, record.expires_at, u64::MAX, &record.value);
            let inline = if header.chunks() == 0 { record.value.as_slice() } else { &[] };
            if header.chunks() > 0 {
                for (index, chunk) in (0..).zip(record.value.chunks(CHUNK_BYTES)) {
                    trees.chunks.insert(layout::chunk_key(&record_key, u64::MAX, index), chunk).map_err(engine())?;
                }
            }
            if let Some(expires_at) = record.expires_at {
                let expiry_key = [raw_key(table, &expires_at.to_be_bytes()).as_slice(), key].concat();
                trees.expiry.insert(expiry_key, &[]).map_err(engine())?;
            }
            trees.records.insert(&record_key, header.encode(&record_key, inline)).map_err(engine())?;
        }
        Ok(())
    }

    fn put_events(&mut self, events: &[CopiedEvent]) -> Result<(), StoreError> {
        let trees = &self.opened.trees;
        let engine = || StoreError::engine("write a copied event");
        for CopiedEvent { key: (table, key), entry } in events {
            let record_key = raw_key(table, key);
            trees.newest.insert(&record_key, layout::encode_newest(&record_key, entry.seq)).map_err(engine())?;
            let encoded = layout::encode_event(entry.seq, &entry.event);
            trees.feed.insert(entry.seq.to_be_bytes(), encoded).map_err(engine())?;
        }
        Ok(())
    }

    fn put_audit(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        for AuditEntry { link, body } in entries {
            let inserted = self.opened.trees.audit.insert(link.number.to_be_bytes(), layout::encode_audit(link, body));
            inserted.map_err(StoreError::engine("write a copied entry of the audit log"))?;
        }
        Ok(())
    }

    fn settle(&mut self, standing: &Standing) -> Result<(), StoreError> {
        let meta = &self.opened.trees.meta;
        let rows: [(&[u8], Vec<u8>); 4] = [
            (layout::POSITION_KEY, layout::encode_position(standing.position).to_vec()),
            (layout::FLOOR_KEY, layout::encode_floor(standing.floor)),
            (layout::AUDIT_HEAD_KEY, layout::encode_link(&standing.audit.head).to_vec()),
            (layout::AUDIT_START_KEY, layout::encode_link(&standing.audit.start).to_vec()),
        ];
        for (key, value) in rows {
            meta.insert(key, value).map_err(StoreError::engine("note where the copy is"))?;
        }
        self.opened.log.persist(&self.opened.trees)?;
        HighWater::create(&self.opened.directory, standing.position)?;
        self.opened.reached = Reached { position: standing.position, audit: standing.audit.head };
        let published = Published::new(self.opened.reached);
        self.reader = Reader::new(self.opened.trees.clone(), Arc::new(published));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        let marker = self.opened.directory.join(open::UNFINISHED_FILE);
        fs::remove_file(&marker).map_err(StoreError::io("remove", marker))?;
        sync_directory(&self.opened.directory)
    }
}

impl Reader {
    fn copied_records(&self, after: Option<&TableKey>, limit: usize) -> Result<Vec<CopiedRecord>, StoreError> {
        let mut page = Vec::new();
        for item in self.trees().records.range(range(after)).take(limit) {
            let (record_key, bytes) = item.map_err(StoreError::engine("read"))?;
            let key = table_key(&record_key)?;
            let record: Option<Record> = self.assembled(&record_key, &bytes)?;
            let Some(record) = record else { return Err(damaged("record", &key)) };
            page.push(CopiedRecord { key, record });
        }
        Ok(page)
    }

    fn copied_events(&self, after: Option<&TableKey>, limit: usize) -> Result<Vec<CopiedEvent>, StoreError> {
        let mut page = Vec::new();
        for item in self.trees().newest.range(range(after)).take(limit) {
            let (record_key, bytes) = item.map_err(StoreError::engine("read"))?;
            let key = table_key(&record_key)?;
            let Some(seq) = layout::decode_newest(&record_key, &bytes) else { return Err(damaged("event", &key)) };
            let stored = self.trees().feed.get(seq.to_be_bytes()).map_err(StoreError::engine("read"))?;
            let event = stored.as_ref().and_then(|bytes| layout::decode_event(seq, bytes));
            let Some(event) = event else { return Err(damaged("event", &key)) };
            page.push(CopiedEvent { key, entry: Entry { seq, event: event.to_vec() } });
        }
        Ok(page)
    }
}

fn range(after: Option<&TableKey>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let start = after.map_or(Bound::Unbounded, |(table, key)| Bound::Excluded(raw_key(table, key)));
    (start, Bound::Unbounded)
}

/// Like [`layout::record_key`], for a table whose name comes from another store.
fn raw_key(table: &[u8], key: &[u8]) -> Vec<u8> {
    // A table name has at most 32 bytes.
    [&[table.len() as u8][..], table, key].concat()
}

fn table_key(record_key: &[u8]) -> Result<TableKey, StoreError> {
    let split = record_key.split_first().and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)));
    split.map(|(table, key)| (table.to_vec(), key.to_vec())).ok_or_else(|| StoreError::Database {
        action: "read a key",
        cause: format!("{} is none of ours", record_key.escape_ascii()),
    })
}

fn damaged(what: &str, (table, key): &TableKey) -> StoreError {
    StoreError::Database {
        action: "copy the store",
        cause: format!(
            "the {what} of {} in table {} is damaged: overwrite or delete the record first",
            key.escape_ascii(),
            table.escape_ascii()
        ),
    }
}
