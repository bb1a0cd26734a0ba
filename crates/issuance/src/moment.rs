//! Time and chance, as certman passes them in.

use jiff::Timestamp;

/// When something happens, and how chance spreads what follows.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// A uniform random number in 0..1.
    pub chance: f64,
}
