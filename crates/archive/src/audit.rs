//! The audit log of certstore, read and checked.
//!
//! ```text
//! audit-000000000001-000000100000.jsonl, ...      older entries, in files
//!   start: the mark before the first entry that the store keeps
//! GET /v1/audit                                    the entries that the store keeps
//!   head: the mark of the newest entry             >= the checkpoint that certman signed, the mark of an earlier run
//! ```
//!
//! `docs/audit.md` says what the check shows, and what it cannot show.

pub(crate) mod chain;
mod export;
mod files;
pub(crate) mod log_error;
mod mark;
pub(crate) mod pages;
mod search;
mod verify;

pub use chain::{Chain, ChainError, NEW_LOG};
pub use export::{Exported, export};
pub use files::{AuditFiles, Entries, FileEntry};
pub use log_error::LogError;
pub use mark::{mark, mark_text};
pub use pages::AuditPages;
pub use search::Search;
pub use verify::{CheckpointSeen, VerifiedLog, genuine_checkpoint, verify};
