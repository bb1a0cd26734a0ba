//! Rotations of a pool's unseal key, as the security team runs them.
//!
//! ```text
//! plan     a new key; the work to be done, signed                     proposed
//! approve  another admin, for the digest that was looked at           approved
//! run      ring: new key pending; every edge loads it                 announced
//!          ring: new key active, old key retiring                     active
//!          every content key sealed to the new key as well
//! verify   bundles opened with the new key, TLS keys compared         verified
//! retire   old stanzas removed; ring: old key retired                 retired
//! ```
//!
//! Every step asks certstore where the rotation is, so that it can be run again after whatever stopped it.

mod decisions;
mod edges;
mod genuine;
mod plan;
mod pool_query;
mod retire;
mod rewrap;
mod ring_steps;
mod run;
mod verify;

pub use decisions::{abort, approve};
pub use genuine::{GenuineRotation, read};
pub use plan::{NewRotation, next_key, propose};
pub use retire::retire;
pub use rewrap::{Rewrapped, rewrap};
pub use run::{Run, run};
pub use verify::{Verified, verify};
