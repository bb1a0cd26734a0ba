//! Many changes of sites in one call.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::HeaderMap,
};
use certseal_issuance::Site;
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{
    Caller, ChangeKind, ChangeResult, ChangesReport, DnsName, Misfit, Problem, ProblemKind, SiteChange, SiteChanges,
    Wanted,
};
use jiff::Timestamp;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use crate::{
    api::request::{Allowed, Pools, checked, leaves_with, malformed, no_such_site, not_done},
    journal::{
        Journal,
        claims::{Done, NotDone},
    },
    repeats::{Before, Repeatable},
    worker::Worker,
};

pub(crate) fn operations() -> OpenApiRouter<Arc<Worker>> {
    OpenApiRouter::new().routes(routes!(change_sites).layer(DefaultBodyLimit::max(MAX_CHANGES)))
}

/// With a header Idempotency-Key, the same call again within a day has the same answer, and changes nothing.
#[utoipa::path(
    post, path = "/v1/sites", tag = "sites",
    summary = "Adds, changes and removes up to 10,000 sites, each by itself. Roles platform, admin.",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "The same call again with the same key within a day has the same answer, and changes nothing.",
        min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body = SiteChanges,
    responses((status = 200, body = ChangesReport), ProblemDocument),
)]
async fn change_sites(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ChangesReport>, Refusal> {
    let body = body.map_err(|e| malformed(e.body_text()))?;
    let repeatable = key(&headers)?.map(|key| Repeatable::new(&caller, key, &body));
    let pools = Pools::of(&worker).await;
    let (own, journal) = (worker.clone(), worker.journal.clone());
    let changed = tokio::task::spawn_blocking(move || {
        let SiteChanges { changes } =
            serde_json::from_slice(&body).map_err(|error| malformed(format!("expected changes of sites: {error}")))?;
        drop(body);
        let count = changes.len();
        if !(1..=SiteChanges::MAX).contains(&count) {
            return Err(malformed(format!("expected 1 to {} changes, these are {count}", SiteChanges::MAX)));
        }
        let changes: Vec<Change> = changes.into_iter().map(|change| Change::checked(change.0, &own, &pools)).collect();
        let storage = journal.storage();
        if let Some(repeatable) = &repeatable {
            match repeatable.begin(&*storage, Timestamp::now()).map_err(Refusal::internal)? {
                Before::Nothing => {}
                Before::UnderWay => {
                    let detail =
                        "the same call with this Idempotency-Key is being made: make it again when that one is done";
                    let mut refusal = Refusal::new(ProblemKind::Conflict, detail);
                    refusal.0.retry_after = Some(UNDER_WAY_SECONDS);
                    return Err(refusal);
                }
                Before::Answer(report) => return Ok(with_sites(report, &changes)),
                Before::Another => {
                    let detail = "this Idempotency-Key came with other changes before: give each call one of its own";
                    return Err(Refusal::new(ProblemKind::Conflict, detail));
                }
            }
        }
        let report = made(&journal, &changes);
        if let Some(repeatable) = &repeatable {
            let ended = match &report {
                Ok(report) => repeatable.keep(&*storage, report.clone(), Timestamp::now()),
                Err(_) => repeatable.give_up(&*storage),
            };
            ended.map_err(Refusal::internal)?;
        }
        report
    });
    let changed = changed.await.map_err(Refusal::internal)?;
    worker.wake.notify_one();
    changed.map(Json)
}

/// A change that can be made, or why it cannot.
struct Change {
    site: Option<DnsName>,
    wanted: Result<Wanted, Problem>,
}

impl Change {
    fn checked(change: Result<SiteChange, Misfit>, worker: &Worker, pools: &Pools) -> Self {
        match change {
            Ok(SiteChange { site, change }) => {
                let wanted = match change {
                    Wanted::Put(request) => checked(worker, &site, request, pools).map(Wanted::Put),
                    Wanted::Remove => match site.companion_of() {
                        Some(own) => Err(malformed(leaves_with(&site, &own))),
                        None => Ok(Wanted::Remove),
                    },
                };
                Self { site: Some(site), wanted: wanted.map_err(|refusal| refusal.0) }
            }
            Err(Misfit { site, why }) => Self { site, wanted: Err(malformed(why).0) },
        }
    }
}

/// Makes the changes, each by itself.
fn made(journal: &Journal, changes: &[Change]) -> Result<ChangesReport, Refusal> {
    let possible: Vec<(usize, &DnsName, &Wanted)> = changes
        .iter()
        .enumerate()
        .filter_map(|(index, change)| Some((index, change.site.as_ref()?, change.wanted.as_ref().ok()?)))
        .collect();
    let sites: Vec<DnsName> = possible.iter().map(|(_, site, _)| (*site).clone()).collect();
    let outcomes = journal.change_each(&sites, |index, before| match possible[index].2 {
        Wanted::Put(request) => Ok(match before {
            Some(site) => site.clone().changed(request.clone()),
            None => Site::new(sites[index].clone(), request.clone()),
        }),
        Wanted::Remove => match before {
            Some(site) if !site.departed => Ok(site.clone().departed()),
            _ => Err(Refusal::new(ProblemKind::NotFound, no_such_site(&sites[index]))),
        },
    });
    let outcomes = outcomes.map_err(Refusal::internal)?;

    let refused = |problem| ChangeResult { site: None, result: ChangeKind::Refused, problem };
    let mut results: Vec<ChangeResult> =
        changes.iter().map(|change| refused(change.wanted.as_ref().err().cloned())).collect();
    for ((index, site, wanted), outcome) in possible.iter().zip(outcomes) {
        let result = match (outcome, wanted) {
            (Ok(Done::Created), _) => Ok(ChangeKind::Created),
            (Ok(_), Wanted::Remove) => Ok(ChangeKind::Removed),
            (Ok(Done::Changed), _) => Ok(ChangeKind::Changed),
            (Ok(Done::Nothing), _) => Ok(ChangeKind::Unchanged),
            (Err(NotDone::Unwanted(_)), _) => Ok(ChangeKind::Absent),
            (Err(why), _) => Err(not_done(site, why).0),
        };
        results[*index] = match result {
            Ok(result) => ChangeResult { site: None, result, problem: None },
            Err(problem) => refused(Some(problem)),
        };
    }
    let mut room = MOST_PROBLEMS;
    for problem in results.iter_mut().map(|result| &mut result.problem).filter(|problem| problem.is_some()) {
        match problem {
            Some(problem) if room > 0 => problem.detail = problem.detail.chars().take(MOST_DETAIL).collect(),
            _ => *problem = None,
        }
        room = room.saturating_sub(1);
    }
    Ok(with_sites(ChangesReport { results }, changes))
}

fn with_sites(mut report: ChangesReport, changes: &[Change]) -> ChangesReport {
    for (result, change) in report.results.iter_mut().zip(changes) {
        result.site.clone_from(&change.site);
    }
    report
}

fn key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|octet| octet.is_ascii_graphic()));
    key.map(Some)
        .ok_or_else(|| malformed(format!("expected an Idempotency-Key of 1 to {MAX_KEY} visible characters of ASCII")))
}

/// Octets of the largest call: each of 10,000 changes may have 800.
pub(crate) const MAX_CHANGES: usize = 8 * 1024 * 1024;
const MAX_KEY: usize = 255;
/// When a call that is being made is asked for again: the largest takes some seconds.
const UNDER_WAY_SECONDS: u64 = 5;
/// Refusals of one call that say why.
const MOST_PROBLEMS: usize = 1000;
/// Characters of their reasons.
const MOST_DETAIL: usize = 500;
