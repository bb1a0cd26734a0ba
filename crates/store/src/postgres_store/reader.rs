//! Reads: each is one statement, and so one snapshot, on the server that accepts writes.
//!
//! A reader of the feed must not see what a failover may still take back, neither an event nor the hole where an event
//! was replaced: its cursor would get ahead. A server normally shows a commit only once its replicas have it, but not
//! after a crash, which brings back what it had written itself, nor after a wait for replicas was cancelled. So what was
//! read is handed out only once the same session has had a commit of its own acknowledged that came later, or one of
//! this process's writes has. On a store that writes, that is hardly ever needed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use deadpool::managed::{Object, Pool, PoolError};
use tokio_postgres::{Row, types::Type};

use super::{
    failure::{Fault, persistently},
    meta::{self, WriterId, natural, position, unreadable},
    session::{Connector, Parameter, Session},
    shared::Shared,
};
use crate::{AuditEnds, AuditEntry, AuditLink, Entry, Position, Record, StoreError, Table, storage::log_damaged};

/// A reader of the database, for any number of threads.
pub(super) struct Reader {
    pub(super) sessions: Pool<Connector>,
    pub(super) shared: Arc<Shared>,
    /// The row of `writers` that its own commits touch. Not the writer's, which a group may hold.
    pub(super) witness: WriterId,
    pub(super) give_up: Duration,
    /// How long a commit of its own may take: the server may hang, and have been replaced long ago.
    pub(super) doubt_after: Duration,
}

type Listed = Vec<(Vec<u8>, Record)>;

