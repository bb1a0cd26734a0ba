//! Which sealed keys a rotation is about.

use certseal_wire::{Epoch, RotationPlan, SealedQuery};

/// The sealed keys of a plan's pool; only those without a stanza for `lacking`, if that is given.
pub(super) fn sealed_keys_of(plan: &RotationPlan, lacking: Option<Epoch>) -> SealedQuery {
    SealedQuery { pool: Some(plan.pool.clone()), lacking, ..SealedQuery::default() }
}
