//! When to renew which site. Pure: nothing but its arguments counts.

use certseal_wire::DnsName;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A site whose key is still sealed as before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The site.
    pub site: DnsName,
    /// The version of its bundle.
    pub version: u64,
    /// When certman will renew it anyway.
    pub renew_at: Timestamp,
    /// When its certificate expires.
    pub not_after: Timestamp,
}

/// A site and when its renewal begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appointment {
    /// The site.
    pub site: DnsName,
    /// The version of the bundle that the renewal replaces.
    pub version: u64,
    /// When its renewal begins.
    pub at: Timestamp,
    /// When its certificate expires.
    pub not_after: Timestamp,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TooFast {
    /// More orders than the CA allows.
    #[error(
        "{sites} renewals within {} h are more than {limit} within any 3 h: with that limit they take {needed_hours} h, so \
         give --over {needed_hours}h or more, or a higher --orders-per-3h if the CA allows it", over.as_hours()
    )]
    Period {
        /// How many there are.
        sites: usize,
        /// The limit.
        limit: u32,
        /// The period that was asked for.
        over: SignedDuration,
        /// The period that would do.
        needed_hours: i64,
    },
    /// Certificates that end before it would be their turn.
    #[error(
        "{sites} certificates are renewed by {by} at the latest, which takes more than {limit} orders within 3 h: give a \
         higher --orders-per-3h if the CA allows it, or seal them anew with --by rewrap"
    )]
    Deadline {
        /// How many there are.
        sites: usize,
        /// Until when.
        by: Timestamp,
        /// The limit.
        limit: u32,
    },
}

/// Spreads the renewals of `candidates` evenly over the time `over` from `start` on, those first that end first, with no
/// more than `limit` of them within any three hours. None comes later than certman would renew it anyway, or too near its
/// expiry.
///
/// Where it falls within its share of the time is chosen by the site's name: the same input gives the same plan.
///
/// # Errors
/// [`TooFast`] when that cannot be, and what would.
pub fn spread(
    mut candidates: Vec<Candidate>,
    start: Timestamp,
    over: SignedDuration,
    limit: u32,
) -> Result<Vec<Appointment>, TooFast> {
    let limit = limit.max(1);
    let least = WINDOW_MS.div_ceil(limit.into()) as i128;
    let over_ms = over.as_millis();
    let width = over_ms / candidates.len().max(1) as i128;
    if width < least && candidates.len() > 1 {
        let needed_hours = (least as u128 * candidates.len() as u128).div_ceil(3_600_000) as i64; // far below i64::MAX
        return Err(TooFast::Period { sites: candidates.len(), limit, over, needed_hours });
    }
    candidates.sort_by_key(|candidate| (deadline(candidate, start), candidate.site.clone()));
    // From the end: as late as a site may come, so that those behind it still come in time at the allowed pace.
    let mut latest: Vec<i128> = vec![0; candidates.len()];
    let mut next = i128::MAX;
    for (place, candidate) in latest.iter_mut().zip(&candidates).rev() {
        *place = millis(deadline(candidate, start)).min(next.saturating_sub(least));
        next = *place;
    }
    let first = millis(start);
    if let Some(count) = latest.iter().rposition(|at| *at < first).map(|last| last + 1) {
        let by = candidates.get(count).or(candidates.last()).map_or(start, |candidate| deadline(candidate, start));
        return Err(TooFast::Deadline { sites: count, by, limit });
    }
    // Two neighbours stay `least` apart: each of the two sequences has that distance, and so has the lesser of them.
    let slack = (width - least).min(width / 2).max(0);
    let planned = candidates.into_iter().zip(latest).enumerate().map(|(place, (candidate, latest))| {
        let even = first + place as i128 * width + slack * i128::from(jitter(&candidate.site)) / 256;
        let Candidate { site, version, not_after, .. } = candidate;
        // Between `start` and a deadline, which are timestamps.
        let at = Timestamp::from_millisecond(even.min(latest) as i64).unwrap_or(start);
        Appointment { site, version, at, not_after }
    });
    Ok(planned.collect())
}

/// No later than certman would renew it by itself, and not within the last quarter before it expires.
fn deadline(candidate: &Candidate, start: Timestamp) -> Timestamp {
    let rest = candidate.not_after.duration_since(start);
    let margin = candidate.not_after.checked_sub(rest / 4).unwrap_or(candidate.not_after);
    candidate.renew_at.min(margin)
}

