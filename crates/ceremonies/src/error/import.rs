//! Why sites are not imported.

use std::{error::Error as StdError, io, path::PathBuf};

use tokio::task::JoinError;

/// Why nothing more is imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A directory or an archive cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file is no archive.
    #[error("{}: expected a directory or an uncompressed tar archive", path.display())]
    NoArchive {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<ImportError>,
    },
    /// A directory has too many folders.
    #[error("expected at most {limit} folders in {}", path.display())]
    TooManyFolders {
        /// The directory.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// An archive has too many entries.
    #[error("expected at most {0} entries")]
    TooManyEntries(usize),
    /// A task was stopped.
    #[error("{what} was stopped")]
    Stopped {
        /// The task.
        what: &'static str,
        /// Why.
        source: JoinError,
    },
}

/// Why the folder of one site cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// That was seen when it was read.
    #[error("{0}")]
    Unusable(String),
    /// A file is missing.
    #[error("there is no {0}")]
    Missing(&'static str),
    /// Its name is no site's.
    #[error("the folder's name is that of the site")]
    Name(#[source] certseal_wire::ParseError),
    /// A file is not PEM.
    #[error("{file} is not PEM certificates: {detail}")]
    NotPem {
        /// The file.
        file: &'static str,
        /// The defect.
        detail: String,
    },
    /// A file has no certificate.
    #[error("{0} has no certificate")]
    NoCertificate(&'static str),
    /// A file is not what its name says.
    #[error("{file}")]
    File {
        /// The file.
        file: &'static str,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Something in the certificate does not parse.
    #[error("{what}")]
    Certificate {
        /// The part of the certificate.
        what: &'static str,
        /// The parser's error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The certificate's names are no names of a site.
    #[error("the certificate's names: give those to serve in {file}")]
    Names {
        /// The file that may have them.
        file: &'static str,
        /// The parser's error.
        source: certseal_wire::ParseError,
    },
    /// Nothing says where its server is.
    #[error("no upstream: give --upstream, or `upstream` in {0}")]
    NoUpstream(&'static str),
    /// Nothing says which pools serve it.
    #[error("no pool: give --pool, or `pools` in {0}")]
    NoPool(&'static str),
    /// certman refuses it, and has no certificate of its own for it either.
    #[error("{0}")]
    Refused(certseal_wire::Problem),
}
