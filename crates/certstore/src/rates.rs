//! How many requests a caller may make: a token bucket for each.

use std::num::NonZeroU32;

use certseal_service::problem::Refusal;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::{admission::busy, audit::Actor};

/// A bucket for each caller. Their number is bounded by the certificates that the private CA gave out.
pub(crate) struct Rates {
    limiter: DefaultKeyedRateLimiter<String>,
    per_second: NonZeroU32,
}

impl Rates {
    /// So many requests a second for each caller, and twice as many at once.
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(per_second.saturating_mul(TWICE));
        Self { limiter: RateLimiter::keyed(quota), per_second }
    }

    /// Counts a request; refuses it when there were too many.
    pub(crate) fn admit(&self, actor: &Actor) -> Result<(), Refusal> {
        let caller = actor.caller.to_string();
        self.limiter
            .check_key(&caller)
            .map_err(|_| busy(format!("expected at most {} requests a second of {caller}: slow down", self.per_second)))
    }
}

const TWICE: NonZeroU32 = NonZeroU32::new(2).unwrap();
