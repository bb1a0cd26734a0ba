//! Why the audit log is not where it is expected, or not as long.

use std::path::PathBuf;

use certseal_seal::SignatureError;

use super::chain::ChainError;

/// Why the audit log is not where it is expected, or not as long.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A directory has no files of a log.
    #[error("expected files audit-*.jsonl of an audit log in {}, got none", .0.display())]
    NoFiles(PathBuf),
    /// A file of the log has nothing in it.
    #[error("expected entries of an audit log, but the file is empty")]
    EmptyFile,
    /// A line of a file is no entry.
    #[error("expected an entry of an audit log")]
    NoEntry(#[source] serde_json::Error),
    /// Entries are numbered from 1 on.
    #[error("the files begin with entry 0, but the first one has number 1")]
    EntryZero,
    /// The files begin where the store goes on already.
    #[error("the files begin after entry {begins}, and the store has entries from {kept} on: leave --files out")]
    FilesUnneeded {
        /// The entry before the files' first one.
        begins: u64,
        /// The first entry that the store keeps.
        kept: u64,
    },
    /// The files end before the store's first entry.
    #[error("the files end with entry {end}, and the store has entries from {kept} on: a file is missing")]
    FileMissing {
        /// The files' last entry.
        end: u64,
        /// The first entry that the store keeps.
        kept: u64,
    },
    /// The store's log ends before the files do.
    #[error(
        "the files go to entry {end}, and the store's log ends with entry {head}: its end was cut off, unless the store \
         came back from a backup since"
    )]
    ShorterThanFiles {
        /// The files' last entry.
        end: u64,
        /// The store's last entry.
        head: u64,
    },
    /// The store's log begins after its own end.
    #[error("certstore says that its audit log begins after entry {start}, and ends with entry {head}")]
    BeginsAfterItsEnd {
        /// The entry before the first one.
        start: u64,
        /// The last one.
        head: u64,
    },
    /// Entries left the store between two pages.
    #[error("entries up to {0} of the audit log moved into a file while they were read: begin again")]
    Moved(u64),
    /// The store's log ends before the entry that it named as its last one.
    #[error(
        "certstore said that its audit log goes to entry {head}, but has none after entry {last}: its end was cut off"
    )]
    EndsEarly {
        /// The entry that it named.
        head: u64,
        /// The last entry that it showed.
        last: u64,
    },
    /// The signature of the checkpoint does not count.
    #[error("the checkpoint of the audit log does not count")]
    Checkpoint(#[source] SignatureError),
    /// The log that a backup takes along is not sound.
    #[error("the audit log is not sound: see what `certctl audit verify` says")]
    Unsound(#[source] ChainError),
}
