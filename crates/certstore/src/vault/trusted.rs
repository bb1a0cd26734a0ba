//! The key ring that counts now.

use certseal_seal::{VerifyingKeys, ring_issuers};
use certseal_store::Write;
use certseal_wire::KeyRing;

use crate::{
    guards::expect,
    records::{ONLY, RING},
};

/// The key ring, and the issuers that count under it.
#[derive(Default)]
pub(crate) struct Trusted {
    /// An empty one of version 0 before the first.
    pub(crate) ring: KeyRing,
    pub(crate) issuers: VerifyingKeys,
    /// The revision of the ring's record; 0 before the first.
    pub(super) revision: u64,
}

impl Trusted {
    pub(super) fn new(ring: KeyRing, revision: u64) -> Self {
        Self { issuers: ring_issuers(&ring), ring, revision }
    }

    /// A condition that holds as long as this ring is the stored one.
    pub(crate) fn guard(&self) -> Write {
        Write::require(RING, ONLY, expect(self.revision))
    }
}
