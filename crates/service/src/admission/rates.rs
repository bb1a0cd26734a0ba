//! How many requests a caller may make: a token bucket for each.

use std::{num::NonZeroU32, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use certseal_wire::Caller;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::problem::Refusal;

/// A bucket for each caller. Their number is bounded by the certificates that the private CA gave out.
#[derive(Debug)]
pub struct Rates {
    limiter: DefaultKeyedRateLimiter<String>,
    per_second: NonZeroU32,
    refusals: DefaultKeyedRateLimiter<String>,
}

impl Rates {
    /// So many requests a second for each caller, and twice as many at once.
    pub fn new(per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(per_second.saturating_mul(TWICE));
        let refusals = Quota::per_second(NonZeroU32::MIN).allow_burst(REFUSALS_AT_ONCE);
        Self { limiter: RateLimiter::keyed(quota), per_second, refusals: RateLimiter::keyed(refusals) }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// When there were too many.
    pub fn admit(&self, caller: &Caller) -> Result<(), Refusal> {
        self.limiter.check_key(&caller.to_string()).map_err(|_| {
            Refusal::busy(format!("expected at most {} requests a second of {caller}: slow down", self.per_second))
        })
    }

    /// Counts a refusal, each of which goes into the audit log: one a second, and some at once.
    ///
    /// # Errors
    /// When there were too many.
    pub fn admit_refusal(&self, caller: &Caller) -> Result<(), Refusal> {
        self.refusals
            .check_key(&caller.to_string())
            .map_err(|_| Refusal::busy(format!("{caller} asks too often for what it may not have")))
    }
}

/// Middleware for requests with a [`Caller`]: a caller that asks too often is refused.
pub async fn within_rate(State(rates): State<Arc<Rates>>, request: Request, next: Next) -> Response {
    let admitted = match request.extensions().get::<Caller>() {
        Some(caller) => rates.admit(caller),
        None => Err(Refusal::internal("a request without a caller")),
    };
    match admitted {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

const REFUSALS_AT_ONCE: NonZeroU32 = NonZeroU32::new(100).unwrap();
const TWICE: NonZeroU32 = NonZeroU32::new(2).unwrap();
