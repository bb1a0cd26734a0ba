//! What came of a simulation.

use std::hash::Hasher;

use certseal_issuance::{Lane, StepCounts, Verdict};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    chance::{Mixer, of_site},
    clock::DAY,
    scenario::Scenario,
};

/// Counts of each lane, in the order of [`Lane::ALL`].
pub type LaneCounts = [u64; Lane::ALL.len()];

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: Scenario,
    /// Orders that the CA took.
    pub orders: u64,
    /// Certificates that it issued.
    pub certificates: u64,
    /// Validations that failed.
    pub failed_validations: u64,
    /// Orders that the CA refused for a limit: the books were wrong about it.
    pub refused: u64,
    /// The limit that was refused for first.
    pub refused_for: Option<String>,
    /// How often an order waited for room in the books.
    pub delays: u64,
    /// Certificates that ended before the next one came.
    pub expiries: u64,
    /// The first certificates of sites.
    pub onboarding: Onboarding,
    /// The steps in which sites were added, if they were.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<OnboardingStep>,
    /// Mass revocations.
    pub revoked: Vec<Revoked>,
    /// Each day.
    pub per_day: Vec<Day>,
    /// Orders in each hour, by lane.
    pub orders_per_hour: Vec<LaneCounts>,
    /// The hash of everything that happened, in its order.
    pub trace: String,
}

/// The time from when a site is added to its first certificate, of those that can have one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Onboarding {
    /// Sites with a certificate at the end.
    pub done: u64,
    /// Sites without one that can have one.
    pub missing: u64,
    /// Hours, for half of those that are done.
    pub median_hours: f64,
    /// Hours, for 99 of 100.
    pub hours_99: f64,
    /// Days until the last one was done.
    pub last_day: f64,
}

/// A step of a staged onboarding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OnboardingStep {
    /// The day that it began on.
    pub day: f64,
    /// What became of its sites, up to its end.
    #[serde(flatten)]
    pub counts: StepCounts,
    /// Hours until each site had a certificate or a failure, or too many failed; none if that was not reached.
    pub hours: Option<f64>,
    /// Too many failed, so that no further one followed.
    pub is_stopped: bool,
}

/// A mass revocation, and how it went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Revoked {
    /// The day of the word that it comes.
    pub day: f64,
    /// Certificates that it concerns.
    pub concerned: u64,
    /// Hours until all of them had another one; none if some had not at the end.
    pub safe_after_hours: Option<f64>,
    /// Those that had none when they were revoked.
    pub late: u64,
}

/// The state at the beginning of a day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Day {
    /// Its number.
    pub day: u32,
    /// Sites with a valid certificate.
    pub valid: u64,
    /// Sites whose certificate has ended.
    pub ended: u64,
    /// Sites that wait for a worker, by lane.
    pub backlog: LaneCounts,
    /// New orders that could be placed at once.
    pub new_orders_left: Option<u32>,
    /// The least part of its lifetime that a valid certificate has left.
    pub least_remaining: f64,
}

/// Collects it.
pub(crate) struct Recorder {
    report: Report,
    /// Seconds to the first certificate; the most of a u32 for none yet.
    first: Vec<u32>,
    /// The end of each site's certificate; [`NO_CERTIFICATE`] for none yet.
    ends: Vec<i64>,
    lifetime: i64,
    open: Vec<Open>,
    seed: u64,
    trace: Mixer,
}

struct Open {
    at: i64,
    part: f64,
    remaining: u64,
    deadline: i64,
}

