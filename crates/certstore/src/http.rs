//! The HTTP interface: it decides who may call an operation, and nothing else.
//!
//! ```text
//! router -> accounting
//!        -> openapi -> operations -> one file for each family of operations
//!                                      -> caller, request, record, answer -> service
//! ```

mod accounting;
mod answer;
mod audit;
mod backup;
mod bundles;
mod caller;
mod challenges;
mod documents;
mod edges;
mod feed;
mod openapi;
mod operations;
mod record;
mod request;
mod rotations;
mod router;
mod service;

pub use openapi::openapi;

pub(crate) use backup::MAX_RESTORE;
pub(crate) use router::router;
pub(crate) use service::Service;
