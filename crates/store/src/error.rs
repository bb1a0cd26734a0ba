//! The errors of a store, and the remedies.

use std::{error::Error, io, path::PathBuf, sync::Arc, time::Duration};

use crate::{Expect, Position, Table};

/// Why a store refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A write's condition did not hold. Read the record again and decide anew.
    #[error(
        "record {} of table {table} has {}, expected {expected}: read it again",
        .key.escape_ascii(),
        .found.map_or("no version".to_owned(), |version| format!("version {version}"))
    )]
    Conflict {
        /// The record's table.
        table: Table,
        /// The record's key.
        key: Vec<u8>,
        /// The condition of the write.
        expected: Expect,
        /// The version that is stored, none if there is no record.
        found: Option<u64>,
    },

    /// Too little space for a commit. Nothing was touched.
    #[error("{free} bytes are free in {directory}, expected at least {reserve}: free some space")]
    Full {
        /// The store's directory.
        directory: PathBuf,
        /// Bytes that are free for this process.
        free: u64,
        /// Bytes that must stay free.
        reserve: u64,
    },

    /// Part of a transaction is larger than its limit. Nothing was touched.
    #[error("{size} {what}, expected at most {limit}: split it or raise the limit")]
    TooLarge {
        /// The things that were counted, with their unit.
        what: &'static str,
        /// How much came.
        size: usize,
        /// How much is allowed.
        limit: usize,
    },

    /// A stored record does not match its checksum. Other records are not affected.
    #[error("record {} of table {table} does not match its checksum: overwrite or delete it", .key.escape_ascii())]
    Corrupt {
        /// The record's table.
        table: Table,
        /// The record's key.
        key: Vec<u8>,
    },

    /// The audit log is not the chain that was written.
    #[error(
        "entry {number} of the audit log is damaged or missing: bring back the right files, or open the store as a \
         restored copy, which starts a new epoch and says so in the log"
    )]
    AuditDamaged {
        /// The entry's number.
        number: u64,
    },

    /// The database lacks transactions that were acknowledged.
    #[error(
        "database in {directory} is at {}, expected {expected} or later: bring back the newer files, \
         or open it as a restored copy, which starts a new epoch",
        .found.map_or("no position".to_owned(), |position| position.to_string())
    )]
    Behind {
        /// The store's directory.
        directory: PathBuf,
        /// The position that was acknowledged last.
        expected: Position,
        /// Where the database is, none if it is empty.
        found: Option<Position>,
    },

    /// The database and its high-water file belong to different histories.
    #[error(
        "database in {directory} is at {found}, expected the epoch of {expected}: bring back the files that belong \
         together, or open it as a restored copy, which starts a new epoch"
    )]
    EpochMismatch {
        /// The store's directory.
        directory: PathBuf,
        /// The position that was acknowledged last.
        expected: Position,
        /// Where the database is.
        found: Position,
    },

    /// A file that vouches for the database is missing or unreadable.
    #[error("{path} is {problem}: bring it back, or open the store as a restored copy, which starts a new epoch")]
    Unvouched {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        problem: &'static str,
    },

    /// The engine cannot read its files.
    #[error(
        "database in {directory} is damaged ({problem}): bring back the files as they were, or begin anew in an empty \
         directory and restore a backup"
    )]
    Damaged {
        /// The store's directory.
        directory: PathBuf,
        /// The engine's message.
        problem: String,
    },

    /// Another store, here or in another process, has this directory open.
    #[error("{directory} is in use by another process or store: stop it, or choose another directory")]
    Locked {
        /// The store's directory.
        directory: PathBuf,
    },

    /// The storage engine failed. The store accepts no more commits until it is opened again.
    #[error("storage engine failed to {action}: {source}")]
    Engine {
        /// The action that it was asked for.
        action: &'static str,
        /// Its own error.
        source: Arc<dyn Error + Send + Sync>,
    },

    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The action that was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's error.
        source: Arc<io::Error>,
    },

    /// An earlier failure left the engine in doubt, so commits are refused.
    #[error("store is closed to commits since an earlier failure ({cause}): see to its cause and start again")]
    Failed {
        /// The failure that came first.
        cause: String,
    },

    /// The database server did not answer for as long as the options allow. Whether the change was made is not known.
    #[error(
        "expected an answer of the database within {waited:?}, came: {cause}; see to the database, and read before \
         repeating a change: whether it was made is not known"
    )]
    Unavailable {
        /// How long was tried.
        waited: Duration,
        /// The failure of the last try.
        cause: String,
    },

    /// The database server refused a statement, and would refuse it again. Nothing was changed.
    #[error("the database failed to {action}: {cause}")]
    Database {
        /// The action that it was asked for.
        action: &'static str,
        /// Its own error.
        cause: String,
    },

    /// The database's tables were made by a newer release.
    #[error("the database has schema version {found}, expected at most {known}: run the newer release that made it")]
    SchemaTooNew {
        /// The version in the database.
        found: i32,
        /// The newest that this release knows.
        known: i32,
    },

    /// A setting of the database server would lose acknowledged writes.
    #[error("the database server has {setting} = {value}, expected {expected}: change it and restart the server")]
    UnsafeServer {
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        value: String,
        /// A value that is safe.
        expected: &'static str,
    },

    /// The options for the connection to a database server do not fit together or are not safe.
    #[error("cannot connect to the database like this: {problem}")]
    Options {
        /// The expected options, those that came, and the remedy.
        problem: String,
    },

    /// The database server shows less than it has acknowledged, or another history.
    #[error(
        "the database is at {found}, expected {expected} or later: it was restored or a replica without the newest \
         writes took over; bring back the newer database, or open it as a restored copy, which starts a new epoch"
    )]
    WentBack {
        /// The position that was acknowledged or shown last.
        expected: Position,
        /// Where the database is.
        found: Position,
    },

    /// The store's data was moved to another one.
    #[error("the store in {place} was moved to {to}: use that one; this one is behind it")]
    Moved {
        /// This store.
        place: String,
        /// The one that has the data now.
        to: String,
    },

    /// A store was open a moment ago in the database that is to be copied, and may still be.
    #[error(
        "a store that is open in the database was seen {seconds} s ago: stop every certstore that uses it, wait a minute, \
         and try again"
    )]
    StillOpen {
        /// How long ago it was seen.
        seconds: u64,
    },

    /// A copy into this store was begun and not finished.
    #[error("the copy from {origin} into this store was not finished: run the migration again, which begins anew")]
    Unfinished {
        /// Where it comes from.
        origin: String,
    },
}

impl StoreError {
    pub(crate) fn engine(action: &'static str) -> impl FnOnce(sled::Error) -> Self {
        move |source| Self::Engine { action, source: Arc::new(source) }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source: Arc::new(source) }
    }
}
