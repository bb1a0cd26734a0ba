//! Which role hears of a record, and which may read it.

use certseal_wire::{Kind, PoolName, Role};

/// Whether `role` hears of events for `pools`: an edge of those that concern its pool, the others of all.
pub(crate) fn is_for(role: &Role, pools: &[PoolName]) -> bool {
    match role {
        Role::Edge(pool) => pools.is_empty() || pools.contains(pool),
        _ => true,
    }
}

/// Whether `role` may read a record of `kind` that is for `pools`.
pub(crate) fn may_read(role: &Role, kind: Kind, pools: &[PoolName]) -> bool {
    match (role, kind) {
        (Role::Edge(pool), Kind::Bundle | Kind::Route | Kind::Checkpoint | Kind::Staple) => pools.contains(pool),
        (Role::Edge(_) | Role::Issuer | Role::Admin, _) => true,
        (Role::Platform | Role::Service, _) => false,
    }
}