fn millis(at: Timestamp) -> i128 {
    at.as_millisecond().into()
}

fn jitter(site: &DnsName) -> u8 {
    certseal_seal::sha256(site.as_str().as_bytes()).0[0]
}

const WINDOW_MS: u128 = 3 * 3600 * 1000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    fn candidate(number: usize, renew_at: i64, not_after: i64) -> Candidate {
        let site = format!("s{number}.example").parse().unwrap();
        Candidate { site, version: 1, renew_at: at(renew_at), not_after: at(not_after) }
    }

    #[test]
    fn renewals_are_spread_over_the_whole_period_and_the_plan_is_the_same_again() {
        let candidates: Vec<_> = (0..100).map(|n| candidate(n, 1000, 2000)).collect();
        let over = SignedDuration::from_hours(100);
        let plan = spread(candidates.clone(), at(0), over, 300).unwrap();
        for day in 0..4 {
            let within = plan.iter().filter(|one| one.at >= at(day * 25) && one.at < at(day * 25 + 25)).count();
            assert_eq!(within, 25, "day {day}");
        }
        assert_eq!(plan, spread(candidates.into_iter().rev().collect(), at(0), over, 300).unwrap());
    }

    #[test]
    fn what_ends_within_the_period_comes_first() {
        let mut candidates: Vec<_> = (0..50).map(|n| candidate(n, 1000, 2000)).collect();
        candidates.push(candidate(99, 3, 20));
        let plan = spread(candidates, at(0), SignedDuration::from_hours(500), 300).unwrap();
        assert_eq!(plan[0].site.as_str(), "s99.example");
        assert!(plan[0].at <= at(3));
    }

    #[test]
    fn a_pace_above_the_limit_is_refused_with_the_period_that_fits() {
        let candidates: Vec<_> = (0..1000).map(|n| candidate(n, 1000, 2000)).collect();
        let fast = spread(candidates.clone(), at(0), SignedDuration::from_hours(5), 300).unwrap_err();
        let TooFast::Period { needed_hours, .. } = fast else { panic!("{fast}") };
        assert_eq!(needed_hours, 10);
        assert!(spread(candidates, at(0), SignedDuration::from_hours(needed_hours), 300).is_ok());
    }

    #[test]
    fn certificates_that_all_end_too_soon_for_the_pace_are_refused() {
        let candidates: Vec<_> = (0..1000).map(|n| candidate(n, 2, 2000)).collect();
        let error = spread(candidates, at(0), SignedDuration::from_hours(100), 300).unwrap_err();
        let TooFast::Deadline { sites, .. } = error else { panic!("{error}") };
        assert!((700..1000).contains(&sites), "{sites}");
    }

    #[test]
    fn nothing_to_do_and_one_thing_to_do() {
        assert_eq!(spread(Vec::new(), at(0), SignedDuration::from_hours(1), 1).unwrap(), []);
        let plan = spread(vec![candidate(1, 1000, 2000)], at(0), SignedDuration::from_hours(1), 1).unwrap();
        assert!(plan[0].at >= at(0) && plan[0].at <= at(1));
    }

    proptest! {
        #[test]
        fn never_after_its_own_renewal_nor_above_the_pace(
            ends in prop::collection::vec((0_i64..400, 1_i64..400), 0..200),
            over in 1_i64..500,
            limit in 1_u32..400,
        ) {
            let candidates: Vec<_> = ends.iter().enumerate()
                .map(|(n, (renew_at, more))| candidate(n, *renew_at, renew_at + more))
                .collect();
            if let Ok(plan) = spread(candidates.clone(), at(0), SignedDuration::from_hours(over), limit) {
                prop_assert_eq!(plan.len(), candidates.len());
                for candidate in &candidates {
                    let planned = plan.iter().find(|one| one.site == candidate.site).unwrap();
                    prop_assert!(planned.at >= at(0) && planned.at <= at(over));
                    prop_assert!(planned.at <= candidate.renew_at && planned.at < candidate.not_after);
                }
                for (place, first) in plan.iter().enumerate() {
                    let window = plan[place..].iter().take_while(|one| one.at.duration_since(first.at).as_hours() < 3);
                    prop_assert!(window.count() <= limit as usize);
                }
            }
        }
    }
}
