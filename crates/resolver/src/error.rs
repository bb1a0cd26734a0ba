//! Why a mirror cannot be used.

use std::{io, path::PathBuf};

use certseal_wire::PoolName;

/// Why a mirror cannot be used. A fault of an item of the feed is no such error: the item is refused, and the others go
/// on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// The directory or the file cannot be made or opened.
    #[error("cannot use the mirror in {}: {source}", path.display())]
    Unusable {
        /// The mirror's directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is no database, damaged, or open elsewhere.
    #[error("cannot open the mirror in {}: {source}; one process uses a mirror at a time, and a damaged mirror can be \
        removed: the edge then reads everything from certstore again", path.display())]
    Unopened {
        /// The mirror's directory.
        path: PathBuf,
        /// The database's error.
        source: Box<redb::DatabaseError>,
    },
    /// Another version's mirror.
    #[error("expected a mirror of format {expected}, got {found}: remove it, and the edge reads everything again")]
    Format {
        /// The format of this version.
        expected: String,
        /// The format of the file.
        found: String,
    },
    /// A mirror or key of another pool.
    #[error("expected {what} of pool {expected}, got one of pool {found}: check which pool this edge is in")]
    Pool {
        /// A mirror, or an unseal key.
        what: &'static str,
        /// The configured pool.
        expected: PoolName,
        /// The pool of what came.
        found: String,
    },
    /// Bundles came that cannot be tried, since their unseal key cannot be reached now. None of them is refused for that.
    #[error("{0}")]
    Unavailable(String),
    /// Reading or writing failed.
    #[error("the mirror's database failed: {0}")]
    Database(Box<redb::Error>),
}

impl From<redb::Error> for MirrorError {
    fn from(error: redb::Error) -> Self {
        Self::Database(Box::new(error))
    }
}
