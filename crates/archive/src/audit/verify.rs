//! The whole log checked: files, the entries in the store, and the marks that were kept elsewhere.

use certseal_client::{Progress, StoreClient};
use certseal_seal::VerifyingKeys;
use certseal_wire::{AuditCheckpoint, AuditLine, AuditMark, AuditRecord, Signed};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    chain::{Chain, ChainError, NEW_LOG},
    files::AuditFiles,
    log_error::LogError,
    mark::mark_text,
    pages::AuditPages,
};
use crate::error::Error;

/// A log that a check found to be in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedLog {
    /// The entry after which the check begins: 0 when it covers all of them.
    pub after: u64,
    /// How many entries were checked.
    pub entries: u64,
    /// When the first of them was made; none where it does not say.
    pub first_at: Option<Timestamp>,
    /// When the last of them was made.
    pub last_at: Option<Timestamp>,
    /// The checkpoint that certman signed.
    pub checkpoint: Option<CheckpointSeen>,
    /// The mark of the newest entry, to be kept for the next time: `NUMBER:HASH`.
    pub mark: String,
    /// Findings that are no sign of tampering, but leave something unchecked.
    pub warnings: Vec<String>,
}

/// A checkpoint of the log whose signature counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CheckpointSeen {
    /// The newest entry then.
    pub number: u64,
    /// When, by certman's clock.
    pub at: Timestamp,
    /// Its age in seconds.
    pub age_seconds: i64,
}

/// The checkpoint, if one of `issuers` signed it.
///
/// # Errors
/// When none of them did.
pub fn genuine_checkpoint(signed: &Signed, issuers: &VerifyingKeys) -> Result<AuditCheckpoint, Error> {
    Ok(issuers.verify(signed).map_err(LogError::Checkpoint)?)
}

/// Checks the log: `files` first, if there are some, then what the store keeps. `checkpoint` is certman's newest one; it has
/// to be read before this, so that the log must be as long. `kept` is a mark that an earlier check answered.
///
/// # Errors
/// With the entry and both hashes, when the log is not what it should be; and when a file cannot be read, or certstore
/// cannot be reached.
pub async fn verify(
    store: &StoreClient,
    checkpoint: Option<AuditCheckpoint>,
    files: Option<&AuditFiles>,
    kept: Option<AuditMark>,
    progress: &dyn Progress,
) -> Result<VerifiedLog, Error> {
    let mut pages = AuditPages::new(store).await?;
    let (start, head) = (pages.start(), pages.head());
    let mut walk = Walk::new(first_mark(files, start)?);
    let mut warnings = Vec::new();
    let begins = walk.chain.start().number;
    if files.is_some() {
        if start.number < begins {
            return Err(LogError::FilesUnneeded { begins, kept: start.number + 1 }.into());
        }
        walk.chain.expect("the start of the store's log", start)?;
    }
    if begins > 0 {
        warnings.push(format!("entries up to {begins} were not checked: they are in files that were not given"));
    }
    match &checkpoint {
        Some(checkpoint) if checkpoint.head.number < begins => warnings.push(format!(
            "the checkpoint is of entry {}, which was not checked: give the files",
            checkpoint.head.number
        )),
        Some(checkpoint) => walk.chain.expect(format!("the checkpoint of {:.0}", checkpoint.at), checkpoint.head)?,
        None => warnings.push(
            "there is no checkpoint, so it does not show whether the end was cut off: certman signs them while it runs"
                .to_owned(),
        ),
    }
    if let Some(kept) = kept {
        walk.chain.expect("--expect", kept)?;
    }
    walk.chain.expect("certstore", head)?;

    progress.begin("checking entries", head.number.saturating_sub(begins));
    if let Some(files) = files {
        for entry in files.entries() {
            let entry = entry?;
            walk.step(&entry.line).map_err(Error::within(&entry.place))?;
            progress.advance(1);
        }
        let end = walk.chain.mark().number;
        if end < start.number {
            return Err(LogError::FileMissing { end, kept: start.number + 1 }.into());
        }
        if end > head.number {
            return Err(LogError::ShorterThanFiles { end, head: head.number }.into());
        }
        pages.go_on_after(end);
    }
    while let Some(page) = pages.next().await? {
        page.iter().try_for_each(|line| walk.step(line))?;
        progress.advance(page.len() as u64);
    }
    let newest = walk.chain.finish()?;

    let checkpoint = checkpoint.map(|AuditCheckpoint { head, at }| {
        let age = Timestamp::now().duration_since(at);
        if age > STALE {
            let hours = age.as_hours();
            warnings
                .push(format!("the checkpoint is {hours} h old: what was cut off since does not show; is certman up?"));
        }
        CheckpointSeen { number: head.number, at, age_seconds: age.as_secs() }
    });
    Ok(VerifiedLog {
        after: begins,
        entries: walk.chain.entries(),
        first_at: walk.first.as_ref().and_then(made_at),
        last_at: walk.last.as_ref().and_then(made_at),
        checkpoint,
        mark: mark_text(&newest),
        warnings,
    })
}

/// Where the chain begins.
fn first_mark(files: Option<&AuditFiles>, start: AuditMark) -> Result<AuditMark, LogError> {
    let Some(files) = files else { return Ok(start) };
    match files.first().mark {
        AuditMark { number: 0, .. } => Err(LogError::EntryZero),
        AuditMark { number: 1, .. } => Ok(NEW_LOG),
        // The entries that its hash covers are not there, so it is the mark to begin with.
        later => Ok(later),
    }
}

/// A chain, with the entries at both ends.
struct Walk {
    chain: Chain,
    first: Option<AuditLine>,
    last: Option<AuditLine>,
}

impl Walk {
    fn new(start: AuditMark) -> Self {
        Self { chain: Chain::after(start), first: None, last: None }
    }

    fn step(&mut self, line: &AuditLine) -> Result<(), ChainError> {
        // The entry that the chain begins after is the first one in the files.
        if self.chain.entries() == 0 && line.mark == self.chain.start() {
            return Ok(());
        }
        self.chain.push(line)?;
        if self.first.is_none() {
            self.first = Some(line.clone());
        }
        self.last = Some(line.clone());
        Ok(())
    }
}

fn made_at(line: &AuditLine) -> Option<Timestamp> {
    serde_json::from_str::<AuditRecord>(&line.entry).ok().map(|record| record.at)
}

/// certman signs a checkpoint every few minutes at least: an older one says that it does not.
const STALE: SignedDuration = SignedDuration::from_hours(1);
