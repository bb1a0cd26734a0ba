//! Conditions of a commit: records that have to be as they were read, and marks that say that something happened.

use certseal_service::problem::Refusal;
use certseal_store::{Expect, Record, Write};

use crate::records::{MARKS, RESTORING};

/// The condition that a record still has this revision; 0 for one that was not there.
pub(crate) fn expect(revision: u64) -> Expect {
    if revision == 0 { Expect::Absent } else { Expect::Version(revision) }
}

/// The condition that a record is as it was read.
pub(crate) fn expect_record(record: Option<&Record>) -> Expect {
    record.map_or(Expect::Absent, |record| Expect::Version(record.version))
}

/// A write that sets a mark: guards that were taken before do not hold any more.
pub(crate) fn set_mark(mark: &str) -> Result<Write, Refusal> {
    // The version is random, so that two processes that set it at one time do not hide one another.
    let version = getrandom::u64().map_err(Refusal::internal)? >> 1;
    Ok(Write::put(MARKS, mark, version, Vec::new()))
}

/// A condition that holds as long as no process restores a backup.
pub(crate) fn not_restoring() -> Write {
    Write::require(MARKS, RESTORING, Expect::Absent)
}
