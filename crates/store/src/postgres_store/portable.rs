//! Copying a database into another engine, and another engine into an empty database.

use std::{future::Future, sync::Arc};

use tokio::runtime::Runtime;
use tokio_postgres::types::Type;

use super::{
    PostgresOptions, PostgresStore,
    failure::{Fault, persistently},
    group::State,
    meta::{self, integer, natural, unreadable},
    random, schema,
    session::{Connector, Parameter, Session},
    waited_for,
};
use crate::{
    AuditEntry, AuditLink, Entry, Record, StoreError,
    migrate::{CopiedEvent, CopiedRecord, Source, Standing, TableKey, Target},
};

/// One session for a copy.
struct Copying {
    runtime: Runtime,
    session: Session,
}

impl PostgresStore {
    /// Opens a database to be copied from. Stop every daemon that uses it first, and wait a minute: where one was open
    /// since, writing or not, this ends in [`StoreError::StillOpen`]. One that cannot reach the database is not noticed.
    pub fn source(options: PostgresOptions) -> Result<Box<dyn Source>, StoreError> {
        let copying = Copying::connect(&options)?;
        copying.run(async {
            meta::read(&copying.session).await?;
            meta::quiet(&copying.session).await
        })?;
        Ok(Box::new(copying))
    }

    /// Prepares a database for a copy from `origin`. Its store has to be empty, or the leftover of a copy.
    pub fn target(options: PostgresOptions, origin: &str) -> Result<Box<dyn Target>, StoreError> {
        let copying = Copying::connect(&options)?;
        let epoch = random()?;
        copying.run(begin(&copying.session, epoch, origin))?;
        Ok(Box::new(copying))
    }
}

impl Copying {
    fn connect(options: &PostgresOptions) -> Result<Self, StoreError> {
        let connector = Arc::new(Connector::new(options)?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(StoreError::io("start threads for", "the database's connections"))?;
        let give_up = options.give_up;
        let session = waited_for(&runtime, async move { persistently(give_up, || connector.connect()).await })?;
        Ok(Self { runtime, session })
    }

    /// A copy that fails begins anew, so nothing is tried again.
    fn run<T>(&self, action: impl Future<Output = Result<T, Fault>>) -> Result<T, StoreError> {
        self.runtime.block_on(action).map_err(|fault| fault.error)
    }
}

impl Source for Copying {
    fn standing(&self) -> Result<Standing, StoreError> {
        let State { position, floor, audit } = self.run(meta::read_unfinished(&self.session))?;
        Ok(Standing { position, floor, audit })
    }

    fn copied_records(&self, after: Option<&TableKey>, limit: usize) -> Result<Vec<CopiedRecord>, StoreError> {
        let columns = "tbl, key, version, value, expires_at";
        self.run(async {
            let rows = page(&self.session, "records", columns, after, limit).await?;
            let records = rows.iter().map(|row| {
                let expires_at: Option<i64> = row.try_get(4).map_err(unreadable)?;
                let expires_at = expires_at.map(|_| natural(row, 4)).transpose()?;
                let value = row.try_get(3).map_err(unreadable)?;
                let record = Record { version: natural(row, 2)?, value, expires_at };
                Ok(CopiedRecord { key: table_key(row)?, record })
            });
            records.collect()
        })
    }

    fn copied_events(&self, after: Option<&TableKey>, limit: usize) -> Result<Vec<CopiedEvent>, StoreError> {
        self.run(async {
            let rows = page(&self.session, "feed", "tbl, key, seq, event", after, limit).await?;
            let events = rows.iter().map(|row| {
                let entry = Entry { seq: natural(row, 2)?, event: row.try_get(3).map_err(unreadable)? };
                Ok(CopiedEvent { key: table_key(row)?, entry })
            });
            events.collect()
        })
    }

    fn copied_audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let select = "SELECT number, hash, body FROM certseal.audit WHERE number > $1 ORDER BY number LIMIT $2";
        self.run(async {
            let (after, limit) = (integer(after)?, integer(limit as u64)?);
            let parameters: [Parameter<'_>; 2] = [(&after, Type::INT8), (&limit, Type::INT8)];
            let rows = self.session.query("read the audit log", select, &parameters).await?;
            let entries = rows.iter().map(|row| {
                let link: AuditLink = meta::link(row, 0)?;
                Ok(AuditEntry { link, body: row.try_get(2).map_err(unreadable)? })
            });
            entries.collect()
        })
    }

    fn retire(&self, went_to: &str) -> Result<(), StoreError> {
        let update = "UPDATE certseal.meta SET moved_to = $1 WHERE id = 1";
        self.run(async {
            self.session.run("begin", meta::BEGIN).await?;
            self.session.execute("retire the store", update, &[(&went_to, Type::TEXT)]).await?;
            self.session.commit(meta::COMMIT_PATIENCE).await
        })
    }
}

impl Target for Copying {
    fn put_records(&mut self, records: &[CopiedRecord]) -> Result<(), StoreError> {
        let insert = "INSERT INTO certseal.records (tbl, key, version, value, expires_at) \
             SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::int8[], $4::bytea[], $5::int8[])";
        let (tables, keys) = split(records.iter().map(|item| &item.key));
        let values: Vec<&[u8]> = records.iter().map(|item| item.record.value.as_slice()).collect();
        self.run(async {
            let versions = integers(records.iter().map(|item| item.record.version))?;
            let expiries = records.iter().map(|item| item.record.expires_at.map(integer).transpose());
            let expiries: Vec<Option<i64>> = expiries.collect::<Result<_, _>>()?;
            let parameters: [Parameter<'_>; 5] = [
                (&tables, Type::BYTEA_ARRAY),
                (&keys, Type::BYTEA_ARRAY),
                (&versions, Type::INT8_ARRAY),
                (&values, Type::BYTEA_ARRAY),
                (&expiries, Type::INT8_ARRAY),
            ];
            self.session.execute("copy records", insert, &parameters).await.map(drop)
        })
    }

