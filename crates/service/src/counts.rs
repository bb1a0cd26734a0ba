//! Visitors who overdid it, counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counts of what a listener did to those who overdid it.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    refused: AtomicU64,
    unread: AtomicU64,
}

impl Counts {
    /// Connections that were closed at once, since their address had too many.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Responses that were given up, since nobody read them.
    pub fn unread(&self) -> u64 {
        self.0.unread.load(Ordering::Relaxed)
    }

    pub(crate) fn add_refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_unread(&self) {
        self.0.unread.fetch_add(1, Ordering::Relaxed);
    }
}
