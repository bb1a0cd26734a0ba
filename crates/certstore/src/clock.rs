//! Time as records hold it: whole seconds since 1970.

use jiff::Timestamp;

/// The time now.
pub(crate) fn now() -> u64 {
    // With a clock that says a time before 1970 nothing expires.
    seconds(Timestamp::now())
}

/// The seconds of an instant; 0 for one before 1970.
pub(crate) fn seconds(at: Timestamp) -> u64 {
    at.as_second().try_into().unwrap_or(0)
}
