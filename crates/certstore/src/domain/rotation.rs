//! Rotations of unseal keys: the conditions under which a key ring may change, and the stanzas that go with it.
//!
//! certstore cannot open anything, so it cannot tell whether a stanza is good: edges can, and the people who verify a
//! rotation. certstore enforces the order: a plan of one admin is approved by another one, every edge has the new key
//! before anything is sealed to it, and no old stanza goes before every bundle has a new one.
//!
//! ```text
//! approval   ring_steps   stanzas   verification      the steps of a rotation, each in one transaction
//!                          bundle_writes              many bundles, in transactions that the storage takes
//!         plan              record                    whether a plan can be followed; the stored rotation
//! ```

mod approval;
mod bundle_writes;
mod plan;
mod record;
mod ring_steps;
mod stanzas;
#[cfg(test)]
mod tests;
mod verification;

pub(crate) use approval::{abort, approve, propose};
pub(crate) use record::{find, list};
pub(crate) use ring_steps::moved_by_ring;
pub(crate) use stanzas::{retire, rewrap};
pub(crate) use verification::verify;
