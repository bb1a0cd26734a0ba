//! The durable state, and the part of the past that must still be shown until the next group is durable.
//!
//! The engine shows a transaction as soon as it is applied. A feed reader must not see it before it is durable, and,
//! worse, must not see the hole where it took the place of an older event: a power cut would bring the older event
//! back behind the reader's cursor. So the writer sets replaced events aside here until their successors are durable.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::reached::Reached;
use crate::{Position, StoreError};

/// State that the writer publishes and everybody reads.
pub(super) struct Published {
    durable: Mutex<Durable>,
    failure: OnceLock<String>,
}

struct Durable {
    reached: Reached,
    /// Encoded events that are durable, and already replaced in the engine by events that are not.
    replaced: BTreeMap<u64, sled::IVec>,
}

impl Published {
    pub(super) fn new(reached: Reached) -> Self {
        Self { durable: Mutex::new(Durable { reached, replaced: BTreeMap::new() }), failure: OnceLock::new() }
    }

    pub(super) fn position(&self) -> Position {
        self.reached().position
    }

    pub(super) fn reached(&self) -> Reached {
        self.durable().reached
    }

    /// Keeps an event for readers. Call it before the engine drops the event.
    pub(super) fn set_aside(&self, seq: u64, encoded: sled::IVec) {
        let mut durable = self.durable();
        if seq <= durable.reached.position.seq {
            durable.replaced.insert(seq, encoded);
        }
    }

    /// Declares everything up to here durable.
    pub(super) fn advance(&self, reached: Reached) {
        let mut durable = self.durable();
        durable.reached = reached;
        durable.replaced.clear();
    }

    /// The events set aside in `after < seq <= through`, which must be read after the engine's.
    pub(super) fn replaced(&self, after: u64, through: u64) -> Vec<(u64, sled::IVec)> {
        let durable = self.durable();
        if after >= through {
            return Vec::new();
        }
        let range = durable.replaced.range((Bound::Excluded(after), Bound::Included(through)));
        range.map(|(seq, encoded)| (*seq, encoded.clone())).collect()
    }

    /// Closes the store to commits; the first cause stays.
    pub(super) fn fail(&self, cause: &str) {
        if self.failure.set(cause.to_owned()).is_ok() {
            tracing::error!(cause, "store failed and accepts no more commits");
        }
    }

    pub(super) fn usable(&self) -> Result<(), StoreError> {
        match self.failure.get() {
            Some(cause) => Err(StoreError::Failed { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    fn durable(&self) -> MutexGuard<'_, Durable> {
        // Every critical section leaves the state valid at each step.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
