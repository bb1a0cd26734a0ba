//! Whether a CA is away: a circuit breaker.
//!
//! ```text
//!  closed --failures in a row--> open --its time is over--> half open --an answer--> closed
//!                                 ^                             |
//!                                 +----a failure, for longer----+
//! ```
//!
//! New orders have a circuit of their own beside the one of all requests: a CA may answer everything else, and fail at them. While a
//! circuit is not closed, one request at a time finds out whether the CA is back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of all requests.
    all: Circuit,
    /// Of new orders alone: an answer to anything else says nothing about them.
    orders: Circuit,
}

/// The subject of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    NewOrder,
    Other,
}

impl Breaker {
    /// Whether the CA is left alone, or somebody finds out just now whether it is back.
    pub(super) fn is_away(&self, now: Instant) -> bool {
        let state = self.state();
        state.all.is_away(now) || state.orders.is_away(now)
    }

    /// Leave to ask the CA, until it is dropped. None while the CA is left alone, or while somebody else finds out whether it is back.
    ///
    /// A new order comes here only where no other CA may have it, or where the CA was there a moment ago. It may ask a CA that is
    /// left alone, too, one order at a time: nothing else would bring its certificate.
    pub(super) fn leave(self: &Arc<Self>, subject: Subject, now: Instant) -> Option<Leave> {
        let is_order = subject == Subject::NewOrder;
        let mut state = self.state();
        let (all, orders) = (state.all.openings > 0, is_order && state.orders.openings > 0);
        let is_tried = all && state.all.is_tried || orders && state.orders.is_tried;
        if is_tried || !is_order && state.all.is_open(now) {
            return None;
        }
        state.all.is_tried |= all;
        state.orders.is_tried |= orders;
        Some(Leave { breaker: self.clone(), all, orders })
    }

    /// Notes a request that was answered, or not.
    pub(super) fn note(&self, subject: Subject, is_answered: bool, now: Instant) {
        let mut state = self.state();
        state.all.note(is_answered, now);
        if subject == Subject::NewOrder {
            state.orders.note(is_answered, now);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to ask a CA. While a circuit is not closed, nobody else has it.
pub(super) struct Leave {
    breaker: Arc<Breaker>,
    /// The circuits that are tried by it.
    all: bool,
    orders: bool,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut state = self.breaker.state();
        state.all.is_tried &= !self.all;
        state.orders.is_tried &= !self.orders;
    }
}

#[derive(Debug, Default)]
struct Circuit {
    /// Failures in a row.
    failures: u32,
    /// How often it opened in a row; 0 while it is closed.
    openings: u32,
    open_until: Option<Instant>,
    /// Somebody finds out whether it can be closed.
    is_tried: bool,
}

impl Circuit {
    fn is_open(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    fn is_away(&self, now: Instant) -> bool {
        self.openings > 0 && (self.is_tried || self.is_open(now))
    }

    fn note(&mut self, is_answered: bool, now: Instant) {
        if is_answered {
            // Whoever tries it has its leave still.
            *self = Self { is_tried: self.is_tried, ..Self::default() };
            return;
        }
        self.failures = self.failures.saturating_add(1);
        // Once it was open, the first failure opens it again.
        if !self.is_open(now) && (self.failures >= FAILURES || self.openings > 0) {
            self.open_until = Some(now + (FIRST * 2_u32.pow(self.openings.min(10))).min(LONGEST));
            self.openings = self.openings.saturating_add(1);
        }
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

    /// A breaker that opened at the instant, by new orders or by other requests.
    fn opened(subject: Subject, at: Instant) -> Arc<Breaker> {
        let breaker = Arc::new(Breaker::default());
        (0..FAILURES).for_each(|_| breaker.note(subject, false, at));
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_for_longer_each_time_and_closes_with_an_answer() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let note = |is_answered, now| breaker.note(Subject::Other, is_answered, now);
        for _ in 0..FAILURES - 1 {
            note(false, at(0));
        }
        note(true, at(0));
        note(false, at(0));
        assert!(!breaker.is_away(at(0)), "not in a row");
        (1..FAILURES).for_each(|_| note(false, at(0)));
        assert!(breaker.is_away(at(14)) && !breaker.is_away(at(15)));
        // What was under way when it opened makes it no worse.
        note(false, at(10));
        assert!(!breaker.is_away(at(15)));
        note(false, at(16));
        assert!(breaker.is_away(at(45)) && !breaker.is_away(at(46)));
        note(true, at(47));
        note(false, at(48));
        assert!(!breaker.is_away(at(48)));
        (0..100).for_each(|n| note(false, at(1_000 * n)));
        assert!(breaker.is_away(at(99_000 + 599)) && !breaker.is_away(at(99_000 + 600)));
    }

    #[test]
    fn a_ca_that_answers_everything_but_new_orders_is_away_until_it_answers_one() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES {
            assert!(!breaker.is_away(start));
            breaker.note(Subject::Other, true, start);
            breaker.note(Subject::NewOrder, false, start);
            breaker.note(Subject::Other, true, start);
        }
        assert!(breaker.is_away(start));
        breaker.note(Subject::Other, true, start + FIRST);
        breaker.note(Subject::NewOrder, false, start + FIRST);
        assert!(breaker.is_away(start + FIRST * 2), "for longer");
        breaker.note(Subject::NewOrder, true, start + FIRST * 2);
        assert!(!breaker.is_away(start + FIRST * 2));
    }

    #[test]
    fn one_order_at_a_time_finds_out_whether_a_ca_is_back() {
        let start = Instant::now();
        for subject in [Subject::NewOrder, Subject::Other] {
            let breaker = opened(subject, start);
            let order = |now| breaker.leave(Subject::NewOrder, now);
            assert!(breaker.is_away(start) && !breaker.is_away(start + FIRST));
            let first = order(start + FIRST);
            assert!(first.is_some() && order(start + FIRST).is_none());
            assert!(breaker.is_away(start + FIRST), "others go elsewhere");
            breaker.note(Subject::NewOrder, false, start + FIRST);
            drop(first);
            assert!(breaker.is_away(start + FIRST * 2));
            // It may be the only CA that an order may go to.
            let second = order(start + FIRST * 2);
            assert!(second.is_some() && order(start + FIRST * 2).is_none());
            breaker.note(Subject::NewOrder, true, start + FIRST * 2);
            assert!(!breaker.is_away(start + FIRST * 2));
            let all: Vec<_> = (0..100).map(|_| order(start + FIRST * 2)).collect();
            assert!(all.iter().all(Option::is_some), "it is back");
            drop(second);
        }
    }

    #[test]
    fn a_ca_that_is_away_is_asked_for_nothing_that_can_wait() {
        let start = Instant::now();
        let breaker = opened(Subject::Other, start);
        let other = |now| breaker.leave(Subject::Other, now);
        assert!(other(start + FIRST / 2).is_none(), "at once");
        let first = other(start + FIRST);
        assert!(first.is_some() && other(start + FIRST).is_none());
        drop(first);
        assert!(other(start + FIRST).is_some());
        // One that fails at new orders does everything else.
        let breaker = Arc::new(Breaker::default());
        for _ in 0..FAILURES {
            breaker.note(Subject::NewOrder, false, start);
            breaker.note(Subject::Other, true, start);
        }
        let all: Vec<_> = (0..100).map(|_| breaker.leave(Subject::Other, start)).collect();
        assert!(breaker.is_away(start) && all.iter().all(Option::is_some));
    }
}
