//! Group commit: queued requests are applied as one transaction of the engine, and made durable at once.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{apply::Trees, high_water::HighWater, open::Log, published::Published, reached::Reached};
use crate::{
    StoreError,
    queue::{Answer, Request, Work, transactions},
};

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

    /// Makes a group durable; each request's own outcome.
    pub(super) fn answers(&mut self, group: &[Request]) -> Vec<Answer> {
        let ready = self.published.usable().and_then(|()| self.space.check());
        if let Err(error) = ready {
            return vec![Err(error); group.len()];
        }
        self.commit(group).unwrap_or_else(|error| {
            self.published.fail(&error.to_string());
            vec![Err(error); group.len()]
        })
    }

    /// Each request's own outcome, or an error that leaves all of them in doubt.
    fn commit(&mut self, group: &[Request]) -> Result<Vec<Answer>, StoreError> {
        let (outcomes, reached) = match group {
            [Request { work: Work::DropAudit(through), .. }] => {
                let reached = self.trees.drop_audit(*through, self.reached)?;
                (vec![Ok(reached.position)], reached)
            }
            _ => self.trees.apply(transactions(group), self.reached, &self.published)?,
        };
        // Refusals too are answered only now: they may rest on what an earlier transaction of the group did.
        if self.reached != reached {
            self.reached = reached;
            self.log.persist(&self.trees)?;
            self.high_water.advance(reached.position)?;
            self.published.advance(reached);
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
