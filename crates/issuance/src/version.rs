//! Versions of routes and bundles, which only grow.

/// The version after `version`. Versions that honest work does not come to were signed by somebody who had the issuer key
/// that is gone: the next one is above the floor then.
pub(crate) fn successor(version: u64, floor: u64) -> u64 {
    below_ceiling(version, floor).saturating_add(1)
}

pub(crate) fn below_ceiling(version: u64, floor: u64) -> u64 {
    if version < CEILING { version } else { floor }
}

/// No site changes so often: a billion times a second, for 292 years.
const CEILING: u64 = 1 << 63;
