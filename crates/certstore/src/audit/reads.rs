//! Reads of sealed keys, noted before they are answered.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use certseal_service::problem::Refusal;
use certseal_store::Transaction;
use certseal_wire::{AuditAction, ProblemKind};
use tokio::sync::{mpsc, oneshot};

use super::{Actor, Entry};
use crate::vault::Vault;

/// Notes reads of sealed keys; those that wait together share a transaction.
#[derive(Clone)]
pub(crate) struct ReadLog {
    queue: mpsc::Sender<Read>,
}

struct Read {
    actor: Actor,
    what: What,
    noted: oneshot::Sender<Result<(), Refusal>>,
}

/// What was read.
pub(crate) enum What {
    /// The bundle of a site.
    Site(String),
    /// More than one bundle: where they stand.
    Many(String),
}

impl ReadLog {
    /// The log, and the task that keeps it, which ends with the last handle.
    pub(crate) fn start(vault: Arc<Vault>) -> Self {
        let (queue, waiting) = mpsc::channel(READS_WAITING);
        tokio::spawn(keep(vault, waiting));
        Self { queue }
    }

    /// Returns once the read is noted durably: only then the answer may go out.
    pub(crate) async fn note(&self, actor: Actor, what: What) -> Result<(), Refusal> {
        let (noted, outcome) = oneshot::channel();
        let gone = || Refusal::internal("the task that notes reads is gone");
        self.queue.send(Read { actor, what, noted }).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

async fn keep(vault: Arc<Vault>, mut waiting: mpsc::Receiver<Read>) {
    let mut reads = Vec::new();
    while waiting.recv_many(&mut reads, READS_TOGETHER).await > 0 {
        let (entries, noted) = entries(std::mem::take(&mut reads));
        let vault = vault.clone();
        let outcome = tokio::task::spawn_blocking(move || vault.note_reads(entries)).await;
        let outcome = outcome.map_err(Refusal::internal).and_then(|outcome| outcome);
        for reply in noted {
            // Whoever asked may have gone.
            let _ = reply.send(outcome.as_ref().map(drop).map_err(|refusal| Refusal(refusal.0.clone())));
        }
    }
}

impl Vault {
    fn note_reads(&self, entries: Vec<Entry>) -> Result<(), Refusal> {
        let mut transaction = Transaction::default();
        for entry in entries {
            transaction.audit.extend(entry.bytes()?);
        }
        let unnoted = |problem: Refusal| {
            tracing::error!(problem = %problem.0, "reads of sealed keys are refused: they cannot be noted");
            Refusal::new(
                ProblemKind::Unavailable,
                "sealed keys are not handed out while the audit log cannot be written",
            )
        };
        self.commit_unaudited(transaction).map(drop).map_err(unnoted)
    }
}

type Replies = Vec<oneshot::Sender<Result<(), Refusal>>>;

/// One entry for the single bundles that a caller read, and one for each page.
fn entries(reads: Vec<Read>) -> (Vec<Entry>, Replies) {
    let mut sites: BTreeMap<(String, Option<IpAddr>), Entry> = BTreeMap::new();
    let (mut entries, mut noted) = (Vec::new(), Vec::with_capacity(reads.len()));
    for Read { actor, what, noted: reply } in reads {
        noted.push(reply);
        match what {
            What::Site(site) => {
                let key = (actor.caller.to_string(), actor.from);
                let entry = sites.remove(&key).unwrap_or_else(|| Entry::new(&actor, AuditAction::ReadSealed));
                sites.insert(key, entry.target(site));
            }
            What::Many(detail) => entries.push(Entry::new(&actor, AuditAction::ReadSealed).detail(detail)),
        }
    }
    entries.extend(sites.into_values());
    (entries, noted)
}

/// Reads that wait to be noted; further ones wait for a place among them.
const READS_WAITING: usize = 4096;

/// Reads that share a transaction.
const READS_TOGETHER: usize = 512;
