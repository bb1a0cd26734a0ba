//! Why certstore cannot be copied.

use certseal_client::ClientError;
use certseal_wire::{Cursor, Kind};
use tokio::task::JoinError;

/// Why certstore cannot be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The feed began anew meanwhile.
    #[error("the store came back from a backup while this one was made: begin again")]
    OtherFeed,
    /// The feed cannot be read.
    #[error("cannot read what changed while the backup was made: begin again")]
    Feed(#[source] Box<ClientError>),
    /// The feed does not lead on.
    #[error("the feed does not go on after {after}: it answers {answer}")]
    FeedStands {
        /// The place in the feed that was reached.
        after: Cursor,
        /// The place that certstore says comes next.
        answer: Cursor,
    },
    /// More changed meanwhile than anybody has in memory.
    #[error("more than {0} records changed while the backup was made: begin again when less is written")]
    TooManyChanges(u64),
    /// The key ring and rotations were not copied together.
    #[error("the key ring changed while the backup was made, and rotations go with it: begin again")]
    RingChanged,
    /// A task was stopped.
    #[error("{what} was stopped")]
    Stopped {
        /// The task.
        what: &'static str,
        /// Why.
        source: JoinError,
    },
    /// The pages of a table would not end.
    #[error("certstore's table {table} goes back to key {next}: its pages do not end")]
    GoesBack {
        /// The table.
        table: String,
        /// The key that certstore says the next page begins after.
        next: String,
    },
    /// certstore answers with another table.
    #[error("certstore answers a record of table {answered} for {asked}")]
    OtherTable {
        /// The table that was asked for.
        asked: String,
        /// The table of the answer.
        answered: String,
    },
    /// The keys of a table do not ascend.
    #[error("certstore answers key {key} of table {table} out of its order")]
    OutOfOrder {
        /// The table.
        table: String,
        /// The key.
        key: String,
    },
    /// certstore answers with records that nobody asked for.
    #[error("certstore was asked for key {key} of table {table}, and answers other records")]
    OtherRecords {
        /// The table that was asked for.
        table: String,
        /// The key that was asked for.
        key: String,
    },
    /// The plan has no table for a kind of records.
    #[error("expected a table for records of kind {0} in certstore's plan of a backup, got none")]
    NoTable(Kind),
}

impl CopyError {
    /// The answer of a daemon, or its silence, if that is the cause.
    pub(crate) fn client(&self) -> Option<&ClientError> {
        match self {
            Self::Feed(error) => Some(error),
            _ => None,
        }
    }

    /// The end of a task before its time.
    pub(super) fn stopped(what: &'static str) -> impl FnOnce(JoinError) -> Self {
        move |source| Self::Stopped { what, source }
    }
}
