//! How far a migration has come.

use std::collections::BTreeMap;

use certseal_seal::LegacySuite;
use certseal_wire::Inventory;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{pace::Candidate, remaining::Remaining};

/// How far a migration has come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Bundles by the suite of their key.
    pub suites: BTreeMap<String, u64>,
    /// Keys in old formats.
    pub left: u64,
    /// Of those, sites whose next certificate is on its way.
    pub under_way: u64,
    /// Sites that fewer have become of each hour, while this was measured.
    pub per_hour: Option<f64>,
    /// Renewals that certman has planned for the next 24 hours.
    pub next_24h: u64,
    /// When nothing is left, at that pace or by the planned times, whichever comes first.
    pub ends_at: Option<Timestamp>,
}

impl Status {
    /// The status that follows from two looks at the store, `seconds` apart, and from what certman has planned.
    pub fn new(before: &Inventory, after: &Inventory, seconds: f64, remaining: &Remaining, now: Timestamp) -> Self {
        let (was, is) = (legacy_count(before), legacy_count(after));
        let per_hour = (seconds > 0.0).then(|| was.saturating_sub(is) as f64 / seconds * 3600.0);
        let at_pace = per_hour
            .filter(|pace| *pace > 0.0)
            .and_then(|pace| now.checked_add(SignedDuration::try_from_secs_f64(is as f64 / pace * 3600.0).ok()?).ok());
        let planned = remaining.candidates.iter().map(|candidate| candidate.renew_at).max();
        let soon = |candidate: &&Candidate| candidate.renew_at.duration_since(now) <= SignedDuration::from_hours(24);
        Self {
            suites: after.suites.clone(),
            left: is,
            under_way: remaining.busy.len() as u64,
            per_hour,
            next_24h: remaining.candidates.iter().filter(soon).count() as u64,
            ends_at: if is == 0 { None } else { [at_pace, planned].into_iter().flatten().min() },
        }
    }
}

/// Keys in old formats.
pub fn legacy_count(inventory: &Inventory) -> u64 {
    LegacySuite::ALL.iter().filter_map(|suite| inventory.suites.get(suite.name())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(legacy: u64) -> Inventory {
        let suites = [("rsa-oaep-sha256".to_owned(), legacy), ("p256".to_owned(), 5)].into();
        Inventory { bundles: legacy + 5, suites, ..Inventory::default() }
    }

    #[test]
    fn the_end_is_estimated_from_the_pace_or_from_the_planned_times_whichever_is_sooner() {
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let at = |hours: i64| now + SignedDuration::from_hours(hours);
        let candidate =
            Candidate { site: "a.example".parse().unwrap(), version: 1, renew_at: at(30), not_after: at(99) };
        let left = Remaining { candidates: vec![candidate], ..Remaining::default() };
        let resting = Status::new(&inventory(100), &inventory(100), 10.0, &left, now);
        assert_eq!((resting.left, resting.per_hour, resting.ends_at), (100, Some(0.0), Some(at(30))));
        let moving = Status::new(&inventory(110), &inventory(100), 3600.0, &left, now);
        assert_eq!((moving.per_hour, moving.ends_at), (Some(10.0), Some(at(10))));
        assert_eq!(Status::new(&inventory(1), &inventory(0), 10.0, &Remaining::default(), now).ends_at, None);
    }
}
