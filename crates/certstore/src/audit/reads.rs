//! Reads of sealed keys: each is noted before it is answered.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use certseal_service::problem::Refusal;
use certseal_store::Transaction;
use certseal_wire::{AuditAction, ProblemKind};
use tokio::sync::{mpsc, oneshot};

use crate::{actor::Actor, audit_note::AuditNote, vault::Vault};

/// Notes reads of sealed keys; those that wait together share a transaction.
#[derive(Clone)]
pub(crate) struct ReadLog {
    queue: mpsc::Sender<Read>,
}

struct Read {
    actor: Actor,
    of: ReadOf,
    noted: oneshot::Sender<Result<(), Refusal>>,
}

/// The sealed keys that somebody read.
pub(crate) enum ReadOf {
    /// The bundle of a site.
    Site(String),
    /// More than one bundle; the text says which.
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
    pub(crate) async fn note(&self, actor: Actor, of: ReadOf) -> Result<(), Refusal> {
        let (noted, outcome) = oneshot::channel();
        let gone = || Refusal::internal("the task that notes reads is gone");
        self.queue.send(Read { actor, of, noted }).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

async fn keep(vault: Arc<Vault>, mut waiting: mpsc::Receiver<Read>) {
    let mut reads = Vec::new();
    while waiting.recv_many(&mut reads, READS_TOGETHER).await > 0 {
        let (notes, noted) = notes(std::mem::take(&mut reads));
        let vault = vault.clone();
        let outcome = tokio::task::spawn_blocking(move || commit(&vault, notes)).await;
        let outcome = outcome.map_err(Refusal::internal).and_then(|outcome| outcome);
        for reply in noted {
            // The caller may have gone.
            let _ = reply.send(outcome.as_ref().map(drop).map_err(|refusal| Refusal(refusal.0.clone())));
        }
    }
}

fn commit(vault: &Vault, notes: Vec<AuditNote>) -> Result<(), Refusal> {
    let mut transaction = Transaction::default();
    for note in notes {
        transaction.audit.extend(note.bytes()?);
    }
    let unnoted = |problem: Refusal| {
        tracing::error!(problem = %problem.0, "reads of sealed keys are refused: they cannot be noted");
        Refusal::new(ProblemKind::Unavailable, "sealed keys are not handed out while the audit log cannot be written")
    };
    vault.commit_unaudited(transaction).map(drop).map_err(unnoted)
}

type Replies = Vec<oneshot::Sender<Result<(), Refusal>>>;

/// One note of the single bundles that a caller read, and one of each page.
fn notes(reads: Vec<Read>) -> (Vec<AuditNote>, Replies) {
    let mut sites: BTreeMap<(String, Option<IpAddr>), AuditNote> = BTreeMap::new();
    let (mut notes, mut noted) = (Vec::new(), Vec::with_capacity(reads.len()));
    for Read { actor, of, noted: reply } in reads {
        noted.push(reply);
        match of {
            ReadOf::Site(site) => {
                let key = (actor.caller.to_string(), actor.from);
                let note = sites.remove(&key).unwrap_or_else(|| AuditNote::new(&actor, AuditAction::ReadSealed));
                sites.insert(key, note.target(site));
            }
            ReadOf::Many(detail) => notes.push(AuditNote::new(&actor, AuditAction::ReadSealed).detail(detail)),
        }
    }
    notes.extend(sites.into_values());
    (notes, noted)
}

/// Reads that wait to be noted; further ones wait for a place among them.
const READS_WAITING: usize = 4096;

/// Reads that share a transaction.
const READS_TOGETHER: usize = 512;
