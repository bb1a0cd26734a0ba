//! From keys as a platform sealed them to keys of our own, while both are served.
//!
//! ```text
//! by renewal   certman orders new certificates, with new keys, earlier than it would: spread over days
//! by rewrap    the same keys sealed anew, where they can be opened; certificates stay
//! ```
//!
//! A plan is made and looked at before anything happens. What is done is not in a list of its own: a site is left as
//! long as certstore has its key in an old format, so that everything can be run again.

mod pace;
mod reseal;

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use certseal_client::{CertmanClient, ClientError, Progress, StoreClient};
use certseal_seal::{LegacySuite, Sealed};
use certseal_wire::{DnsName, Inventory, Renewal, SealedQuery, SiteStatus};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

pub use pace::{Appointment, Candidate, TooFast, spread};
pub use reseal::{Resealed, reseal};

use crate::rotation::SealedPages;

/// What is to be done, site by site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase", tag = "by")]
pub enum Plan {
    /// Renewals at these times.
    Renewal {
        /// When it was made.
        made_at: Timestamp,
        /// No more than so many orders within any three hours.
        orders_per_3h: u32,
        /// The first one first.
        sites: Vec<Appointment>,
        /// Sites whose renewal is under way already, or that certman does not know.
        passed_over: Vec<DnsName>,
    },
    /// Keys that are sealed anew.
    Rewrap {
        /// When it was made.
        made_at: Timestamp,
        /// Those that expire first come first.
        sites: Vec<DnsName>,
    },
}

/// Sites whose keys are sealed as before, with what certman says of them.
#[derive(Debug, Clone, Default)]
pub struct Left {
    /// Those that are at rest.
    pub candidates: Vec<Candidate>,
    /// Those with an order under way, and those that certman does not know.
    pub busy: Vec<DnsName>,
    /// All of them by suite.
    pub suites: BTreeMap<&'static str, u64>,
}

