//! A group's statements: the reads that it needs, in one query, and its net effect, in a handful.

use tokio_postgres::types::Type;

use super::{
    failure::Fault,
    group::{Effect, GroupEffect, Slot, State},
    meta::{self, WriterId, integer, unreadable},
    session::{Parameter, Session},
};
use crate::{AuditLink, StoreError, Transaction};

/// Locks the store and reads what the transactions touch.
pub(super) async fn load<'a>(
    session: &Session,
    state: State,
    transactions: impl Iterator<Item = &'a Transaction>,
) -> Result<GroupEffect<'a>, Fault> {
    let mut group = GroupEffect { state, slots: Default::default(), audit: Vec::new() };
    for write in transactions.flat_map(|transaction| &transaction.writes) {
        group.slots.insert((write.table, write.key.as_slice()), Slot::default());
    }
    let keys: Vec<_> = group.slots.keys().copied().collect();
    if keys.is_empty() {
        return Ok(group);
    }
    let tables: Vec<&[u8]> = keys.iter().map(|(table, _)| table.name().as_bytes()).collect();
    let names: Vec<&[u8]> = keys.iter().map(|(_, key)| *key).collect();
    let parameters: [Parameter<'_>; 2] = [(&tables, Type::BYTEA_ARRAY), (&names, Type::BYTEA_ARRAY)];
    for row in session.query("read versions", VERSIONS, &parameters).await? {
        let index: i64 = row.try_get(0).map_err(unreadable)?;
        let version: Option<i64> = row.try_get(1).map_err(unreadable)?;
        let event: Option<i64> = row.try_get(2).map_err(unreadable)?;
        let key = usize::try_from(index - 1).ok().and_then(|index| keys.get(index));
        let Some(slot) = key.and_then(|key| group.slots.get_mut(key)) else { continue };
        slot.version = version.and_then(|version| u64::try_from(version).ok());
        slot.damaged = version.is_some() && slot.version.is_none();
        slot.event = event.and_then(|event| u64::try_from(event).ok());
        slot.stored_event = slot.event;
    }
    Ok(group)
}

/// Writes the group's net effect. The transaction is still open then.
pub(super) async fn store(
    session: &Session,
    group: &GroupEffect<'_>,
    writer: WriterId,
    number: i64,
) -> Result<(), Fault> {
    let (mut put, mut removed, mut events) = (Puts::default(), Keys::default(), Events::default());
    let mut silenced: Vec<i64> = Vec::new();
    for ((table, key), slot) in &group.slots {
        let table = table.name().as_bytes();
        match slot.record {
            Effect::None => {}
            Effect::Set(record) => {
                put.keys.push(table, key);
                put.versions.push(integer(record.version)?);
                put.values.push(record.value);
                put.expiries.push(record.expires_at.map(integer).transpose()?);
            }
            Effect::Remove => removed.push(table, key),
        }
        match slot.announced {
            Effect::None => {}
            Effect::Set((seq, event)) => {
                events.keys.push(table, key);
                events.seqs.push(integer(seq)?);
                events.events.push(event);
            }
            Effect::Remove => silenced.extend(slot.stored_event.map(integer).transpose()?),
        }
    }
    // They touch different rows, so they may be under way at once: one round trip for all.
    tokio::try_join!(
        put.store(session),
        removed.delete(session),
        silence(session, &silenced),
        events.store(session),
        append(session, &group.audit),
        meta::note_group(session, writer, number),
        meta::store(session, &group.state),
    )
    .map(drop)
}

async fn silence(session: &Session, seqs: &Vec<i64>) -> Result<(), Fault> {
    if seqs.is_empty() {
        return Ok(());
    }
    let delete = "DELETE FROM certseal.feed WHERE seq = ANY($1)";
    session.execute("delete events", delete, &[(seqs, Type::INT8_ARRAY)]).await.map(drop)
}

/// Drops entries of the audit log up to `through`, if it is there; answers what the store's row becomes.
pub(super) async fn drop_audit(session: &Session, through: u64, mut state: State) -> Result<State, Fault> {
    let Ok(number) = i64::try_from(through) else { return Ok(state) };
    let find = "SELECT number, hash FROM certseal.audit WHERE number = $1";
    let rows = session.query("find an entry of the audit log", find, &[(&number, Type::INT8)]).await?;
    let Some(row) = rows.first() else { return Ok(state) };
    state.audit.start = meta::link(row, 0)?;
    let delete = "DELETE FROM certseal.audit WHERE number <= $1";
    session.execute("drop entries of the audit log", delete, &[(&number, Type::INT8)]).await?;
    state.position.seq += 1;
    Ok(state)
}

