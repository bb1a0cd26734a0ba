//! The bounds of what each caller of a daemon may use, so that none takes it from the others.
//!
//! - [`Rates`]: requests a second.
//! - [`Bodies`]: octets of request bodies at one time, and the time that a body may take.
//! - [`Shares`]: anything else that is counted.

mod bodies;
mod rates;
mod shares;

pub use bodies::{Bodies, BodyLimits, within_budget};
pub use rates::{Rates, within_rate};
pub use shares::{Lack, Share, Shares};