/// Looks which sites are left.
///
/// # Errors
/// When certstore or certman cannot be reached.
pub async fn left(store: &StoreClient, certman: &CertmanClient) -> anyhow::Result<Left> {
    let mut statuses: HashMap<DnsName, SiteStatus> = HashMap::new();
    let mut after = None;
    loop {
        let page = certman.sites(after.as_ref()).await?;
        statuses.extend(page.sites.into_iter().map(|status| (status.site.clone(), status)));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let mut left = Left::default();
    let mut pages = SealedPages::new(store, SealedQuery { legacy: true, ..SealedQuery::default() });
    while let Some(page) = pages.next().await? {
        for entry in page {
            let sealed = Sealed::parse(&entry.sealed.0).with_context(|| format!("the key of {}", entry.site))?;
            *left.suites.entry(sealed.suite_name()).or_default() += 1;
            match statuses.remove(&entry.site) {
                Some(SiteStatus { order: None, renew_at: Some(renew_at), not_after: Some(not_after), .. }) => {
                    let (site, version) = (entry.site, entry.version);
                    left.candidates.push(Candidate { site, version, renew_at, not_after });
                }
                _ => left.busy.push(entry.site),
            }
        }
    }
    left.candidates.sort_by(|a, b| (a.not_after, &a.site).cmp(&(b.not_after, &b.site)));
    Ok(left)
}

/// What became of the sites of a plan by renewal.
#[derive(Debug, Default, Serialize)]
pub struct Appointed {
    /// Sites that certman renews at the planned time, or before.
    pub planned: u64,
    /// Sites that have another certificate since the plan was made, or an order for one.
    pub passed_over: u64,
    /// Sites that certman does not have renewed, and why.
    pub failed: Vec<(DnsName, String)>,
}

/// Tells certman the times of a plan. It can be run again.
///
/// # Errors
/// When certman cannot be reached, or the plan is from so long ago that its first sites would all be renewed at once.
pub async fn appoint(
    certman: &CertmanClient,
    sites: &[Appointment],
    now: Timestamp,
    progress: &dyn Progress,
) -> anyhow::Result<Appointed> {
    progress.begin("planning renewals", sites.len() as u64);
    let mut outcome = Appointed::default();
    let mut calls: JoinSet<(DnsName, Result<Done, ClientError>)> = JoinSet::new();
    let mut late = 0;
    let mut waiting = sites.iter();
    loop {
        if calls.len() < CALLS
            && let Some(appointment) = waiting.next()
        {
            let (certman, appointment) = (certman.clone(), appointment.clone());
            calls.spawn(async move {
                let done = appoint_one(&certman, &appointment, now).await;
                (appointment.site, done)
            });
            continue;
        }
        let Some(done) = calls.join_next().await else { break };
        progress.advance(1);
        match done.context("a call was stopped")? {
            (_, Ok(Done::Planned)) => outcome.planned += 1,
            (_, Ok(Done::PassedOver)) => outcome.passed_over += 1,
            (_, Ok(Done::Late)) => late += 1,
            (_, Err(error)) if crate::failure::may_pass(&error) => return Err(error.into()),
            (site, Err(error)) => outcome.failed.push((site, error.to_string())),
        }
    }
    ensure!(
        late == 0,
        "the time of {late} sites has passed, and certman was not told of it: they would all be renewed at once, so make \
         another plan"
    );
    Ok(outcome)
}

enum Done {
    Planned,
    PassedOver,
    Late,
}

async fn appoint_one(certman: &CertmanClient, one: &Appointment, now: Timestamp) -> Result<Done, ClientError> {
    let Some(status) = certman.site(&one.site).await? else { return Ok(Done::PassedOver) };
    if status.version > one.version || status.order.is_some() {
        return Ok(Done::PassedOver);
    }
    if status.renew_at.is_some_and(|renew_at| renew_at <= one.at) {
        return Ok(Done::Planned);
    }
    if now.duration_since(one.at) > LATE {
        return Ok(Done::Late);
    }
    certman.renew(&one.site, &Renewal { at: Some(one.at) }).await?;
    Ok(Done::Planned)
}

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
    /// What follows from two looks at the store, `seconds` apart, and from what certman has planned.
    pub fn new(before: &Inventory, after: &Inventory, seconds: f64, left: &Left, now: Timestamp) -> Self {
        let (was, is) = (legacy_count(before), legacy_count(after));
        let per_hour = (seconds > 0.0).then(|| was.saturating_sub(is) as f64 / seconds * 3600.0);
        let at_pace = per_hour
            .filter(|pace| *pace > 0.0)
            .and_then(|pace| now.checked_add(SignedDuration::try_from_secs_f64(is as f64 / pace * 3600.0).ok()?).ok());
        let planned = left.candidates.iter().map(|candidate| candidate.renew_at).max();
        let soon = |candidate: &&Candidate| candidate.renew_at.duration_since(now) <= SignedDuration::from_hours(24);
        Self {
            suites: after.suites.clone(),
            left: is,
            under_way: left.busy.len() as u64,
            per_hour,
            next_24h: left.candidates.iter().filter(soon).count() as u64,
            ends_at: if is == 0 { None } else { [at_pace, planned].into_iter().flatten().min() },
        }
    }
}

/// Keys in old formats.
pub fn legacy_count(inventory: &Inventory) -> u64 {
    LegacySuite::ALL.iter().filter_map(|suite| inventory.suites.get(suite.name())).sum()
}

impl Plan {
    /// Reads a plan's file.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(path: &std::path::Path) -> anyhow::Result<Self> {
        let text = certseal_service::config::read(path)?;
        serde_json::from_str(&text).with_context(|| format!("{}: expected a plan of `migrate plan`", path.display()))
    }

    /// How many renewals begin on each day (UTC), the first day first.
    pub fn days(&self) -> BTreeMap<String, u64> {
        let mut days = BTreeMap::new();
        if let Self::Renewal { sites, .. } = self {
            for one in sites {
                *days.entry(one.at.to_string().chars().take(10).collect()).or_default() += 1;
            }
        }
        days
    }

    /// How many sites it is for.
    pub fn len(&self) -> usize {
        match self {
            Self::Renewal { sites, .. } => sites.len(),
            Self::Rewrap { sites, .. } => sites.len(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// After its time, a renewal is still begun at once.
const LATE: SignedDuration = SignedDuration::from_hours(1);

/// Calls under way at one time.
const CALLS: usize = 16;

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
        let left = Left { candidates: vec![candidate], ..Left::default() };
        let resting = Status::new(&inventory(100), &inventory(100), 10.0, &left, now);
        assert_eq!((resting.left, resting.per_hour, resting.ends_at), (100, Some(0.0), Some(at(30))));
        let moving = Status::new(&inventory(110), &inventory(100), 3600.0, &left, now);
        assert_eq!((moving.per_hour, moving.ends_at), (Some(10.0), Some(at(10))));
        assert_eq!(Status::new(&inventory(1), &inventory(0), 10.0, &Left::default(), now).ends_at, None);
    }
}
