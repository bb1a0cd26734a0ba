//! When a certificate is renewed: as the CA advises, or else at about two thirds of its lifetime.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// When the CA wants a certificate to be renewed (ACME Renewal Information, RFC 9773, 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its start.
    pub start: Timestamp,
    /// Its end, which is after the start.
    pub end: Timestamp,
}

impl Window {
    /// None where the end is not after the start, which is not valid (RFC 9773, 4.2).
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// A uniformly random instant in it.
    pub(crate) fn instant(self, chance: f64) -> Timestamp {
        self.start.checked_add(fraction(self.end.duration_since(self.start), chance)).unwrap_or(self.end)
    }

    /// Whether an order that is placed now comes to the CA within it.
    pub(crate) fn contains(self, now: Timestamp) -> bool {
        self.start <= now && self.end.duration_since(now) > ON_THE_WAY
    }
}

/// What the CA says of a certificate's renewal, and when it is asked again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Advice {
    /// The suggested window, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// A page for people, about why it is what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// When the CA is asked again; none if it gives no advice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask_at: Option<Timestamp>,
}

impl Advice {
    /// Whether there is none, and nobody will ask for it.
    pub(crate) fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Before the first question, whose instant is spread over the usual time between two.
    pub(crate) fn unasked(now: Timestamp, renew_at: Timestamp, chance: f64) -> Self {
        let within = renew_at.duration_since(now).max(SignedDuration::ZERO).min(ASK_AFTER_ERROR);
        Self { ask_at: now.checked_add(fraction(within, chance)).ok(), ..Self::default() }
    }

    /// The next question after an answer: after as long as the CA says, within a minute and a day.
    pub(crate) fn ask_after(&mut self, now: Timestamp, retry_after: SignedDuration) {
        self.ask_at = now.checked_add(retry_after.clamp(ASK_MOST_OFTEN, ASK_LEAST_OFTEN)).ok();
    }

    /// The next question after one that got no answer.
    pub(crate) fn ask_after_error(&mut self, now: Timestamp, chance: f64) {
        let wait = ASK_AFTER_ERROR + fraction(ASK_AFTER_ERROR, chance / 5.0);
        self.ask_at = now.checked_add(wait).ok();
    }
}

/// When a certificate that is stored at `now` is renewed. Never at once: one that is past two thirds when it comes would
/// be ordered again without pause, and many that were brought along together all at the same time.
pub(crate) fn first(not_before: Timestamp, not_after: Timestamp, now: Timestamp, chance: f64) -> Timestamp {
    let rest = not_after.duration_since(now);
    let least = fraction(rest, 0.1 + 0.2 * chance).max(LEAST_LIFE);
    planned(not_before, not_after, chance).max(now.checked_add(least).unwrap_or(not_after))
}

/// A uniformly random instant between 63 % and 67 % of the validity: two thirds, spread so that what was issued
/// together is not renewed together.
fn planned(not_before: Timestamp, not_after: Timestamp, chance: f64) -> Timestamp {
    let lifetime = not_after.duration_since(not_before);
    not_before.checked_add(fraction(lifetime, 0.63 + 0.04 * chance)).unwrap_or(not_after)
}

pub(crate) fn fraction(duration: SignedDuration, part: f64) -> SignedDuration {
    // All nanoseconds would be an integer of 128 bits, which takes long to multiply.
    let milliseconds = duration.as_secs() as f64 * 1000.0 + f64::from(duration.subsec_millis());
    SignedDuration::from_millis((milliseconds * part) as i64)
}

/// The time that an order takes to the CA, with clocks that differ.
const ON_THE_WAY: SignedDuration = SignedDuration::from_secs(60);

/// Between questions about a renewal: at least, at most, and after an error (RFC 9773, 4.3).
const ASK_MOST_OFTEN: SignedDuration = SignedDuration::from_mins(1);
const ASK_LEAST_OFTEN: SignedDuration = SignedDuration::from_hours(24);
const ASK_AFTER_ERROR: SignedDuration = SignedDuration::from_hours(6);

/// The shortest time from issuance to renewal.
const LEAST_LIFE: SignedDuration = SignedDuration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn a_renewal_is_planned_for_two_thirds_of_the_lifetime_with_jitter() {
        let at = |chance| planned(now(), now() + SignedDuration::from_hours(100), chance).duration_since(now());
        assert_eq!(at(0.0).as_hours(), 63);
        assert_eq!((at(1.0).as_secs_f64() / 3600.0).round(), 67.0);
    }

    #[test]
    fn a_certificate_that_is_old_when_it_comes_is_not_renewed_at_once() {
        let (not_before, not_after) = (now() - SignedDuration::from_hours(24), now() + SignedDuration::from_secs(100));
        assert_eq!(first(not_before, not_after, now(), 0.0).duration_since(now()), LEAST_LIFE);
    }
}
