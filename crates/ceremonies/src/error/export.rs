//! Why a site is not written.

use std::{io, path::PathBuf};

use crate::{files::FileError, site_bundle::SiteBundleError};

/// Why a site is not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Nothing can be done with its bundle.
    #[error(transparent)]
    Bundle(#[from] SiteBundleError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another version of it was written before.
    #[error(
        "{} holds version {there}, and {stored} is stored: choose another directory, or remove that one", place.display()
    )]
    Version {
        /// The site's folder.
        place: PathBuf,
        /// The version in the folder.
        there: u64,
        /// The version in certstore.
        stored: u64,
    },
    /// Something else has the name of its folder.
    #[error("{} is there already, and was not made by an export", place.display())]
    Taken {
        /// The site's folder.
        place: PathBuf,
        /// The system's error about `site.json` in it.
        source: io::Error,
    },
    /// `site.json` is not as it was written.
    #[error("{}", place.display())]
    About {
        /// The site's folder.
        place: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// There is nothing to open its key with.
    #[error("no unseal key was given")]
    NoKey,
    /// A value has no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}
