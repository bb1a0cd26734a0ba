//! Where the workspace is.

use std::path::Path;

/// The gate measures the sources that it was built from.
pub(crate) fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
