//! Staged onboarding of new sites: a few first, then more and more, and no further step after bad signs.
//!
//! certman holds all state: the same onboarding can be run again, and goes on with the sites that have no certificate.

mod import;
mod list;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use certseal_client::{CertmanClient, ClientError};
use certseal_issuance::{Lane, Progress, Staging, StepCounts, Verdict};
use certseal_wire::{BudgetReport, DnsName, SiteRequest, SiteStatus, causes};
use jiff::Timestamp;
use serde::Serialize;
use tokio::task::JoinSet;

pub use self::{
    import::{Imported, import},
    list::{NewSite, SiteDefaults, read},
};
use crate::error::{Error, OnboardingError};

/// What became of an onboarding.
#[derive(Debug, Default, Serialize)]
pub struct Onboarded {
    /// The steps that were begun.
    pub steps: Vec<StepOutcome>,
    /// Sites that were not given to certman.
    pub left: usize,
    /// The sites that fail, and why.
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

/// Gives sites to certman in steps. `patience` is how long a step may go on without another certificate, while some site does
/// not wait for room in the CA's budget. A site that is there already with the same settings is not changed.
///
/// # Errors
/// When a task was stopped. What certman was given stays with it.
pub async fn onboard(
    certman: &CertmanClient,
    sites: Vec<NewSite>,
    staging: Staging,
    patience: Duration,
    progress: &dyn certseal_client::Progress,
) -> Result<Onboarded, Error> {
    let mut outcome = Onboarded { left: sites.len(), ..Onboarded::default() };
    let mut sites = sites.into_iter();
    progress.begin("onboarding", outcome.left as u64);
    for number in 0.. {
        let step: Vec<NewSite> = sites.by_ref().take(staging.size(number) as usize).collect();
        if step.is_empty() {
            break;
        }
        outcome.left -= step.len();
        let (mut step, began) = (Step::new(step), Instant::now());
        outcome.stopped = step.run(certman, staging, patience, progress).await?;
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
    sites: BTreeMap<DnsName, Known>,
    failing: BTreeMap<DnsName, String>,
    counts: StepCounts,
    /// Why the last call came to nothing.
    trouble: Option<String>,
}

/// A site of the step.
struct Known {
    request: SiteRequest,
    /// certman has it, as far as is known.
    is_given: bool,
    progress: Progress,
    /// It waits for room in the CA's budget.
    waits_for_room: bool,
}

/// What certman says of a site.
enum Said {
    Status(Box<SiteStatus>),
    /// The site is there, and with other settings.
    Differs,
    /// Somebody removed it.
    Removed,
}

impl Step {
    fn new(sites: Vec<NewSite>) -> Self {
        let counts = StepCounts { sites: sites.len() as u32, ..StepCounts::default() };
        let known = |request| Known { request, is_given: false, progress: Progress::Open, waits_for_room: false };
        let sites = sites.into_iter().map(|NewSite { site, request }| (site, known(request))).collect();
        Self { sites, failing: BTreeMap::new(), counts, trouble: None }
    }

    /// Looks at the step's sites until it is over. The bad sign, if it ends with one.
    async fn run(
        &mut self,
        certman: &CertmanClient,
        staging: Staging,
        patience: Duration,
        progress: &dyn certseal_client::Progress,
    ) -> Result<Option<String>, Error> {
        let (mut told, mut quiet_since) = (0, Instant::now());
        loop {
            match certman.budget().await {
                Ok(budget) => {
                    if let Some(lane) = urgent_lane_that_waits(&budget, Timestamp::now()) {
                        return Ok(Some(format!(
                            "work of the lane `{lane}` waits for room in the CA's budget: `certctl budget` shows it"
                        )));
                    }
                }
                Err(error) => self.trouble = Some(causes(&error)),
            }
            self.look(certman).await?;
            let StepCounts { sites, active, failing } = self.counts;
            if active > told {
                progress.advance(u64::from(active - told));
                (told, quiet_since) = (active, Instant::now());
            }
            match staging.verdict(self.counts) {
                Verdict::GoOn => return Ok(None),
                Verdict::Stop => return Ok(Some(format!("{failing} of {sites} sites of the step fail"))),
                Verdict::Wait => {}
            }
            let mut open = self.sites.values().filter(|site| site.progress == Progress::Open);
            if open.all(|site| site.waits_for_room) {
                quiet_since = Instant::now();
            }
            if quiet_since.elapsed() >= patience {
                let seconds = patience.as_secs();
                let trouble = self.trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
                return Ok(Some(format!("no site got a certificate for {seconds} s{trouble}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks certman about each site that has no certificate, and gives it those that it does not have.
    async fn look(&mut self, certman: &CertmanClient) -> Result<(), Error> {
        let mut calls: JoinSet<(DnsName, Result<Said, ClientError>)> = JoinSet::new();
        let open = self.sites.iter().filter(|(_, known)| known.progress != Progress::Active);
        let open = open.map(|(site, known)| (site.clone(), known.request.clone(), known.is_given)).collect::<Vec<_>>();
        let mut open = open.into_iter();
        self.trouble = None;
        loop {
            while calls.len() < CALLS
                && let Some((site, request, is_given)) = open.next()
            {
                let certman = certman.clone();
                calls.spawn(async move {
                    let said = asked(&certman, &site, &request, is_given).await;
                    (site, said)
                });
            }
            let Some(done) = calls.join_next().await else { return Ok(()) };
            let (site, said) = done.map_err(OnboardingError::Stopped)?;
            self.note(site, said);
        }
    }

    fn note(&mut self, site: DnsName, said: Result<Said, ClientError>) {
        let Some(known) = self.sites.get_mut(&site) else { return };
        let before = known.progress;
        let failing = match said {
            Ok(Said::Status(status)) => {
                known.is_given = true;
                known.progress = Progress::of(&status);
                let waits = |order: &certseal_wire::OrderSummary| {
                    order.failures == 0 && order.retry_at.is_some_and(|at| at > Timestamp::now())
                };
                known.waits_for_room = status.order.as_ref().is_some_and(waits);
                let diagnosis = status.order.and_then(|order| order.diagnosis);
                diagnosis.unwrap_or_else(|| "certman gives no diagnosis".to_owned())
            }
            Ok(Said::Differs) => {
                known.progress = Progress::Failing;
                format!(
                    "it is there with other settings: `certctl site status {site}` shows them, `certctl site add` changes them"
                )
            }
            Ok(Said::Removed) => {
                known.progress = Progress::Failing;
                "somebody removed it since the step began".to_owned()
            }
            Err(error) if error.may_pass() => {
                self.trouble = Some(causes(&error));
                return;
            }
            Err(error) => {
                known.progress = Progress::Failing;
                causes(&error)
            }
        };
        self.counts.moved(before, known.progress);
        if known.progress == Progress::Failing {
            self.failing.insert(site, failing);
        } else {
            self.failing.remove(&site);
        }
    }
}

/// Asks about a site, and gives it to certman if it was not: one that failed before is tried again then.
async fn asked(
    certman: &CertmanClient,
    site: &DnsName,
    request: &SiteRequest,
    is_given: bool,
) -> Result<Said, ClientError> {
    let status = match certman.site(site).await? {
        None if is_given => return Ok(Said::Removed),
        None => certman.put_site(site, request).await?,
        Some(status) if !has(&status, request) => return Ok(Said::Differs),
        Some(status) if !is_given && Progress::of(&status) == Progress::Failing => certman.retry_order(site).await?,
        Some(status) => status,
    };
    Ok(Said::Status(Box::new(status)))
}

/// Whether a site has the settings of a request.
fn has(status: &SiteStatus, request: &SiteRequest) -> bool {
    let SiteRequest { names, upstream, pools, owner, profile, key_type, challenges } = request;
    let is_asked_alike = (&status.profile, &status.key_type, &status.challenges) == (profile, key_type, challenges);
    is_asked_alike && (&status.names, &status.upstream, &status.pools, &status.owner) == (names, upstream, pools, owner)
}

/// A lane that goes before new sites and waits for room all the same.
fn urgent_lane_that_waits(budget: &BudgetReport, now: Timestamp) -> Option<&'static str> {
    let waits = |lane: &Lane| {
        let lane = budget.lanes.iter().find(|report| report.lane == lane.as_str());
        lane.and_then(|lane| lane.waits_until).is_some_and(|until| until > now)
    };
    [Lane::Incident, Lane::Expiring].iter().find(|lane| waits(lane)).map(|lane| lane.as_str())
}

/// Calls under way at one time.
const CALLS: usize = 16;

/// The pause between looks at a step.
const POLL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use certseal_wire::LaneReport;

    use super::*;

    #[test]
    fn new_sites_stop_while_urgent_work_waits() {
        let now = Timestamp::UNIX_EPOCH;
        let report = |lane: Lane, seconds: i64| {
            let waits_until = Some(Timestamp::from_second(seconds).expect("an instant"));
            let lanes = vec![LaneReport { lane: lane.as_str().to_owned(), waits_until }];
            BudgetReport { authority: String::new(), limits: Vec::new(), lanes, authorities: Vec::new() }
        };
        assert_eq!(urgent_lane_that_waits(&report(Lane::Expiring, 5), now), Some("expiring"));
        assert_eq!(urgent_lane_that_waits(&report(Lane::Expiring, -5), now), None);
        assert_eq!(urgent_lane_that_waits(&report(Lane::NewSite, 5), now), None);
    }
}
