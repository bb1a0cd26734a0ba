//! OCSP answers for a stored certificate: when its responder is asked for the next one (RFC 6960).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Moment, renewal::fraction};

/// How far a site is with the OCSP answers for its certificate. A site none of whose certificates ever named a responder has
/// nothing of this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stapling {
    /// Whether the stored certificate names a responder that is asked.
    pub responder: bool,
    /// The version of the newest answer that certstore has; 0 before the first. It goes on counting with the next certificate.
    pub version: u64,
    /// When the responder is asked next; none for at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_at: Option<Timestamp>,
}

impl Stapling {
    /// After a bundle was stored, whose certificate names a responder or does not. The answer is fetched at once: edges serve
    /// the certificate from now on.
    pub(crate) fn of_stored(before: Option<Self>, responder: bool) -> Option<Self> {
        if !responder && before.is_none() {
            return None;
        }
        let version = before.map_or(0, |before| before.version);
        Some(Self { responder, version, fetch_at: None })
    }
}

/// When the answer after one that holds from `this_update` to `next_update` is fetched: after half of that time and up to a tenth
/// more, so that what was fetched together is not fetched together again. An answer that was old when it came, from a cache
/// for example, is fetched again after a quarter of what is left of it.
pub(crate) fn refreshed_at(this_update: Timestamp, next_update: Timestamp, moment: Moment) -> Timestamp {
    let (life, rest) = (next_update.duration_since(this_update), next_update.duration_since(moment.now));
    let planned = this_update.checked_add(fraction(life, 0.5 + 0.1 * moment.chance)).unwrap_or(next_update);
    let least = moment.now.checked_add(fraction(rest, 0.25).max(LEAST_PAUSE)).unwrap_or(next_update);
    planned.max(least)
}

/// From one answer to the next question, however short the answers hold.
const LEAST_PAUSE: SignedDuration = SignedDuration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_fetched_again_at_half_of_its_life_and_an_old_one_before_its_end() {
        let hours = SignedDuration::from_hours;
        let from: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let to = from + hours(100);
        let after = |now: Timestamp, chance| refreshed_at(from, to, Moment { now, chance }).duration_since(from);
        assert_eq!((after(from, 0.0), after(from, 1.0)), (hours(50), hours(60)));
        assert_eq!(after(from + hours(80), 0.0), hours(85));
        // One whose end is near is not asked for without a pause.
        assert_eq!(after(to - SignedDuration::from_secs(4), 0.0), hours(100) + SignedDuration::from_secs(1));
    }
}
