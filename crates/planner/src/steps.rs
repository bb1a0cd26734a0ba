//! The steps in which the sites of a fleet are added, judged as `certctl site onboard` judges them.

use std::ops::Range;

use certseal_issuance::{Site, Staging, StepCounts, Verdict, site_state};
use certseal_wire::SiteState;

/// The step that is under way.
pub(crate) struct Steps {
    staging: Staging,
    /// All sites.
    count: u32,
    /// The number of the next step.
    next: u32,
    sites: Range<u32>,
    /// The states of its sites.
    states: Vec<SiteState>,
    counts: StepCounts,
}

impl Steps {
    pub(crate) fn new(staging: Staging, count: u32) -> Self {
        Self { staging, count, next: 0, sites: 0..0, states: Vec::new(), counts: StepCounts::default() }
    }

    /// Begins the next step: its sites. None when all were added.
    pub(crate) fn begin(&mut self) -> Range<u32> {
        let begin = self.sites.end;
        self.sites = begin..begin.saturating_add(self.staging.size(self.next)).min(self.count);
        self.next += 1;
        self.states = vec![SiteState::Pending; self.sites.len()];
        self.counts = StepCounts { sites: self.sites.len() as u32, ..StepCounts::default() };
        self.sites.clone()
    }

    pub(crate) fn counts(&self) -> StepCounts {
        self.counts
    }

    /// A site after something was done for it. The verdict if that ends the step.
    pub(crate) fn seen(&mut self, number: u32, site: &Site) -> Option<Verdict> {
        if !self.sites.contains(&number) {
            return None;
        }
        let state = site_state(site);
        let before = std::mem::replace(&mut self.states[(number - self.sites.start) as usize], state);
        self.counts.moved(before, state);
        let verdict = self.staging.verdict(self.counts);
        if verdict == Verdict::Wait {
            return None;
        }
        // Whatever becomes of its sites later, the step is over.
        self.sites = self.sites.end..self.sites.end;
        Some(verdict)
    }
}
