//! Why the key ring in certstore is not used or changed.

use std::{io, path::PathBuf};

use certseal_client::ClientError;
use certseal_wire::Digest;

/// Why the key ring in certstore is not used or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// certstore does not answer with it.
    #[error("cannot read the key ring")]
    Unread(#[source] Box<ClientError>),
    /// certstore has none, though there was one.
    #[error("certstore has no key ring, but version {0} was seen before: the store lost it, or hides it")]
    Hidden(u64),
    /// There is none yet.
    #[error("certstore has no key ring yet: `certctl keys generate` makes the first one")]
    Missing,
    /// There is no next version.
    #[error("the key ring's version cannot count further")]
    VersionsSpent,
    /// certstore does not take a new one.
    #[error("certstore does not take the key ring")]
    NotTaken(#[source] Box<ClientError>),
    /// Two of one version were signed.
    #[error(
        "two key rings of version {version} are known, with digests {seen} and {expected}: find out who signed both"
    )]
    Two {
        /// The version of both.
        version: u64,
        /// The digest of the one that was seen here.
        seen: Digest,
        /// The digest of the one that somebody expects.
        expected: Digest,
    },
    /// The file that remembers the newest one cannot be opened.
    #[error("cannot remember the key ring in {}: give another directory with --state", path.display())]
    NoMemory {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file that remembers the newest one says something else.
    #[error("{} does not say which key ring was seen last: look at it, or remove it", path.display())]
    Forgotten {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The file that remembers the newest one cannot be written.
    #[error("cannot remember the key ring in {}", path.display())]
    NotRemembered {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
