//! The time of a simulation: milliseconds from its start.

use jiff::Timestamp;

/// The instant of a millisecond of the simulation.
pub(crate) fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(START_MS + milliseconds).unwrap_or(Timestamp::MAX)
}

/// 1 January 2027.
pub(crate) const START_MS: i64 = 1_798_761_600_000;

pub(crate) const DAY: i64 = 86_400_000;
