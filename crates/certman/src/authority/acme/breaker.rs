//! Whether a CA is away: a circuit breaker.
//!
//! Several failures in a row open it, for longer each time. Once its time is over the CA is asked again, by whoever comes; one
//! answer closes it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    /// How often it opened in a row.
    openings: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Whether the CA is left alone.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.state().open_until.is_some_and(|until| now < until)
    }

    /// Notes a request that was answered, or not.
    pub(super) fn note(&self, is_answered: bool, now: Instant) {
        let mut state = self.state();
        if is_answered {
            *state = State::default();
            return;
        }
        state.failures = state.failures.saturating_add(1);
        let is_open = state.open_until.is_some_and(|until| now < until);
        // Once it was open, the first failure opens it again.
        if !is_open && (state.failures >= FAILURES || state.openings > 0) {
            state.open_until = Some(now + (FIRST * 2_u32.pow(state.openings.min(10))).min(LONGEST));
            state.openings = state.openings.saturating_add(1);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// How long it is open at first, and at most.
const FIRST: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_for_longer_each_time_and_closes_with_an_answer() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for _ in 0..FAILURES - 1 {
            breaker.note(false, at(0));
        }
        breaker.note(true, at(0));
        breaker.note(false, at(0));
        assert!(!breaker.is_open(at(0)), "not in a row");
        (1..FAILURES).for_each(|_| breaker.note(false, at(0)));
        assert!(breaker.is_open(at(14)) && !breaker.is_open(at(15)));
        // What was under way when it opened makes it no worse.
        breaker.note(false, at(10));
        assert!(!breaker.is_open(at(15)));
        breaker.note(false, at(16));
        assert!(breaker.is_open(at(45)) && !breaker.is_open(at(46)));
        breaker.note(true, at(47));
        breaker.note(false, at(48));
        assert!(!breaker.is_open(at(48)));
        (0..100).for_each(|n| breaker.note(false, at(1_000 * n)));
        assert!(breaker.is_open(at(99_000 + 599)) && !breaker.is_open(at(99_000 + 600)));
    }
}
