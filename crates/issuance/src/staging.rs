//! Staged onboarding: many new sites in steps, a few first. The next step follows a good one; none follows bad signs.

use certseal_wire::{NamesReport, Readiness, SiteState, SiteStatus};
use serde::{Deserialize, Serialize};

/// How large steps are, and how many of their sites may fail.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staging {
    /// The most sites of a step. The first one has ten, and each has ten times as many as the one before it.
    pub batch: u32,
    /// The part of a step's sites, rounded up, that may fail without an end to the onboarding.
    pub may_fail: f64,
}

/// How far a site has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Its certificate is on the way. Somebody may be away for a while, the CA for example: that is no failure of the site.
    Open,
    /// It has its certificate, and no other one is on the way.
    Active,
    /// The CA rejected its last order, or no order can succeed. It may still come right.
    Failing,
}

impl Progress {
    /// How far a site has come whose status is this.
    pub fn of(status: &SiteStatus) -> Self {
        match &status.order {
            _ if status.state == SiteState::Failed => Self::Failing,
            Some(order) if order.rejections > 0 => Self::Failing,
            _ if status.state == SiteState::Waiting && status.dns.as_ref().is_some_and(is_not_ready) => Self::Failing,
            None if status.version > 0 => Self::Active,
            _ => Self::Open,
        }
    }
}

fn is_not_ready(dns: &NamesReport) -> bool {
    dns.readiness == Readiness::NotReady
}

/// What became of the sites of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StepCounts {
    /// Sites of the step.
    pub sites: u32,
    /// Those with a certificate.
    pub active: u32,
    /// Those that fail.
    pub failing: u32,
}

/// What follows from the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Some sites have neither a certificate nor a failure yet.
    Wait,
    /// The next step.
    GoOn,
    /// No further step: too many fail.
    Stop,
}

impl StepCounts {
    /// A site goes from one progress to another.
    pub fn moved(&mut self, from: Progress, to: Progress) {
        match from {
            Progress::Open => {}
            Progress::Active => self.active -= 1,
            Progress::Failing => self.failing -= 1,
        }
        match to {
            Progress::Open => {}
            Progress::Active => self.active += 1,
            Progress::Failing => self.failing += 1,
        }
    }
}

impl Staging {
    /// How many sites the step of this number has, counted from 0; the last one has what is left.
    pub fn size(self, step: u32) -> u32 {
        10_u32.checked_pow(step.saturating_add(1)).map_or(self.batch, |size| size.min(self.batch)).max(1)
    }

    /// What follows from what became of a step's sites so far.
    pub fn verdict(self, counts: StepCounts) -> Verdict {
        let StepCounts { sites, active, failing } = counts;
        // Seven of a hundred are a little more than seven hundredths of them, as a computer counts.
        let may_fail = (f64::from(sites) * self.may_fail - 1e-6).ceil();
        if f64::from(failing) > may_fail || (sites > 0 && failing == sites) {
            Verdict::Stop
        } else if active + failing < sites {
            Verdict::Wait
        } else {
            Verdict::GoOn
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGING: Staging = Staging { batch: 2_000, may_fail: 0.05 };

    #[test]
    fn steps_grow_up_to_the_batch() {
        assert_eq!([0, 1, 2, 3, 4, 100].map(|step| STAGING.size(step)), [10, 100, 1_000, 2_000, 2_000, 2_000]);
        assert_eq!(Staging { batch: 3, ..STAGING }.size(0), 3);
    }

    #[test]
    fn a_step_ends_when_each_site_has_a_certificate_or_a_failure_and_stops_when_too_many_fail() {
        let verdict = |sites, active, failing| STAGING.verdict(StepCounts { sites, active, failing });
        assert_eq!(verdict(100, 94, 5), Verdict::Wait);
        assert_eq!(verdict(100, 95, 5), Verdict::GoOn);
        assert_eq!(verdict(100, 0, 6), Verdict::Stop, "it does not wait for the others");
        assert_eq!(verdict(10, 9, 1), Verdict::GoOn);
        assert_eq!(verdict(10, 8, 2), Verdict::Stop);
        assert_eq!(verdict(1, 0, 1), Verdict::Stop);
    }

    #[test]
    fn seven_percent_of_a_hundred_are_seven() {
        let seven = Staging { may_fail: 0.07, ..STAGING };
        assert_eq!(seven.verdict(StepCounts { sites: 100, active: 93, failing: 7 }), Verdict::GoOn);
        assert_eq!(seven.verdict(StepCounts { sites: 100, active: 92, failing: 8 }), Verdict::Stop);
    }

    #[test]
    fn a_site_counts_once_wherever_it_goes() {
        let mut counts = StepCounts { sites: 1, ..StepCounts::default() };
        let course = [Progress::Open, Progress::Failing, Progress::Open, Progress::Failing, Progress::Active];
        for (from, to) in course.into_iter().zip(course.into_iter().skip(1)) {
            counts.moved(from, to);
            assert_eq!(counts.active + counts.failing, u32::from(to != Progress::Open));
        }
        assert_eq!(counts.active, 1);
    }
}