async fn append(session: &Session, entries: &[(AuditLink, &[u8])]) -> Result<(), Fault> {
    if entries.is_empty() {
        return Ok(());
    }
    let numbers = entries.iter().map(|(link, _)| integer(link.number)).collect::<Result<Vec<i64>, _>>()?;
    let hashes: Vec<&[u8]> = entries.iter().map(|(link, _)| link.hash.as_slice()).collect();
    let bodies: Vec<&[u8]> = entries.iter().map(|(_, body)| *body).collect();
    let parameters: [Parameter<'_>; 3] =
        [(&numbers, Type::INT8_ARRAY), (&hashes, Type::BYTEA_ARRAY), (&bodies, Type::BYTEA_ARRAY)];
    session.execute("append to the audit log", APPEND_AUDIT, &parameters).await.map(drop)
}

/// Refuses numbers that the database's 63 bits do not hold, before anything is sent.
pub(super) fn check_numbers(transaction: &Transaction) -> Result<(), StoreError> {
    let numbers = transaction.writes.iter().filter_map(|write| match write.change {
        crate::Change::Put { version, expires_at, .. } => Some([version, expires_at.unwrap_or(0)]),
        _ => None,
    });
    match numbers.flatten().find(|number| i64::try_from(*number).is_err()) {
        None => Ok(()),
        Some(number) => {
            let what = "as a version or an expiry";
            Err(StoreError::TooLarge { what, size: usize::try_from(number).unwrap_or(usize::MAX), limit: MAX_NUMBER })
        }
    }
}

/// Arrays of one length, which the database turns into rows.
#[derive(Default)]
struct Keys<'a> {
    tables: Vec<&'a [u8]>,
    keys: Vec<&'a [u8]>,
}

impl<'a> Keys<'a> {
    fn push(&mut self, table: &'a [u8], key: &'a [u8]) {
        self.tables.push(table);
        self.keys.push(key);
    }

    async fn delete(&self, session: &Session) -> Result<(), Fault> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let parameters: [Parameter<'_>; 2] = [(&self.tables, Type::BYTEA_ARRAY), (&self.keys, Type::BYTEA_ARRAY)];
        session.execute("delete records", DELETE_RECORDS, &parameters).await.map(drop)
    }
}

#[derive(Default)]
struct Puts<'a> {
    keys: Keys<'a>,
    versions: Vec<i64>,
    values: Vec<&'a [u8]>,
    expiries: Vec<Option<i64>>,
}

impl Puts<'_> {
    async fn store(&self, session: &Session) -> Result<(), Fault> {
        if self.versions.is_empty() {
            return Ok(());
        }
        let parameters: [Parameter<'_>; 5] = [
            (&self.keys.tables, Type::BYTEA_ARRAY),
            (&self.keys.keys, Type::BYTEA_ARRAY),
            (&self.versions, Type::INT8_ARRAY),
            (&self.values, Type::BYTEA_ARRAY),
            (&self.expiries, Type::INT8_ARRAY),
        ];
        session.execute("write records", PUT_RECORDS, &parameters).await.map(drop)
    }
}

#[derive(Default)]
struct Events<'a> {
    keys: Keys<'a>,
    seqs: Vec<i64>,
    events: Vec<&'a [u8]>,
}

impl Events<'_> {
    async fn store(&self, session: &Session) -> Result<(), Fault> {
        if self.seqs.is_empty() {
            return Ok(());
        }
        let parameters: [Parameter<'_>; 4] = [
            (&self.keys.tables, Type::BYTEA_ARRAY),
            (&self.keys.keys, Type::BYTEA_ARRAY),
            (&self.seqs, Type::INT8_ARRAY),
            (&self.events, Type::BYTEA_ARRAY),
        ];
        session.execute("write events", PUT_EVENTS, &parameters).await.map(drop)
    }
}

const VERSIONS: &str = "SELECT k.n, r.version, f.seq \
     FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS k (tbl, key, n) \
     LEFT JOIN certseal.records r ON r.tbl = k.tbl AND r.key = k.key \
     LEFT JOIN certseal.feed f ON f.tbl = k.tbl AND f.key = k.key \
     WHERE r.version IS NOT NULL OR f.seq IS NOT NULL";

const PUT_RECORDS: &str = "INSERT INTO certseal.records (tbl, key, version, value, expires_at) \
     SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::int8[], $4::bytea[], $5::int8[]) \
     ON CONFLICT (tbl, key) DO UPDATE \
     SET version = excluded.version, value = excluded.value, expires_at = excluded.expires_at";

const DELETE_RECORDS: &str = "DELETE FROM certseal.records r USING unnest($1::bytea[], $2::bytea[]) AS k (tbl, key) \
     WHERE r.tbl = k.tbl AND r.key = k.key";

/// An event takes the place of its key's earlier one.
const PUT_EVENTS: &str = "INSERT INTO certseal.feed (tbl, key, seq, event) \
     SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::int8[], $4::bytea[]) \
     ON CONFLICT (tbl, key) DO UPDATE SET seq = excluded.seq, event = excluded.event";

const APPEND_AUDIT: &str = "INSERT INTO certseal.audit (number, hash, body) \
     SELECT * FROM unnest($1::int8[], $2::bytea[], $3::bytea[])";

const MAX_NUMBER: usize = i64::MAX as usize;
