//! Why a file is no sound backup.

use std::collections::BTreeMap;

use certseal_wire::Digest;

use crate::audit::chain::ChainError;

/// Why a file is no sound backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The damage is in a line, or shows there.
    #[error("line {number}")]
    InLine {
        /// The line; the first is 1.
        number: u64,
        /// The damage.
        source: Box<Damage>,
    },
    /// The line begins like none of the format.
    #[error("expected a line of a certseal backup")]
    NoLine,
    /// The line begins like one of the format, and goes on otherwise.
    #[error("expected {what}")]
    Unparsable {
        /// The kind of line that begins like this.
        what: &'static str,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The format is another one.
    #[error("expected a backup of format {expected}, got format {found}: use a newer certctl")]
    Version {
        /// The format that can be read.
        expected: u32,
        /// The format of the file.
        found: u32,
    },
    /// The first line is no head.
    #[error("expected the head of a backup")]
    NoHead,
    /// There is no first line.
    #[error("expected the head of a backup, got an empty file")]
    Empty,
    /// There is no last line.
    #[error("expected a manifest, but the file ends: something is cut off")]
    NoManifest,
    /// The manifest is not the last line.
    #[error("expected the file's end after the manifest")]
    NoEnd,
    /// Another line has to come before this one, or none of its kind may come again.
    #[error("expected {expected}, got {found}")]
    OutOfPlace {
        /// The line that has to be in this place.
        expected: &'static str,
        /// The line that is there.
        found: &'static str,
    },
    /// The line `again` is missing.
    #[error("expected a line `again` before the audit log")]
    NoAgain,
    /// A log begins with a hash that is no log's.
    #[error("expected zeros as the hash before the first entry")]
    NoBeginning,
    /// The keys of a table do not ascend.
    #[error("expected a key of table {table} after {before}, got {found}")]
    Key {
        /// The table.
        table: String,
        /// The key before.
        before: String,
        /// The key.
        found: String,
    },
    /// Records of another table are between those of this one.
    #[error("expected table {0} in one piece, got more of it")]
    Table(String),
    /// A record came twice after the line `again`.
    #[error("expected key {key} of table {table} once more, got it twice")]
    Twice {
        /// The record's table.
        table: String,
        /// The record's key.
        key: String,
    },
    /// More records came after the line `again` than anybody has in memory.
    #[error("expected at most {0} records after the line `again`")]
    TooMany(u64),
    /// Something is missing, or too much.
    #[error("expected {expected} {what}, got {found}")]
    Count {
        /// The things that were counted.
        what: String,
        /// How many the backup says there are.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// There is no audit log.
    #[error("expected the audit log before the manifest")]
    NoLog,
    /// The octets are not those that were written.
    #[error("expected SHA-256 {expected} of all before the manifest, got {found}")]
    Digest {
        /// The digest in the manifest.
        expected: Digest,
        /// The digest of the octets that are there.
        found: Digest,
    },
    /// Entries of the audit log do not fit their chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl Damage {
    /// Damage that shows in a line.
    pub(super) fn in_line(number: u64) -> impl FnOnce(Self) -> Self {
        move |damage| Self::InLine { number, source: Box::new(damage) }
    }

    /// Compares numbers of the same things.
    pub(super) fn compare(what: impl FnOnce() -> String, expected: u64, found: u64) -> Result<(), Self> {
        if expected == found { Ok(()) } else { Err(Self::Count { what: what(), expected, found }) }
    }

    /// Compares numbers of records by table. A table without records may be missing on either side.
    pub(super) fn compare_tables(expected: &BTreeMap<String, u64>, found: &BTreeMap<String, u64>) -> Result<(), Self> {
        let count = |counts: &BTreeMap<String, u64>, table: &str| counts.get(table).copied().unwrap_or(0);
        expected.keys().chain(found.keys()).try_for_each(|table| {
            Self::compare(|| format!("records of table {table}"), count(expected, table), count(found, table))
        })
    }
}
