//! The rules of each kind of record, as functions over a [`Vault`](crate::vault::Vault).
//!
//! ```text
//! ring                                    a ring that changes unseal keys moves a rotation on
//! rotation    inventory   sweep   restore
//! put  challenges  edges  backup
//! presence    bundles
//! ```

pub(crate) mod backup;
pub(crate) mod bundles;
pub(crate) mod challenges;
pub(crate) mod edges;
pub(crate) mod inventory;
pub(crate) mod presence;
pub(crate) mod put;
pub(crate) mod restore;
pub(crate) mod ring;
pub(crate) mod rotation;
pub(crate) mod sweep;