impl Reader {
    pub(super) async fn record(&self, table: Table, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let name = table.name().as_bytes();
        let parameters: [Parameter<'_>; 2] = [(&name, Type::BYTEA), (&key, Type::BYTEA)];
        let rows = self.records("tbl = $1 AND key = $2", "key", &parameters).await?;
        match rows.first().map(record) {
            None => Ok(None),
            Some(Some((_, record))) => Ok(Some(record)),
            Some(None) => Err(StoreError::Corrupt { table, key: key.to_owned() }),
        }
    }

    pub(super) async fn all(&self, keys: &[(Table, Vec<u8>)]) -> Result<Vec<Option<Record>>, StoreError> {
        let tables: Vec<&[u8]> = keys.iter().map(|(table, _)| table.name().as_bytes()).collect();
        let names: Vec<&[u8]> = keys.iter().map(|(_, key)| key.as_slice()).collect();
        let parameters: [Parameter<'_>; 2] = [(&tables, Type::BYTEA_ARRAY), (&names, Type::BYTEA_ARRAY)];
        let condition = "(tbl, key) IN (SELECT * FROM unnest($1::bytea[], $2::bytea[]))";
        let rows = self.records(condition, "key", &parameters).await?;
        let place = |row| Some((Row::try_get::<_, &[u8]>(row, 6).ok()?, Row::try_get::<_, &[u8]>(row, 2).ok()?));
        let found: HashMap<_, _> = rows.iter().filter_map(|row| Some((place(row)?, record(row)))).collect();
        let get = |(table, key): &(Table, Vec<u8>)| match found.get(&(table.name().as_bytes(), key.as_slice()))? {
            Some((_, record)) => Some(record.clone()),
            None => {
                log_damaged(*table, key);
                None
            }
        };
        Ok(keys.iter().map(get).collect())
    }

    pub(super) async fn after(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Listed, StoreError> {
        // The empty key comes before all others, and it is a key: without `after` the list begins with it.
        let first = after.is_none();
        let condition = "tbl = $1 AND key >= $2 AND (key > $2 OR $3) ORDER BY key LIMIT $4";
        let (name, after, limit) = (table.name().as_bytes(), after.unwrap_or_default(), bounded(limit));
        let parameters: [Parameter<'_>; 4] =
            [(&name, Type::BYTEA), (&after, Type::BYTEA), (&first, Type::BOOL), (&limit, Type::INT8)];
        Ok(listed(table, &self.records(condition, "key", &parameters).await?))
    }

    pub(super) async fn with_prefix(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Listed, StoreError> {
        let (name, limit) = (table.name().as_bytes(), bounded(limit));
        let rows = match successor(prefix) {
            None => {
                let condition = "tbl = $1 AND key >= $2 ORDER BY key LIMIT $3";
                let parameters: [Parameter<'_>; 3] =
                    [(&name, Type::BYTEA), (&prefix, Type::BYTEA), (&limit, Type::INT8)];
                self.records(condition, "key", &parameters).await?
            }
            Some(end) => {
                let condition = "tbl = $1 AND key >= $2 AND key < $3 ORDER BY key LIMIT $4";
                let parameters: [Parameter<'_>; 4] =
                    [(&name, Type::BYTEA), (&prefix, Type::BYTEA), (&end, Type::BYTEA), (&limit, Type::INT8)];
                self.records(condition, "key", &parameters).await?
            }
        };
        Ok(listed(table, &rows))
    }

    pub(super) async fn expired(&self, table: Table, now: u64, limit: usize) -> Result<Listed, StoreError> {
        let condition = "tbl = $1 AND expires_at IS NOT NULL AND expires_at <= $2 ORDER BY expires_at, key LIMIT $3";
        let (name, now, limit) = (table.name().as_bytes(), clamped(now), bounded(limit));
        let parameters: [Parameter<'_>; 3] = [(&name, Type::BYTEA), (&now, Type::INT8), (&limit, Type::INT8)];
        Ok(listed(table, &self.records(condition, "expires_at, key", &parameters).await?))
    }

    pub(super) async fn head(&self) -> Result<Position, StoreError> {
        let rows = self.durable_rows("SELECT epoch, seq FROM certseal.meta WHERE id = 1", &[]).await?;
        self.decoded(&rows, position)
    }

    pub(super) async fn floor(&self) -> Result<u64, StoreError> {
        let rows = self.durable_rows("SELECT epoch, seq, floor FROM certseal.meta WHERE id = 1", &[]).await?;
        self.decoded(&rows, |row| natural(row, 2))
    }

    pub(super) async fn feed(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let statement = "SELECT m.epoch, m.seq, f.seq, f.event FROM certseal.meta m LEFT JOIN \
             (SELECT seq, event FROM certseal.feed WHERE seq > $1 ORDER BY seq LIMIT $2) f ON true \
             WHERE m.id = 1 ORDER BY f.seq";
        let parameters: [Parameter<'_>; 2] = [(&clamped(after), Type::INT8), (&bounded(limit), Type::INT8)];
        let rows = self.durable_rows(statement, &parameters).await?;
        let entries = rows.iter().filter_map(|row| {
            let seq: Option<i64> = row.try_get(2).ok()?;
            Some(Entry { seq: u64::try_from(seq?).ok()?, event: row.try_get(3).ok()? })
        });
        Ok(entries.collect())
    }

    pub(super) async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let statement = "SELECT m.epoch, m.seq, a.number, a.hash, a.body FROM certseal.meta m LEFT JOIN \
             (SELECT number, hash, body FROM certseal.audit WHERE number > $1 ORDER BY number LIMIT $2) a ON true \
             WHERE m.id = 1 ORDER BY a.number";
        let parameters: [Parameter<'_>; 2] = [(&clamped(after), Type::INT8), (&bounded(limit), Type::INT8)];
        let rows = self.durable_rows(statement, &parameters).await?;
        let entries = rows.iter().filter_map(|row| {
            let number: Option<i64> = row.try_get(2).ok()?;
            let number = u64::try_from(number?).ok()?;
            // One whose hash cannot be read is shown without: the chain tells that it is not what was written.
            let hash: &[u8] = row.try_get(3).ok()?;
            let link = AuditLink { number, hash: hash.try_into().unwrap_or_default() };
            Some(AuditEntry { link, body: row.try_get(4).ok()? })
        });
        Ok(entries.collect())
    }

    pub(super) async fn audit_ends(&self) -> Result<AuditEnds, StoreError> {
        let statement = "SELECT epoch, seq, audit_start_number, audit_start_hash, audit_number, audit_hash \
             FROM certseal.meta WHERE id = 1";
        let rows = self.durable_rows(statement, &[]).await?;
        self.decoded(&rows, |row| Ok(AuditEnds { start: meta::link(row, 2)?, head: meta::link(row, 4)? }))
    }

    /// Asks the server anything, with one try.
    pub(super) async fn ping(&self) -> Result<(), Fault> {
        let session = self.session().await?;
        session.query("ask for an answer", "SELECT 1", &[]).await?;
        self.shared.in_contact();
        Ok(())
    }

    /// Shows from time to time that this store is open, for as long as its runtime runs. Not by the writer: that one waits
    /// for work.
    pub(super) async fn show_forever(self: Arc<Self>, writer: WriterId) {
        let ids = [writer, self.witness];
        loop {
            tokio::time::sleep(meta::SHOW_EVERY).await;
            let shown = persistently(meta::SHOW_EVERY, || async {
                let session = self.session().await?;
                let shown = meta::show(&session, &ids).await;
                kept_or_closed(session, shown)
            });
            if let Err(error) = shown.await {
                tracing::debug!(%error, "cannot show that the store is open");
            }
        }
    }

    /// Records under this condition, in this order: committed state, which may be a moment ahead of what is durable.
    ///
    /// It is never behind what was acknowledged here. A primary that hung while another one took its place goes on
    /// answering for a moment, on connections from before, and may not know of our own writes.
    async fn records(
        &self,
        condition: &str,
        order: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let statement = format!(
            "SELECT m.epoch, m.seq, r.key, r.version, r.value, r.expires_at, r.tbl FROM certseal.meta m LEFT JOIN \
             (SELECT tbl, key, version, value, expires_at FROM certseal.records WHERE {condition}) r ON true \
             WHERE m.id = 1 ORDER BY {order}"
        );
        let mut rows = persistently(self.give_up, || async {
            let before = self.shared.proven();
            let session = self.session().await?;
            let read = session.query("read", &statement, parameters).await;
            let read = read.and_then(|rows| {
                let first = rows.first().ok_or_else(meta::no_row)?;
                self.shared.check(before, position(first)?)?;
                Ok(rows)
            });
            kept_or_closed(session, read)
        })
        .await?;
        // No record at all is one row without one.
        rows.retain(|row| !matches!(row.try_get::<_, Option<&[u8]>>(2), Ok(None)));
        Ok(rows)
    }

    /// Durable state. The statement's first two columns are the store's position in the same snapshot.
    async fn durable_rows(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StoreError> {
        persistently(self.give_up, || async {
            let before = self.shared.proven();
            let session = self.session().await?;
            let read = self.durable(&session, before, statement, parameters).await;
            kept_or_closed(session, read)
        })
        .await
    }

    async fn durable(
        &self,
        session: &Session,
        before: Position,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Fault> {
        let rows = session.query("read", statement, parameters).await?;
        let Some(first) = rows.first() else { return Ok(rows) };
        let found = position(first)?;
        self.shared.check(before, found)?;
        if found.seq > self.shared.proven().seq {
            // On this session: another one may have reached another server.
            meta::last_group(session, self.witness, self.doubt_after.min(self.give_up)).await?;
            self.shared.prove(found);
        }
        Ok(rows)
    }

    async fn session(&self) -> Result<Object<Connector>, Fault> {
        self.sessions.get().await.map_err(|error| match error {
            PoolError::Backend(fault) => fault,
            other => Fault::passing(StoreError::Database { action: "get a session", cause: other.to_string() }),
        })
    }

    fn decoded<T>(&self, rows: &[Row], read: impl Fn(&Row) -> Result<T, Fault>) -> Result<T, StoreError> {
        let row = rows.first().ok_or(StoreError::Database {
            action: "read the store's tables",
            cause: "found no row in certseal.meta".to_owned(),
        })?;
        read(row).map_err(|fault| fault.error)
    }
}

/// Closes a session that failed: it may hang, be in the middle of something, or be of a server that was replaced.
fn kept_or_closed<T>(session: Object<Connector>, result: Result<T, Fault>) -> Result<T, Fault> {
    if result.is_err() {
        drop(Object::take(session));
    }
    result
}

fn listed(table: Table, rows: &[Row]) -> Listed {
    let mut listed = Vec::with_capacity(rows.len());
    for row in rows {
        match record(row) {
            Some(item) => listed.push(item),
            None => tracing::error!(%table, "left out a damaged record"),
        }
    }
    listed
}

/// A record with its key; none if it is not what we write.
fn record(row: &Row) -> Option<(Vec<u8>, Record)> {
    let expires_at: Option<i64> = row.try_get(5).map_err(unreadable).ok()?;
    let expires_at = expires_at.map(u64::try_from).transpose().ok()?;
    let version: i64 = row.try_get(3).ok()?;
    let record = Record { version: u64::try_from(version).ok()?, value: row.try_get(4).ok()?, expires_at };
    Some((row.try_get(2).ok()?, record))
}

/// The first key after all those with this prefix; none if there is no such key.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The database holds no larger number, so nothing is left out.
fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_successor_begins() {
        assert_eq!(successor(b"a"), Some(b"b".to_vec()));
        assert_eq!(successor(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(successor(&[255, 255]), None);
        assert_eq!(successor(b""), None);
    }
}
