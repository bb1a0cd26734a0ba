//! When a certificate is renewed.

use jiff::{SignedDuration, Timestamp};

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
    SignedDuration::from_millis((duration.as_millis() as f64 * part) as i64)
}

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
