//! The terms by which a mirror takes items: whose it is, whom it believes, and what opens its keys.

use std::sync::{Arc, OnceLock, atomic::AtomicBool};

use certseal_seal::VerifyingKey;
use certseal_wire::PoolName;

use crate::KeyHolder;

/// The terms by which a mirror takes items.
pub(super) struct Terms {
    pub(super) pool: PoolName,
    pub(super) security: VerifyingKey,
    /// The holder that new bundles must open with, once a resolver has said so.
    pub(super) key_holder: OnceLock<Arc<dyn KeyHolder>>,
    /// Whether it was said that not all refused items are remembered.
    pub(super) refused_overflowed: AtomicBool,
}

impl Terms {
    pub(super) fn new(pool: PoolName, security: VerifyingKey) -> Self {
        Self { pool, security, key_holder: OnceLock::new(), refused_overflowed: AtomicBool::new(false) }
    }
}