    fn put_events(&mut self, events: &[CopiedEvent]) -> Result<(), StoreError> {
        let insert = "INSERT INTO certseal.feed (tbl, key, seq, event) \
             SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::int8[], $4::bytea[])";
        let (tables, keys) = split(events.iter().map(|item| &item.key));
        let bodies: Vec<&[u8]> = events.iter().map(|item| item.entry.event.as_slice()).collect();
        self.run(async {
            let seqs = integers(events.iter().map(|item| item.entry.seq))?;
            let parameters: [Parameter<'_>; 4] = [
                (&tables, Type::BYTEA_ARRAY),
                (&keys, Type::BYTEA_ARRAY),
                (&seqs, Type::INT8_ARRAY),
                (&bodies, Type::BYTEA_ARRAY),
            ];
            self.session.execute("copy events", insert, &parameters).await.map(drop)
        })
    }

    fn put_audit(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        let insert = "INSERT INTO certseal.audit (number, hash, body) \
             SELECT * FROM unnest($1::int8[], $2::bytea[], $3::bytea[])";
        let hashes: Vec<&[u8]> = entries.iter().map(|entry| entry.link.hash.as_slice()).collect();
        let bodies: Vec<&[u8]> = entries.iter().map(|entry| entry.body.as_slice()).collect();
        self.run(async {
            let numbers = integers(entries.iter().map(|entry| entry.link.number))?;
            let parameters: [Parameter<'_>; 3] =
                [(&numbers, Type::INT8_ARRAY), (&hashes, Type::BYTEA_ARRAY), (&bodies, Type::BYTEA_ARRAY)];
            self.session.execute("copy the audit log", insert, &parameters).await.map(drop)
        })
    }

    fn settle(&mut self, standing: &Standing) -> Result<(), StoreError> {
        let Standing { position, floor, audit } = *standing;
        self.run(async {
            self.session.run("begin", meta::BEGIN).await?;
            meta::store(&self.session, &State { position, floor, audit }).await?;
            self.session.commit(meta::COMMIT_PATIENCE).await
        })
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.run(async {
            let finish = format!("{}; UPDATE certseal.meta SET importing = NULL WHERE id = 1", meta::BEGIN);
            self.session.run("finish the copy", &finish).await?;
            self.session.commit(meta::COMMIT_PATIENCE).await
        })
    }
}

/// Marks an empty store, or the leftover of a copy, as one that a copy goes into.
async fn begin(session: &Session, epoch: [u8; 16], origin: &str) -> Result<(), Fault> {
    schema::migrate(session).await?;
    meta::create(session, epoch).await?;
    session.run("begin", meta::BEGIN).await?;
    let usable = "UPDATE certseal.meta SET importing = $1, seq = 0 \
         WHERE id = 1 AND moved_to IS NULL AND (importing IS NOT NULL OR (seq = 0 AND audit_number = 0))";
    if session.execute("mark the store", usable, &[(&origin, Type::TEXT)]).await? == 0 {
        return Err(Fault::lasting(StoreError::Database {
            action: "begin a copy",
            cause: "the database has a store that is not empty: name another database".to_owned(),
        }));
    }
    let clear = "DELETE FROM certseal.records; DELETE FROM certseal.feed; DELETE FROM certseal.audit";
    session.run("clear the leftover of a copy", clear).await?;
    session.commit(meta::COMMIT_PATIENCE).await
}

async fn page(
    session: &Session,
    table: &str,
    columns: &str,
    after: Option<&TableKey>,
    limit: usize,
) -> Result<Vec<tokio_postgres::Row>, Fault> {
    let limit = integer(limit as u64)?;
    match after {
        None => {
            let select = format!("SELECT {columns} FROM certseal.{table} ORDER BY tbl, key LIMIT $1");
            session.query("read a page", &select, &[(&limit, Type::INT8)]).await
        }
        Some((name, key)) => {
            let select = format!(
                "SELECT {columns} FROM certseal.{table} WHERE (tbl, key) > ($1, $2) ORDER BY tbl, key LIMIT $3"
            );
            let parameters: [Parameter<'_>; 3] = [(name, Type::BYTEA), (key, Type::BYTEA), (&limit, Type::INT8)];
            session.query("read a page", &select, &parameters).await
        }
    }
}

fn table_key(row: &tokio_postgres::Row) -> Result<TableKey, Fault> {
    Ok((row.try_get(0).map_err(unreadable)?, row.try_get(1).map_err(unreadable)?))
}

fn split<'a>(keys: impl Iterator<Item = &'a TableKey>) -> (Vec<&'a [u8]>, Vec<&'a [u8]>) {
    keys.map(|(table, key)| (table.as_slice(), key.as_slice())).unzip()
}

fn integers(numbers: impl Iterator<Item = u64>) -> Result<Vec<i64>, Fault> {
    numbers.map(integer).collect()
}
