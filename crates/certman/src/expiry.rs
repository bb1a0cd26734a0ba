//! Rows that have served: they expire, and are forgotten then.

use certseal_store::{Expect, Record, Storage, StoreError, Table, Write};
use jiff::Timestamp;

/// Forgets the rows of a table that have expired. A row that somebody writes meanwhile stays, and the rest is left to the next time.
pub(crate) fn forget_expired(storage: &dyn Storage, table: Table, now: Timestamp) {
    loop {
        let gone = match storage.expired(table, seconds(now), AT_ONCE) {
            Ok(gone) if gone.is_empty() => return,
            Ok(gone) => gone,
            Err(error) => return tracing::warn!(%error, "rows that have expired are not forgotten"),
        };
        let is_last = gone.len() < AT_ONCE;
        let delete =
            |(key, record): (Vec<u8>, Record)| Write::purge(table, key).expect(Expect::Version(record.version));
        match storage.commit(gone.into_iter().map(delete).collect::<Vec<_>>().into()) {
            Ok(_) if !is_last => {}
            Ok(_) | Err(StoreError::Conflict { .. }) => return,
            Err(error) => return tracing::warn!(%error, "rows that have expired are not forgotten"),
        }
    }
}

/// An instant as rows say when they expire.
pub(crate) fn seconds(instant: Timestamp) -> u64 {
    instant.as_second().try_into().unwrap_or(0)
}

const AT_ONCE: usize = 500;
