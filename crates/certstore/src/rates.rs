//! How many requests a caller may make: a token bucket for each.

use std::num::NonZeroU32;

use certseal_service::problem::Refusal;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::{admission::busy, audit::Actor};

/// A bucket for each caller. Their number is bounded by the certificates that the private CA gave out.
pub(crate) struct Rates {
    limiter: DefaultKeyedRateLimiter<String>,
    per_second: NonZeroU32,
    refusals: DefaultKeyedRateLimiter<String>,
}

impl Rates {
    /// So many requests a second for each caller, and twice as many at once.
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(per_second.saturating_mul(TWICE));
        let refusals = Quota::per_second(NonZeroU32::MIN).allow_burst(REFUSALS_AT_ONCE);
        Self { limiter: RateLimiter::keyed(quota), per_second, refusals: RateLimiter::keyed(refusals) }
    }

    /// Counts a request; refuses it when there were too many.
    pub(crate) fn admit(&self, actor: &Actor) -> Result<(), Refusal> {
        let caller = actor.caller.to_string();
        self.limiter
            .check_key(&caller)
            .map_err(|_| busy(format!("expected at most {} requests a second of {caller}: slow down", self.per_second)))
    }

    /// Counts a refusal, each of which goes into the audit log: one a second, and some at once.
    pub(crate) fn admit_refusal(&self, actor: &Actor) -> Result<(), Refusal> {
        let caller = actor.caller.to_string();
        self.refusals.check_key(&caller).map_err(|_| busy(format!("{caller} asks too often for what it may not have")))
    }
}

const REFUSALS_AT_ONCE: NonZeroU32 = NonZeroU32::new(100).unwrap();
const TWICE: NonZeroU32 = NonZeroU32::new(2).unwrap();