impl Recorder {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let report = Report {
            scenario: scenario.clone(),
            orders: 0,
            certificates: 0,
            failed_validations: 0,
            refused: 0,
            refused_for: None,
            delays: 0,
            expiries: 0,
            onboarding: Onboarding { done: 0, missing: 0, median_hours: 0.0, hours_99: 0.0, last_day: 0.0 },
            steps: Vec::new(),
            revoked: Vec::new(),
            per_day: Vec::new(),
            orders_per_hour: vec![LaneCounts::default(); scenario.days as usize * 24 + 1],
            trace: String::new(),
        };
        let first = vec![u32::MAX; scenario.sites as usize];
        let ends = vec![NO_CERTIFICATE; scenario.sites as usize];
        let lifetime = scenario.lifetime();
        Self { report, first, ends, lifetime, open: Vec::new(), seed: scenario.seed, trace: Mixer::default() }
    }

    /// One event more in the trace.
    pub(crate) fn trace(&mut self, at: Timestamp, site: u32, what: u8) {
        self.trace.write_u64(at.as_millisecond().unsigned_abs());
        self.trace.write_u64(u64::from(site) << 8 | u64::from(what));
    }

    pub(crate) fn step_begun(&mut self, now: i64, sites: u32) {
        let counts = StepCounts { sites, ..StepCounts::default() };
        let day = now as f64 / DAY as f64;
        self.report.steps.push(OnboardingStep { day, counts, hours: None, is_stopped: false });
    }

    /// What became of the sites of the last step so far.
    pub(crate) fn step_counts(&mut self, counts: StepCounts) {
        self.report.steps.last_mut().into_iter().for_each(|step| step.counts = counts);
    }

    pub(crate) fn step_ended(&mut self, now: i64, counts: StepCounts, verdict: Verdict) {
        self.step_counts(counts);
        let Some(step) = self.report.steps.last_mut() else { return };
        step.hours = Some((now as f64 / DAY as f64 - step.day) * 24.0);
        step.is_stopped = verdict == Verdict::Stop;
    }

    pub(crate) fn delayed(&mut self) {
        self.report.delays += 1;
    }

    pub(crate) fn refused(&mut self, limit: &str) {
        self.report.refused += 1;
        self.report.refused_for.get_or_insert_with(|| limit.to_owned());
    }

    pub(crate) fn failed(&mut self) {
        self.report.failed_validations += 1;
    }

    pub(crate) fn ordered(&mut self, now: i64, lane: Lane) {
        if let Some(hour) = self.report.orders_per_hour.get_mut((now / (DAY / 24)) as usize) {
            hour[lane as usize] += 1;
        }
    }

    pub(crate) fn has_certificate(&self, site: u32) -> bool {
        self.ends[site as usize] != NO_CERTIFICATE
    }

    /// A certificate came.
    pub(crate) fn issued(&mut self, now: i64, site: u32) {
        self.report.certificates += 1;
        let before = std::mem::replace(&mut self.ends[site as usize], now + self.lifetime);
        if before == NO_CERTIFICATE {
            self.first[site as usize] = (now / 1000) as u32;
            return;
        }
        self.report.expiries += u64::from(before < now);
        let not_before = before - self.lifetime;
        for (open, revoked) in self.open.iter_mut().zip(&mut self.report.revoked) {
            let is_concerned = not_before < open.at && of_site(self.seed ^ open.at as u64, site) < open.part;
            if !is_concerned || open.remaining == 0 {
                continue;
            }
            open.remaining -= 1;
            revoked.late += u64::from(now > open.deadline);
            if open.remaining == 0 {
                revoked.safe_after_hours = Some((now - open.at) as f64 / (DAY / 24) as f64);
            }
        }
    }

    pub(crate) fn revoked(&mut self, now: i64, part: f64, concerned: u64, hours: f64) {
        let deadline = now + (hours * (DAY / 24) as f64) as i64;
        self.open.push(Open { at: now, part, remaining: concerned, deadline });
        let day = now as f64 / DAY as f64;
        self.report.revoked.push(Revoked { day, concerned, safe_after_hours: None, late: 0 });
    }

    pub(crate) fn day(&mut self, day: u32, now: i64, backlog: LaneCounts, new_orders_left: Option<u32>) {
        let (mut valid, mut ended, mut first_end) = (0, 0, now + self.lifetime);
        for end in &self.ends {
            let is_valid = *end > now;
            valid += u64::from(is_valid);
            ended += u64::from(!is_valid && *end != NO_CERTIFICATE);
            first_end = if is_valid { first_end.min(*end) } else { first_end };
        }
        let least_remaining = (first_end - now) as f64 / self.lifetime as f64;
        self.report.per_day.push(Day { day, valid, ended, backlog, new_orders_left, least_remaining });
    }

    pub(crate) fn into_report(mut self, orders: u64, can_have_one: impl Fn(u32) -> bool) -> Report {
        let scenario = &self.report.scenario;
        // The first site after each step, and the hour at which the step began.
        let mut steps = Vec::new();
        for step in &self.report.steps {
            let end = steps.last().map_or(0, |(end, _)| *end) + step.counts.sites as usize;
            steps.push((end, step.day * 24.0));
        }
        let added =
            |site: usize| match (steps.get(steps.partition_point(|(end, _)| *end <= site)), scenario.sites_per_day) {
                (Some((_, begin)), _) => *begin,
                (None, 0) => 0.0,
                (None, each) => site as f64 / f64::from(each) * 24.0,
            };
        let hours = |(site, first): (usize, &u32)| f64::from(*first) / 3600.0 - added(site);
        let done = self.first.iter().enumerate().filter(|(_, first)| **first != u32::MAX);
        let last = done.clone().map(|(_, first)| *first).max().unwrap_or(0);
        let mut waits: Vec<f64> = done.map(hours).collect();
        waits.sort_by(f64::total_cmp);
        let part =
            |part: f64| waits.get(((waits.len() as f64 * part) as usize).min(waits.len().saturating_sub(1))).copied();
        let missing =
            self.first.iter().enumerate().filter(|(site, first)| **first == u32::MAX && can_have_one(*site as u32));
        self.report.onboarding = Onboarding {
            done: waits.len() as u64,
            missing: missing.count() as u64,
            median_hours: part(0.5).unwrap_or(0.0),
            hours_99: part(0.99).unwrap_or(0.0),
            last_day: f64::from(last) / 86_400.0,
        };
        for (open, revoked) in self.open.iter().zip(&mut self.report.revoked) {
            // Those that never came are late, too.
            revoked.late += open.remaining;
        }
        Report { orders, trace: format!("{:016x}", self.trace.finish()), ..self.report }
    }
}

/// Before every instant.
const NO_CERTIFICATE: i64 = i64::MIN;
