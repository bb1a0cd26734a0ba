//! The entries that certstore keeps, written to a file.

use std::path::Path;

use certseal_client::{Progress, StoreClient};
use certseal_wire::AuditMark;

use super::pages::AuditPages;
use crate::{error::Error, unfinished_file::UnfinishedFile};

/// Entries that were written to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// How many.
    pub entries: u64,
    /// The mark before the first of them.
    pub start: AuditMark,
    /// The mark of the last of them.
    pub head: AuditMark,
}

/// Writes the entries that the store keeps to a new file, one JSON document on each line. The file has its name once it is
/// complete.
///
/// # Errors
/// When the file is there already or cannot be written, and when certstore cannot be reached or refuses.
pub async fn export(store: &StoreClient, to: &Path, progress: &dyn Progress) -> Result<Exported, Error> {
    let mut pages = AuditPages::new(store).await?;
    let mut file = UnfinishedFile::create(to)?;
    let mut entries = 0;
    progress.begin("exporting", pages.head().number - pages.start().number);
    while let Some(page) = pages.next().await? {
        for line in &page {
            file.write(serde_json::to_string(line)?.as_bytes())?;
            file.write(b"\n")?;
        }
        entries += page.len() as u64;
        progress.advance(page.len() as u64);
    }
    file.finish()?;
    Ok(Exported { entries, start: pages.start(), head: pages.head() })
}
