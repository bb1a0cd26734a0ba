//! Staged onboarding of new sites: a few first, then more and more, and no further step after bad signs.
//!
//! certman holds all state: the same onboarding can be run again, and goes on with the sites that have no certificate.

mod list;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use certseal_client::{CertmanClient, ClientError, Progress};
use certseal_issuance::{Staging, StepCounts, Verdict};
use certseal_wire::{DnsName, SiteState, SiteStatus, causes};
use serde::Serialize;
use tokio::task::JoinSet;

pub use self::list::{NewSite, SiteDefaults, read};
use crate::error::{Error, OnboardingError};

/// What became of an onboarding.
#[derive(Debug, Default, Serialize)]
pub struct Onboarded {
    /// The steps that were begun.
    pub steps: Vec<StepOutcome>,
    /// Sites that were not given to certman.
    pub left: usize,
    /// The sites whose last attempt failed, and why.
    pub failing: BTreeMap<DnsName, String>,
    /// The bad sign after which no further step was begun.
    pub stopped: Option<String>,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StepOutcome {
    /// Counts at its end.
    #[serde(flatten)]
    pub counts: StepCounts,
    /// How long it took.
    pub seconds: f64,
}

/// Gives sites to certman in steps. `patience` is how long a step may go on without another certificate.
///
/// # Errors
/// When certman cannot be reached. What it was given stays with it.
pub async fn onboard(
    certman: &CertmanClient,
    sites: Vec<NewSite>,
    staging: Staging,
    patience: Duration,
    progress: &dyn Progress,
) -> Result<Onboarded, Error> {
    let mut outcome = Onboarded { left: sites.len(), ..Onboarded::default() };
    let expiring_before = certman.expiring().await?.sites.len();
    let mut sites = sites.into_iter();
    progress.begin("onboarding", outcome.left as u64);
    for number in 0.. {
        let step: Vec<NewSite> = sites.by_ref().take(staging.size(number) as usize).collect();
        if step.is_empty() {
            break;
        }
        outcome.left -= step.len();
        let mut step = Step::begin(certman, step).await?;
        let began = Instant::now();
        outcome.stopped = step.watch(certman, staging, patience, expiring_before, progress).await?;
        outcome.steps.push(StepOutcome { counts: step.counts, seconds: began.elapsed().as_secs_f64() });
        outcome.failing.append(&mut step.failing);
        if outcome.stopped.is_some() {
            break;
        }
    }
    Ok(outcome)
}

/// The step that is under way.
struct Step {
    states: BTreeMap<DnsName, SiteState>,
    failing: BTreeMap<DnsName, String>,
    counts: StepCounts,
}

impl Step {
    /// Gives the sites of a step to certman. One that it refuses has failed; one that failed before is tried again now.
    async fn begin(certman: &CertmanClient, sites: Vec<NewSite>) -> Result<Self, Error> {
        let counts = StepCounts { sites: sites.len() as u32, ..StepCounts::default() };
        let states = sites.iter().map(|new| (new.site.clone(), SiteState::Pending)).collect();
        let mut step = Self { states, failing: BTreeMap::new(), counts };
        let put = |new: NewSite| {
            let certman = certman.clone();
            async move {
                let answer = match certman.put_site(&new.site, &new.request).await {
                    Ok(status) if matches!(status.state, SiteState::Waiting | SiteState::Failed) => {
                        certman.retry_order(&new.site).await
                    }
                    answer => answer,
                };
                (new.site, answer.map(Some))
            }
        };
        step.ask_about(sites, put).await?;
        Ok(step)
    }

    /// Waits until the step is over. The bad sign, if it ends with one.
    async fn watch(
        &mut self,
        certman: &CertmanClient,
        staging: Staging,
        patience: Duration,
        expiring_before: usize,
        progress: &dyn Progress,
    ) -> Result<Option<String>, Error> {
        let (mut told, mut last_success) = (0, Instant::now());
        loop {
            if self.counts.active > told {
                progress.advance(u64::from(self.counts.active - told));
                (told, last_success) = (self.counts.active, Instant::now());
            }
            let StepCounts { sites, failing, .. } = self.counts;
            match staging.verdict(self.counts) {
                Verdict::GoOn => return Ok(None),
                Verdict::Stop => return Ok(Some(format!("{failing} of {sites} sites of the step fail"))),
                Verdict::Wait => {}
            }
            let expiring = certman.expiring().await?.sites.len();
            if expiring > expiring_before {
                return Ok(Some(format!(
                    "{expiring} certificates are near their end, and {expiring_before} were at the beginning: renewals may \
                     wait for new sites"
                )));
            }
            if last_success.elapsed() >= patience {
                let seconds = patience.as_secs();
                return Ok(Some(format!(
                    "no site got a certificate for {seconds} s; `certctl budget` shows what waits"
                )));
            }
            tokio::time::sleep(POLL).await;
            let open = self.states.iter().filter(|(_, state)| **state != SiteState::Active);
            let open: Vec<DnsName> = open.map(|(site, _)| site.clone()).collect();
            let get = |site: DnsName| {
                let certman = certman.clone();
                async move {
                    let answer = certman.site(&site).await;
                    (site, answer)
                }
            };
            self.ask_about(open, get).await?;
        }
    }

    /// Makes a call for each, some at one time, and notes what it says of the site.
    async fn ask_about<T, F>(&mut self, each: Vec<T>, call: impl Fn(T) -> F) -> Result<(), Error>
    where
        F: Future<Output = (DnsName, Result<Option<SiteStatus>, ClientError>)> + Send + 'static,
    {
        let mut calls = JoinSet::new();
        let mut each = each.into_iter();
        loop {
            while calls.len() < CALLS
                && let Some(next) = each.next()
            {
                calls.spawn(call(next));
            }
            let Some(done) = calls.join_next().await else { return Ok(()) };
            let (site, answer) = done.map_err(OnboardingError::Stopped)?;
            match answer {
                Ok(Some(status)) => self.noted(site, status.state, || reason(&status)),
                Ok(None) => self.noted(site, SiteState::Failed, || "certman has it no more".to_owned()),
                Err(error) if error.may_pass() => return Err(error.into()),
                Err(error) => self.noted(site, SiteState::Failed, || causes(&error)),
            }
        }
    }

    fn noted(&mut self, site: DnsName, state: SiteState, reason: impl Fn() -> String) {
        let before = self.states.insert(site.clone(), state).unwrap_or(SiteState::Pending);
        self.counts.moved(before, state);
        match state {
            SiteState::Waiting | SiteState::Failed => drop(self.failing.insert(site, reason())),
            SiteState::Pending | SiteState::Active => drop(self.failing.remove(&site)),
        }
    }
}

fn reason(status: &SiteStatus) -> String {
    let diagnosis = status.order.as_ref().and_then(|order| order.diagnosis.clone());
    diagnosis.unwrap_or_else(|| "certman gives no diagnosis".to_owned())
}

/// Calls under way at one time.
const CALLS: usize = 16;

/// The pause between looks at a step.
const POLL: Duration = Duration::from_secs(1);
