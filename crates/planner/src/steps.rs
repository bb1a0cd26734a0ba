//! The steps in which the sites of a fleet are added, judged as `certctl site onboard` judges them.

use std::ops::Range;

use certseal_issuance::{Progress, Site, Staging, StepCounts, Verdict, site_status};
use jiff::Timestamp;

/// The step that is under way.
pub(crate) struct Steps {
    staging: Staging,
    /// All sites.
    count: u32,
    /// The number of the next step.
    next: u32,
    sites: Range<u32>,
    /// How far its sites have come.
    progress: Vec<Progress>,
    counts: StepCounts,
}

impl Steps {
    pub(crate) fn new(staging: Staging, count: u32) -> Self {
        Self { staging, count, next: 0, sites: 0..0, progress: Vec::new(), counts: StepCounts::default() }
    }

    /// Begins the next step: its sites. None when all were added.
    pub(crate) fn begin(&mut self) -> Range<u32> {
        let begin = self.sites.end;
        if begin == self.count {
            return begin..begin;
        }
        self.sites = begin..begin.saturating_add(self.staging.size(self.next)).min(self.count);
        self.next += 1;
        self.progress = vec![Progress::Open; self.sites.len()];
        self.counts = StepCounts { sites: self.sites.len() as u32, ..StepCounts::default() };
        self.sites.clone()
    }

    pub(crate) fn counts(&self) -> StepCounts {
        self.counts
    }

    /// A site after something was done for it. The verdict if that ends the step.
    pub(crate) fn seen(&mut self, number: u32, site: &Site, now: Timestamp) -> Option<Verdict> {
        if !self.sites.contains(&number) {
            return None;
        }
        let progress = Progress::of(&site_status(site, now));
        let before = std::mem::replace(&mut self.progress[(number - self.sites.start) as usize], progress);
        self.counts.moved(before, progress);
        let verdict = self.staging.verdict(self.counts);
        if verdict == Verdict::Wait {
            return None;
        }
        // Whatever becomes of its sites later, the step is over.
        self.sites = self.sites.end..self.sites.end;
        Some(verdict)
    }
}
