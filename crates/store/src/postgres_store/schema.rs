//! The tables, their migrations, and the first row of a new store.
//!
//! Plain SQL that every engine with PostgreSQL's protocol knows: no sequences, no notifications, no advisory locks. Keys
//! and table names are `bytea`, which sorts by bytes whatever the database's collation is, and takes every byte.

use super::{failure::Fault, session::Session};
use crate::StoreError;

/// Makes the tables, or brings them to this release's version.
///
/// Processes may start at once: all but one then fail on a row or table that the first has made, and look again.
pub(super) async fn migrate(session: &Session) -> Result<(), Fault> {
    if version(session).await?.is_some_and(|found| found == NEWEST) {
        return Ok(());
    }
    session.run("begin a migration", "BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(racing)?;
    let migrated = migrate_in_transaction(session).await;
    if migrated.is_err() {
        // Ends with the session otherwise.
        let _ = session.run("roll back", "ROLLBACK").await;
    }
    migrated.map_err(racing)
}

async fn migrate_in_transaction(session: &Session) -> Result<(), Fault> {
    session.run("make the table of migrations", MIGRATIONS_TABLE).await?;
    let found = stored_version(session).await?;
    for (number, statements) in (1..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        // First: a process that comes second stops here.
        let applied = format!("INSERT INTO certseal.schema_migrations (version, applied_at) VALUES ({number}, now())");
        session.run("note a migration", &applied).await?;
        session.run("migrate the tables", statements).await?;
    }
    session.commit(super::meta::COMMIT_PATIENCE).await
}

/// The version of the tables, if there are any.
async fn version(session: &Session) -> Result<Option<i32>, Fault> {
    let known = "SELECT 1 FROM information_schema.tables \
                 WHERE table_schema = 'certseal' AND table_name = 'schema_migrations'";
    if session.query("look for the tables", known, &[]).await?.is_empty() {
        return Ok(None);
    }
    let found = stored_version(session).await?;
    if found > NEWEST {
        return Err(Fault::lasting(StoreError::SchemaTooNew { found, known: NEWEST }));
    }
    Ok(Some(found))
}

async fn stored_version(session: &Session) -> Result<i32, Fault> {
    let newest = "SELECT coalesce(max(version), 0)::int4 FROM certseal.schema_migrations";
    let rows = session.query("read the version of the tables", newest, &[]).await?;
    let Some(row) = rows.first() else { return Ok(0) };
    row.try_get(0).map_err(Fault::unreadable("read the version of the tables"))
}

/// A process that loses against another one that makes the same tables may try again.
fn racing(fault: Fault) -> Fault {
    let lost = match &fault.error {
        StoreError::Database { cause, .. } => RACES.iter().any(|code| cause.contains(code)),
        _ => false,
    };
    Fault { passing: fault.passing || lost, ..fault }
}

/// unique_violation, duplicate_schema, duplicate_table, duplicate_object, and "tuple concurrently updated".
const RACES: [&str; 5] =
    ["SQLSTATE 23505", "SQLSTATE 42P06", "SQLSTATE 42P07", "SQLSTATE 42710", "tuple concurrently updated"];

const MIGRATIONS_TABLE: &str = "CREATE SCHEMA IF NOT EXISTS certseal; \
     CREATE TABLE IF NOT EXISTS certseal.schema_migrations (version int4 PRIMARY KEY, applied_at timestamptz NOT NULL)";

/// Each once, in order, never changed after a release.
const MIGRATIONS: [&str; 1] = ["
    -- One row. Every group of writes locks it first, so that they follow each other.
    CREATE TABLE certseal.meta (
        id int4 PRIMARY KEY CHECK (id = 1),
        epoch bytea NOT NULL CHECK (octet_length(epoch) = 16),
        seq int8 NOT NULL CHECK (seq >= 0),
        floor int8 NOT NULL CHECK (floor >= 0),
        audit_number int8 NOT NULL CHECK (audit_number >= 0),
        audit_hash bytea NOT NULL CHECK (octet_length(audit_hash) = 32),
        audit_start_number int8 NOT NULL CHECK (audit_start_number >= 0),
        audit_start_hash bytea NOT NULL CHECK (octet_length(audit_start_hash) = 32),
        -- Where a copy into this store comes from, while it is not finished.
        importing text,
        -- Where the data went when it was copied elsewhere.
        moved_to text
    );
    CREATE TABLE certseal.records (
        tbl bytea NOT NULL,
        key bytea NOT NULL,
        version int8 NOT NULL CHECK (version >= 0),
        value bytea NOT NULL,
        expires_at int8 CHECK (expires_at >= 0),
        PRIMARY KEY (tbl, key)
    );
    CREATE INDEX records_expiry ON certseal.records (tbl, expires_at, key) WHERE expires_at IS NOT NULL;
    -- The newest event of each record.
    CREATE TABLE certseal.feed (
        seq int8 PRIMARY KEY,
        tbl bytea NOT NULL,
        key bytea NOT NULL,
        event bytea NOT NULL,
        UNIQUE (tbl, key)
    );
    CREATE TABLE certseal.audit (
        number int8 PRIMARY KEY,
        hash bytea NOT NULL CHECK (octet_length(hash) = 32),
        body bytea NOT NULL
    );
    -- Each open store, and the last group of writes that it committed.
    CREATE TABLE certseal.writers (
        id bytea PRIMARY KEY,
        last_group int8 NOT NULL,
        seen_at timestamptz NOT NULL
    );
"];

const NEWEST: i32 = MIGRATIONS.len() as i32;
