//! Sites that a platform has already: their certificates and keys, sealed as the platform sealed them.
//!
//! ```text
//! NAME/chain.pem     the certificate and its intermediates, leaf first
//! NAME/key.sealed    the key, as `LegacySuite` says
//! NAME/site.toml     names, upstream, pools; may be left out
//! ```
//!
//! A folder for each site, in a directory or in a tar archive. Nothing is unpacked, and nothing of a key is opened.

mod folder;
mod source;

use std::{fs, path::Path, sync::Arc, time::Duration};

use certseal_client::{CertmanClient, ClientError, Progress};
use certseal_wire::{ProblemKind, causes};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

pub use self::folder::ImportDefaults;
use self::{folder::Folder, source::read};
use crate::error::{Error, FolderError, ImportError};

/// The outcome of an import: counts of sites, those kept, and the failures.
#[derive(Debug, Default, Serialize)]
pub struct Imported {
    /// Folders that were read.
    pub sites: u64,
    /// Sites that certman took, or had from an import before.
    pub taken: u64,
    /// Sites that have a certificate of their own already, which stays, and what certman said.
    pub kept: Vec<(String, String)>,
    /// Folders that are not usable, or that certman refused, and why.
    pub failed: Vec<(String, String)>,
}

/// Gives every site at `path` to certman. Bad ones do not stop the others. It can be run again: an import that certman
/// has is no change.
///
/// # Errors
/// When `path` is no directory and no archive, or certman cannot be reached.
pub async fn import(
    certman: &CertmanClient,
    path: &Path,
    defaults: ImportDefaults,
    progress: &dyn Progress,
) -> Result<Imported, Error> {
    let total = if path.is_dir() { fs::read_dir(path).map_or(0, |entries| entries.count() as u64) } else { 0 };
    progress.begin("importing", total);
    let (send, mut folders) = mpsc::channel(READ_AHEAD);
    let source = path.to_owned();
    let reader = tokio::task::spawn_blocking(move || read(&source, &|folder| send.blocking_send(folder).is_ok()));
    let defaults = Arc::new(defaults);
    let mut outcome = Imported::default();
    let mut under_way: JoinSet<(String, HandedOver)> = JoinSet::new();
    while let Some(folder) = folders.recv().await {
        while under_way.len() >= CALLS {
            outcome.count(under_way.join_next().await, progress)?;
        }
        let (certman, defaults) = (certman.clone(), defaults.clone());
        under_way.spawn(async move {
            let name = folder.name.clone();
            (name, hand_over(&certman, &folder, &defaults).await)
        });
    }
    while !under_way.is_empty() {
        outcome.count(under_way.join_next().await, progress)?;
    }
    reader.await.map_err(stopped("reading"))??;
    outcome.kept.sort();
    outcome.failed.sort();
    Ok(outcome)
}

enum Answer {
    Taken,
    Kept(String),
}

/// Why certman does not have a site.
#[derive(Debug, thiserror::Error)]
enum NotHandedOver {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Folder(#[from] FolderError),
}

type HandedOver = Result<Answer, NotHandedOver>;

impl Imported {
    fn count(
        &mut self,
        done: Option<Result<(String, HandedOver), JoinError>>,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let Some(done) = done else { return Ok(()) };
        let (name, answer) = done.map_err(stopped("an import"))?;
        self.sites += 1;
        progress.advance(1);
        match answer {
            Ok(Answer::Taken) => self.taken += 1,
            Ok(Answer::Kept(reason)) => self.kept.push((name, reason)),
            // Nothing about this site: all that follow would fail alike.
            Err(NotHandedOver::Client(error)) if error.may_pass() => return Err(error.into()),
            Err(NotHandedOver::Client(error)) => self.failed.push((name, causes(&error))),
            Err(NotHandedOver::Folder(error)) => self.failed.push((name, causes(&error))),
        }
        Ok(())
    }
}

async fn hand_over(certman: &CertmanClient, folder: &Folder, defaults: &ImportDefaults) -> HandedOver {
    let (site, import) = folder.import(defaults)?;
    let mut attempts = 0;
    loop {
        match certman.import(&site, &import).await {
            Ok(_) => return Ok(Answer::Taken),
            Err(error) if error.may_pass() && attempts < ATTEMPTS => {
                attempts += 1;
                tokio::time::sleep(Duration::from_secs(1 << attempts)).await;
            }
            Err(ClientError::Refused(problem)) if problem.kind == ProblemKind::Conflict => {
                // Conflicts over names are failures; a site that has moved on is none.
                let has_own = certman.site(&site).await?.is_some_and(|status| status.version > 0);
                return if has_own {
                    Ok(Answer::Kept(problem.to_string()))
                } else {
                    Err(FolderError::Refused(problem).into())
                };
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The end of a task before its time.
fn stopped(what: &'static str) -> impl FnOnce(JoinError) -> ImportError {
    move |source| ImportError::Stopped { what, source }
}

/// Folders that wait for their turn, in memory.
const READ_AHEAD: usize = 64;

/// Calls under way at one time.
const CALLS: usize = 16;

/// How often a call is made again while certman cannot be reached.
const ATTEMPTS: u32 = 3;
