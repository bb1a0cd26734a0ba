//! Directories that are durable with what is in them.

use std::{fs::File, path::Path};

use crate::StoreError;

/// Makes the entries of a directory durable.
pub(super) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(StoreError::io("sync", directory))
}
