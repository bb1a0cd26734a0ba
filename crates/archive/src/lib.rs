//! The data that leaves certstore to be kept elsewhere, and the checks that it is whole: backups, and the audit log.
//!
//! ```text
//! certstore --backup::create--> file --backup::verify--> backup::Contents --backup::restore--> an empty certstore
//! certstore, files of older entries --audit::verify--> audit::VerifiedLog, with the mark to keep for the next time
//! ```
//!
//! All of it is ciphertext and signed documents. Nothing here opens an envelope, and nothing here can: this crate never
//! depends on `certseal-unseal`, so that it may run wherever backups are kept.
//!
//! ```
//! use certseal_archive::audit::{Chain, NEW_LOG};
//!
//! let chain = Chain::after(NEW_LOG);
//! assert_eq!(chain.finish()?, NEW_LOG);
//! # Ok::<(), certseal_archive::audit::ChainError>(())
//! ```

pub mod audit;
pub mod backup;
mod error;
mod lines;
mod unfinished_file;

pub use error::Error;
pub use lines::LineError;
