//! Why a key pair from before certseal is not read.

use std::{io, path::PathBuf};

use certseal_service::config::ConfigError;
use certseal_unseal::LegacyKeyError;

/// Why a key pair from before certseal is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyError {
    /// The argument is not SUITE=FILE.
    #[error("expected SUITE=FILE for a legacy key")]
    Argument,
    /// There is no such suite.
    #[error("{0}")]
    Suite(String),
    /// The file is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is no private half.
    #[error("{}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: LegacyKeyError,
    },
}
