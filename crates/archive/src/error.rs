//! Why something could not be archived, checked or restored.

use std::{
    io,
    path::{Path, PathBuf},
};

use certseal_client::ClientError;

use crate::{
    audit::{chain::ChainError, log_error::LogError},
    backup::{copy_error::CopyError, damage::Damage},
    lines::LineError,
};

/// Why something could not be archived, checked or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// certstore cannot be reached, or refuses.
    #[error(transparent)]
    Client(Box<ClientError>),
    /// A file or a directory is not usable.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// A verb: `open`, `write`, ..
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The new file's name is taken.
    #[error("{} is there already and was not changed: give another name", .0.display())]
    Taken(PathBuf),
    /// The new file's name was taken by somebody else while it was written.
    #[error("{} came into being meanwhile and was not changed", .0.display())]
    TakenMeanwhile(PathBuf),
    /// A file says something else when it is read for the second time.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// The error is of this file, or of this line of it.
    #[error("{place}")]
    In {
        /// `FILE`, or `FILE, line NUMBER`.
        place: String,
        /// The error.
        source: Box<Error>,
    },
    /// A line cannot be read.
    #[error(transparent)]
    Line(#[from] LineError),
    /// A file is no sound backup.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// Entries do not fit the chain of the audit log.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The audit log is not where it is expected, or not as long.
    #[error(transparent)]
    Log(#[from] LogError),
    /// certstore cannot be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// certstore does not take a part of a backup.
    #[error("certstore does not take {what}")]
    NotTaken {
        /// The part.
        what: &'static str,
        /// certstore's answer.
        source: Box<ClientError>,
    },
    /// A restore ended before certstore had anything of the backup.
    #[error("certstore took nothing of the backup")]
    NothingRestored(#[source] Box<Error>),
    /// A restore ended after certstore had something of the backup, and before it had all of it.
    #[error(
        "the backup is not restored yet, and certstore serves nobody: restore the same file again, which finishes it; \
         before another file, stop certstore, remove its data directory or its database, and start it"
    )]
    HalfRestored(#[source] Box<Error>),
    /// A value has no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// The answer of a daemon, or its silence, if that is the cause.
    pub fn client(&self) -> Option<&ClientError> {
        match self {
            Self::Client(error) | Self::NotTaken { source: error, .. } => Some(error),
            Self::Copy(error) => error.client(),
            Self::In { source, .. } | Self::NothingRestored(source) | Self::HalfRestored(source) => source.client(),
            _ => None,
        }
    }

    /// Makes an error of what certstore answers when it does not take a part of a backup.
    pub(crate) fn not_taken(what: &'static str) -> impl FnOnce(ClientError) -> Self {
        move |source| Self::NotTaken { what, source: Box::new(source) }
    }

    /// An error of the system about the file at `path`.
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { doing, path: path.to_owned(), source }
    }

    /// An error in a file, or in a line of one.
    pub(crate) fn within<E: Into<Self>>(place: impl ToString) -> impl FnOnce(E) -> Self {
        move |error| Self::In { place: place.to_string(), source: Box::new(error.into()) }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}
