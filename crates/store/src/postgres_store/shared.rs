//! The knowledge that the writer and the readers of one store share.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::failure::Fault;
use crate::{Position, StoreError};

/// How far the database is known to be durable, and when it last answered.
pub(super) struct Shared {
    known: Mutex<Known>,
}

struct Known {
    /// The newest position that an acknowledged commit covers.
    proven: Position,
    contact: Result<Instant, StoreError>,
}

impl Shared {
    pub(super) fn new(proven: Position) -> Self {
        Self { known: Mutex::new(Known { proven, contact: Ok(Instant::now()) }) }
    }

    pub(super) fn proven(&self) -> Position {
        self.known().proven
    }

    /// Notes that everything up to here survives what acknowledged commits survive.
    pub(super) fn prove(&self, position: Position) {
        let mut known = self.known();
        if position.epoch == known.proven.epoch && position.seq > known.proven.seq {
            known.proven = position;
        }
    }

    /// Refuses a database that shows less than was proven `before` it was asked.
    ///
    /// Passing, because it may be a server that has been replaced and does not know yet.
    pub(super) fn check(&self, before: Position, found: Position) -> Result<(), Fault> {
        if found.epoch == before.epoch && found.seq >= before.seq {
            return Ok(());
        }
        Err(Fault::passing(StoreError::WentBack { expected: before, found }))
    }

    pub(super) fn in_contact(&self) {
        self.known().contact = Ok(Instant::now());
    }

    pub(super) fn out_of_contact(&self, error: &StoreError) {
        self.known().contact = Err(error.clone());
    }

    /// Whether the server answered within the last so long.
    pub(super) fn in_contact_within(&self, limit: Duration) -> bool {
        matches!(self.known().contact, Ok(at) if at.elapsed() < limit)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every critical section leaves the state valid at each step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
