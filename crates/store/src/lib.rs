//! Durable, transactional storage with a replayable change feed.
//!
//! certstore keeps its bundles, routes, challenges and key ring here, certman its sites and order journal. The crate
//! knows nothing about either: keys, values and events are bytes, and the reader decides what they mean.
//!
//! ```text
//!  commit(transaction) ──> bounded queue ──> one writer thread             records   table, key -> version, value
//!        ^                                    │  a group of transactions,  feed      seq -> newest event of a key
//!        │                                    │  each all or nothing       expiry    table, expires_at, key
//!        │                                    │                            audit     number -> link, entry
//!        │                                    ├─> engine, file sync
//!        │                                    ├─> high-water file, file sync
//!        └──────────── acknowledged ──────────┘
//! ```
//!
//! The diagram shows [`SledStore`], the embedded backend. [`PostgresStore`] keeps the same contract in a database that
//! several processes share; [`migrate`] copies one into the other; [`Lease`] keeps work to one holder at a time.
//!
//! A caller may rely on the following, with every backend:
//!
//! - **Acknowledged means durable.** [`Storage::commit`] returns once its writes survive a kill and a power cut.
//! - **All or nothing.** A conflict in one [`Write`] undoes its whole [`Transaction`], and no other one.
//! - **The feed is complete.** It shows only what is durable, in one total order, and holds the newest event of each
//!   `(table, key)`, tombstones included: all that changed after a sequence number. certstore makes snapshots from the
//!   tables.
//! - **The audit log is a chain.** Entries are appended in the transaction of what they tell of; each carries a hash over
//!   itself and all before it.
//! - **Damage stays local.** Records and events carry checksums, or the database's pages do. A damaged record is an
//!   error when it is asked for by name, is left out of lists with a log line, and can be overwritten or deleted.
//! - **No silent rollback.** A store that is behind what it has acknowledged refuses to open, or to go on.
//!
//! Calls block, but for [`Storage::submit`]. Asynchronous callers run them off their reactor.
//!
//! ```
//! use certseal_store::{Expect, SledOptions, SledStore, Storage, StoreError, Table, Transaction, Write};
//!
//! const SITES: Table = Table::new("sites");
//!
//! # let scratch = tempfile::tempdir()?;
//! # let directory = scratch.path().join("store");
//! let store = SledStore::open(&directory, SledOptions::default())?;
//! let added = Write::put(SITES, "a.example", 1, "upstream 10.0.0.1").expect(Expect::Absent).event("a.example v1");
//! let position = store.commit(Transaction::from(added))?;
//!
//! let stale = Write::put(SITES, "a.example", 9, "upstream 10.0.0.9").expect(Expect::Version(8));
//! assert!(matches!(store.commit(stale.into()), Err(StoreError::Conflict { found: Some(1), .. })));
//!
//! assert_eq!(store.feed(0, 100)?[0].event, b"a.example v1");
//! assert_eq!(store.head()?, position);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod audit;
mod error;
mod ids;
mod lease;
pub mod migrate;
mod postgres_store;
mod queue;
mod sled_store;
mod storage;
mod transaction;

pub use audit::{AuditEnds, AuditEntry, AuditLink};
pub use error::StoreError;
pub use ids::{Expect, Position, Table};
pub use lease::{LEASES, Lease};
pub use postgres_store::{PostgresOptions, PostgresSettings, PostgresStore};
pub use sled_store::{SledOptions, SledStore};
pub use storage::Storage;
pub use transaction::{
    Change, Done, Entry, MAX_AUDIT_ENTRY_BYTES, MAX_EVENT_BYTES, MAX_KEY_BYTES, MAX_TRANSACTION_BYTES,
    MAX_TRANSACTION_WRITES, Record, Transaction, Write,
};
