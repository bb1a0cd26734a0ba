//! The row of `meta` and the rows of `writers`: where the store is, and who writes.

use std::time::Duration;

use tokio_postgres::{Row, types::Type};

use super::{
    failure::Fault,
    group::State,
    session::{Parameter, Session},
};
use crate::{AuditEnds, AuditLink, Position, StoreError};

/// The id of an open store, or of one that only shows that the server still acknowledges.
pub(super) type WriterId = [u8; 16];

/// Makes the row of a new store, under a random epoch; a row that is there stays.
pub(super) async fn create(session: &Session, epoch: [u8; 16]) -> Result<(), Fault> {
    let zero = [0u8; 32];
    let insert = "INSERT INTO certseal.meta (id, epoch, seq, floor, audit_number, audit_hash, \
                  audit_start_number, audit_start_hash) VALUES (1, $1, 0, 0, 0, $2, 0, $2) ON CONFLICT (id) DO NOTHING";
    session.run("begin", BEGIN).await?;
    let parameters: [Parameter<'_>; 2] = [(&epoch.as_slice(), Type::BYTEA), (&zero.as_slice(), Type::BYTEA)];
    session.execute("make the store's row", insert, &parameters).await?;
    session.commit(COMMIT_PATIENCE).await
}

/// Registers a writer, and forgets those that were not seen for a month.
pub(super) async fn register(session: &Session, id: WriterId) -> Result<(), Fault> {
    session.run("begin", BEGIN).await?;
    let forget = "DELETE FROM certseal.writers WHERE seen_at < now() - interval '30 days'";
    session.run("forget old writers", forget).await?;
    let insert = "INSERT INTO certseal.writers (id, last_group, seen_at) VALUES ($1, 0, now()) \
                  ON CONFLICT (id) DO NOTHING";
    session.execute("register a writer", insert, &[(&id.as_slice(), Type::BYTEA)]).await?;
    session.commit(COMMIT_PATIENCE).await
}

/// Shows that these writers are there, unless they have shown it a moment ago.
///
/// A row that is locked is being written, which shows the same; nobody waits for it here, and so nobody for this.
pub(super) async fn show(session: &Session, ids: &[WriterId]) -> Result<(), Fault> {
    let update = "UPDATE certseal.writers SET seen_at = now() WHERE id IN (SELECT id FROM certseal.writers \
                  WHERE id = ANY($1) AND seen_at < now() - interval '10 seconds' FOR UPDATE SKIP LOCKED)";
    let ids: Vec<&[u8]> = ids.iter().map(<[u8; 16]>::as_slice).collect();
    session.execute("show that the store is open", update, &[(&ids, Type::BYTEA_ARRAY)]).await.map(drop)
}

/// Fails if a writer was seen within the last minute.
pub(super) async fn quiet(session: &Session) -> Result<(), Fault> {
    let newest = "SELECT extract(epoch FROM now() - max(seen_at))::int8 FROM certseal.writers";
    let rows = session.query("look for open stores", newest, &[]).await?;
    let seconds: Option<i64> = rows.first().ok_or_else(no_row)?.try_get(0).map_err(unreadable)?;
    match seconds {
        // In the future, when the server's clock was put back: it may be a moment ago.
        Some(seconds) if seconds < 60 => {
            Err(Fault::lasting(StoreError::StillOpen { seconds: u64::try_from(seconds).unwrap_or(0) }))
        }
        _ => Ok(()),
    }
}

/// The last group that this writer committed, once everything up to it is as durable as an acknowledgement.
///
/// The update waits for a session that still holds the row, which is one whose commit is under way. Its own commit is
/// what makes the answer final: it is acknowledged only after all that the server wrote before it.
pub(super) async fn last_group(session: &Session, id: WriterId, patience: Duration) -> Result<i64, Fault> {
    let action = "ask for the last group of writes";
    session.run("begin", BEGIN).await?;
    let touch = "UPDATE certseal.writers SET seen_at = now() WHERE id = $1 RETURNING last_group";
    let rows = session.query(action, touch, &[(&id.as_slice(), Type::BYTEA)]).await?;
    let Some(row) = rows.first() else { return Err(forgotten()) };
    let found = row.try_get(0).map_err(Fault::unreadable(action))?;
    session.commit(patience).await?;
    Ok(found)
}

/// The error for a writer whose row is gone: the database is another one, or was restored from before the row.
pub(super) fn forgotten() -> Fault {
    Fault::lasting(StoreError::Database {
        action: "find the row of this writer",
        cause: "the database was replaced or restored while the store was open: start again".to_owned(),
    })
}

/// Reads the row.
pub(super) async fn read(session: &Session) -> Result<State, Fault> {
    let rows = session.query("read the store's row", &format!("{SELECT} WHERE id = 1"), &[]).await?;
    decoded(&rows)
}

/// Reads the row of a store that a copy may still be going into.
pub(super) async fn read_unfinished(session: &Session) -> Result<State, Fault> {
    let rows = session.query("read the store's row", &format!("{SELECT} WHERE id = 1"), &[]).await?;
    rows.first().ok_or_else(no_row).and_then(state)
}

/// Locks the row until the transaction ends, and reads it.
pub(super) async fn lock(session: &Session) -> Result<State, Fault> {
    let rows = session.query("lock the store's row", &format!("{SELECT} WHERE id = 1 FOR UPDATE"), &[]).await?;
    decoded(&rows)
}

/// Writes the row back, in the transaction that locked it.
pub(super) async fn store(session: &Session, state: &State) -> Result<(), Fault> {
    let update = "UPDATE certseal.meta SET epoch = $1, seq = $2, floor = $3, audit_number = $4, audit_hash = $5, \
                  audit_start_number = $6, audit_start_hash = $7 WHERE id = 1";
    let AuditEnds { start, head } = state.audit;
    let (seq, floor) = (integer(state.position.seq)?, integer(state.floor)?);
    let (head_number, start_number) = (integer(head.number)?, integer(start.number)?);
    let parameters: [Parameter<'_>; 7] = [
        (&state.position.epoch.as_slice(), Type::BYTEA),
        (&seq, Type::INT8),
        (&floor, Type::INT8),
        (&head_number, Type::INT8),
        (&head.hash.as_slice(), Type::BYTEA),
        (&start_number, Type::INT8),
        (&start.hash.as_slice(), Type::BYTEA),
    ];
    session.execute("write the store's row", update, &parameters).await.map(drop)
}

/// Notes in the writer's row that this group is part of the transaction.
pub(super) async fn note_group(session: &Session, id: WriterId, group: i64) -> Result<(), Fault> {
    let update = "UPDATE certseal.writers SET last_group = $2, seen_at = now() WHERE id = $1";
    let parameters: [Parameter<'_>; 2] = [(&id.as_slice(), Type::BYTEA), (&group, Type::INT8)];
    match session.execute("note the group of writes", update, &parameters).await? {
        0 => Err(forgotten()),
        _ => Ok(()),
    }
}

/// The position in the first two columns.
pub(super) fn position(row: &Row) -> Result<Position, Fault> {
    let epoch: &[u8] = row.try_get(0).map_err(unreadable)?;
    let epoch = epoch.try_into().map_err(|_| not_ours("an epoch of another length"))?;
    Ok(Position { epoch, seq: natural(row, 1)? })
}

/// A column that is never negative.
pub(super) fn natural(row: &Row, column: usize) -> Result<u64, Fault> {
    let value: i64 = row.try_get(column).map_err(unreadable)?;
    u64::try_from(value).map_err(|_| not_ours("a negative number"))
}

/// A link in two columns.
pub(super) fn link(row: &Row, column: usize) -> Result<AuditLink, Fault> {
    let hash: &[u8] = row.try_get(column + 1).map_err(unreadable)?;
    let hash = hash.try_into().map_err(|_| not_ours("a hash of another length"))?;
    Ok(AuditLink { number: natural(row, column)?, hash })
}

/// A number as the database counts: 63 bits.
pub(super) fn integer(number: u64) -> Result<i64, Fault> {
    i64::try_from(number).map_err(|_| not_ours("a number beyond 2^63"))
}

pub(super) fn unreadable(error: tokio_postgres::Error) -> Fault {
    Fault::unreadable("read a row")(error)
}

fn decoded(rows: &[Row]) -> Result<State, Fault> {
    let row = rows.first().ok_or_else(no_row)?;
    let importing: Option<String> = row.try_get(7).map_err(unreadable)?;
    if let Some(origin) = importing {
        return Err(Fault::lasting(StoreError::Unfinished { origin }));
    }
    let moved_to: Option<String> = row.try_get(8).map_err(unreadable)?;
    if let Some(to) = moved_to {
        return Err(Fault::lasting(StoreError::Moved { place: "this database".to_owned(), to }));
    }
    state(row)
}

fn state(row: &Row) -> Result<State, Fault> {
    let audit = AuditEnds { head: link(row, 3)?, start: link(row, 5)? };
    Ok(State { position: position(row)?, floor: natural(row, 2)?, audit })
}

pub(super) fn no_row() -> Fault {
    not_ours("no row in certseal.meta")
}

fn not_ours(came: &str) -> Fault {
    Fault::lasting(StoreError::Database { action: "read the store's tables", cause: format!("found {came}") })
}

/// The level is fixed, whatever the database's default is: stronger levels would fail where these transactions wait for
/// the locked row.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// How often an open store shows that it is there, also while it has nothing to write. Three times in the minute in which
/// [`quiet`] looks for open stores, so that one answer that fails to come does not hide it, and far more often than
/// [`register`] forgets writers. It costs one short statement on two rows of its own, of a store that is idle only.
pub(super) const SHOW_EVERY: Duration = Duration::from_secs(20);

/// Enough for a replica that has to catch up first.
pub(super) const COMMIT_PATIENCE: Duration = Duration::from_secs(30);

const SELECT: &str = "SELECT epoch, seq, floor, audit_number, audit_hash, audit_start_number, audit_start_hash, \
                      importing, moved_to FROM certseal.meta";
