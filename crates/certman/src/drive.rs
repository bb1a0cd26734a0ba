//! The order of things while a site is worked on: what is durable before which effect, and after it.
//!
//! The worker goes by it, and a simulation in which processes die at every point.

use certseal_issuance::{Action, Booking, Next, Outcome, Policy, Site};
use jiff::Timestamp;

/// The next thing to do with a site that is worked on.
#[derive(Debug)]
pub(crate) enum Todo {
    /// Write it, and ask again: somebody may have changed what is to be done.
    Write,
    /// Enter this in the books, in one transaction with the site.
    Book(Booking),
    /// Perform this.
    Perform(Action),
    /// Nothing before this instant.
    Wait(Timestamp),
    /// Nothing before somebody changes it.
    Rest,
}

/// The next thing to do with `site`, of which the journal has `written`.
pub(crate) fn next(site: &Site, written: &Site, now: Timestamp, policy: &Policy) -> Todo {
    match site.next(now, policy) {
        Next::Do(action) if action.needs_durable_state() && site != written => Todo::Write,
        Next::Do(action) => Todo::Perform(action),
        Next::Book(booking) => Todo::Book(booking),
        Next::WakeAt(at) => Todo::Wait(at),
        Next::Rest => Todo::Rest,
    }
}

/// Whether the site is to be written after an action, before anything else is done.
pub(crate) fn is_written_after(action: &Action, outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(_)) || action.makes_state_that_must_last()
}

#[cfg(test)]
mod tests;
