//! The whole log checked: files, what the store keeps, and the marks that were kept elsewhere.

use std::ops::ControlFlow;

use anyhow::{Context, ensure};
use certseal_seal::{RingMark, ring_issuers};
use certseal_wire::{AuditCheckpoint, AuditLine, AuditMark, AuditRecord};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{AuditFiles, AuditPages, Chain, NEW_LOG, mark_text};
use crate::{rings::Rings, rotation::Progress};

/// What a check of the log found to be in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The entry after which the check begins: 0 when it covers all of them.
    pub after: u64,
    /// How many entries were checked.
    pub entries: u64,
    /// When the first of them was made; none where it does not say.
    pub first_at: Option<Timestamp>,
    /// When the last of them was made.
    pub last_at: Option<Timestamp>,
    /// What certman signed.
    pub checkpoint: Option<CheckpointSeen>,
    /// The mark of the newest entry, to be kept for the next time: `NUMBER:HASH`.
    pub mark: String,
    /// What is no sign of tampering, but leaves something unchecked.
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

/// Checks the log: `files` first, if there are some, then what the store keeps. `kept` is a mark that an earlier check
/// answered.
///
/// # Errors
/// With the entry and both hashes, when the log is not what it should be; when the checkpoint's signature does not count;
/// and when a file cannot be read, or certstore cannot be reached.
pub async fn verify(
    rings: &Rings<'_>,
    files: Option<&AuditFiles>,
    kept: Option<AuditMark>,
    progress: &dyn Progress,
) -> anyhow::Result<Verified> {
    let store = rings.store();
    // Asked for before the head, so that the log must be as long.
    let checkpoint = checkpoint(rings).await?;
    let mut pages = AuditPages::new(store).await?;
    let (start, head) = (pages.start(), pages.head());
    let mut walk = Walk::new(first_mark(files, start)?);
    let mut warnings = Vec::new();
    let begins = walk.chain.start().number;
    if files.is_some() {
        ensure!(
            start.number >= begins,
            "the files begin after entry {begins}, and the store has entries from {} on: leave --files out",
            start.number + 1
        );
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
        files.each(|line| {
            walk.step(&line)?;
            progress.advance(1);
            Ok(ControlFlow::Continue(()))
        })?;
        let end = walk.chain.mark().number;
        ensure!(
            end >= start.number,
            "the files end with entry {end}, and the store has entries from {} on: a file is missing",
            start.number + 1
        );
        ensure!(
            end <= head.number,
            "the files go to entry {end}, and the store's log ends with entry {}: its end was cut off, unless the store \
             came back from a backup since",
            head.number
        );
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
    Ok(Verified {
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
fn first_mark(files: Option<&AuditFiles>, start: AuditMark) -> anyhow::Result<AuditMark> {
    let Some(files) = files else { return Ok(start) };
    match files.first().mark {
        AuditMark { number: 0, .. } => anyhow::bail!("the files begin with entry 0, but the first one has number 1"),
        AuditMark { number: 1, .. } => Ok(NEW_LOG),
        // What its hash covers is not there, so it is the mark to begin with.
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

    fn step(&mut self, line: &AuditLine) -> anyhow::Result<()> {
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

/// The newest checkpoint, if an issuer of the key ring signed it.
async fn checkpoint(rings: &Rings<'_>) -> anyhow::Result<Option<AuditCheckpoint>> {
    let Some(signed) = rings.store().audit_checkpoint().await? else { return Ok(None) };
    let ring = rings.existing(RingMark::default()).await;
    let issuers = ring_issuers(&ring.context("certstore has a checkpoint of the audit log")?);
    issuers.verify(&signed).map(Some).context("the checkpoint of the audit log does not count")
}

fn made_at(line: &AuditLine) -> Option<Timestamp> {
    serde_json::from_str::<AuditRecord>(&line.entry).ok().map(|record| record.at)
}

/// certman signs a checkpoint every few minutes at least: an older one says that it does not.
const STALE: SignedDuration = SignedDuration::from_hours(1);
