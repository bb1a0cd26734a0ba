//! The audit log: every change and every read of sealed keys, with its actor, address and outcome.
//!
//! A change is noted in the transaction that makes it. A read of sealed keys is noted, durably, before the answer goes out;
//! reads that come together share a transaction. A request that cannot be noted is refused.

mod files;
mod log;
mod reads;

pub(crate) use files::move_into_files;
pub(crate) use log::{audit_mark, checkpoint, note_refusal, page, put_checkpoint};
pub(crate) use reads::{ReadLog, ReadOf};
