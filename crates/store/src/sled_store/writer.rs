//! Group commit: one thread applies what has queued up, makes it durable at once, and acknowledges it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
};

use super::{
    apply::{Reached, Trees},
    high_water::HighWater,
    open::Log,
    published::Published,
};
use crate::{Position, StoreError, Transaction};

/// Something to do, and where its answer goes.
pub(super) struct Request {
    pub(super) work: Work,
    pub(super) reply: SyncSender<Result<Position, StoreError>>,
}

pub(super) enum Work {
    Apply(Transaction),
    /// Drops the entries of the audit log up to this number.
    DropAudit(u64),
}

/// The only thing that changes the database.
pub(super) struct Writer {
    trees: Trees,
    log: Log,
    high_water: HighWater,
    reached: Reached,
    published: Arc<Published>,
    space: Space,
}

impl Writer {
    pub(super) fn new(
        trees: Trees,
        log: Log,
        high_water: HighWater,
        reached: Reached,
        published: Arc<Published>,
        space: Space,
    ) -> Self {
        Self { trees, log, high_water, reached, published, space }
    }

    /// Commits until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let group: Vec<Request> =
                std::iter::once(first).chain(requests.try_iter().take(MAX_GROUP_LENGTH - 1)).collect();
            let answers = self.answers(&group);
            for (request, answer) in group.iter().zip(answers) {
                // Whoever asked may have gone; what is committed stays committed.
                let _ = request.reply.send(answer);
            }
        }
    }

    fn answers(&mut self, group: &[Request]) -> Vec<Result<Position, StoreError>> {
        let ready = self.published.usable().and_then(|()| self.space.check());
        if let Err(error) = ready {
            return vec![Err(error); group.len()];
        }
        self.commit(group).unwrap_or_else(|error| {
            self.published.fail(&error.to_string());
            vec![Err(error); group.len()]
        })
    }

    /// Each transaction's own outcome, or an error that leaves all of them in doubt.
    fn commit(&mut self, group: &[Request]) -> Result<Vec<Result<Position, StoreError>>, StoreError> {
        let before = self.reached;
        let mut outcomes = Vec::with_capacity(group.len());
        for request in group {
            let outcome = match &request.work {
                Work::Apply(transaction) => self.trees.apply(transaction, self.reached, &self.published),
                Work::DropAudit(through) => self.trees.drop_audit(*through, self.reached),
            };
            match &outcome {
                Ok(reached) => self.reached = *reached,
                Err(StoreError::Conflict { .. } | StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error.clone()),
            }
            outcomes.push(outcome.map(|reached| reached.position));
        }
        // Refusals too are answered only now: they may rest on what an earlier transaction of the group did.
        if self.reached != before {
            self.log.persist(&self.trees)?;
            self.high_water.advance(self.reached.position)?;
            self.published.advance(self.reached);
        }
        Ok(outcomes)
    }
}

/// The free space that commits must leave.
#[derive(Clone)]
pub(super) struct Space {
    directory: PathBuf,
    reserve: u64,
}

impl Space {
    pub(super) fn new(directory: PathBuf, reserve: u64) -> Self {
        Self { directory, reserve }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        let stat = rustix::fs::statvfs(&self.directory)
            .map_err(|errno| StoreError::io("ask for the free space of", &self.directory)(errno.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.reserve {
            return Err(StoreError::Full { directory: self.directory.clone(), free, reserve: self.reserve });
        }
        Ok(())
    }
}

/// The most transactions that share one sync.
const MAX_GROUP_LENGTH: usize = 256;
