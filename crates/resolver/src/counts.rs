//! The counts of a resolver.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of what a resolver has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Certificates that were in the cache.
    pub hits: u64,
    /// Certificates that were loaded from the mirror.
    pub misses: u64,
    /// Keys that were unsealed.
    pub unsealed: u64,
    /// Attempts that unsealed no key, or one that is not what the certificate needs.
    pub unseal_failures: u64,
    /// Handshakes without a name, or with one that no certificate is for.
    pub unknown_names: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) unsealed: AtomicU64,
    pub(crate) unseal_failures: AtomicU64,
    pub(crate) unknown_names: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            hits: of(&self.hits),
            misses: of(&self.misses),
            unsealed: of(&self.unsealed),
            unseal_failures: of(&self.unseal_failures),
            unknown_names: of(&self.unknown_names),
        }
    }
}
