//! The budget at the CA, for operators.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use certseal_issuance::{AuthorityId, budget::LimitName};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{AuthorityReport, BucketReport, BudgetReport, LaneReport, LimitReport};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::request::{Allowed, journaled, malformed},
    worker::Worker,
};

pub(crate) fn operations() -> OpenApiRouter<Arc<Worker>> {
    OpenApiRouter::new().routes(routes!(budget))
}

#[utoipa::path(
    get, path = "/v1/budget", tag = "budget",
    summary = "What the CA allows, and what of it is used. Roles platform, admin.",
    params(("authority" = Option<String>, Query, description = "The CA, by its directory; the preferred one when absent.")),
    responses((status = 200, body = BudgetReport), ProblemDocument),
)]
async fn budget(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    query: Result<Query<CaQuery>, QueryRejection>,
) -> Result<Json<BudgetReport>, Refusal> {
    let Query(CaQuery { authority: asked }) = query.map_err(|e| malformed(e.body_text()))?;
    let all: Vec<AuthorityId> = worker.authorities.ids().cloned().collect();
    let known = |asked: &String| all.iter().find(|known| *known.0 == **asked);
    let authority = match &asked {
        None => worker.policy.authority.clone(),
        Some(asked) => known(asked).cloned().ok_or_else(|| {
            let configured: Vec<String> = all.iter().map(ToString::to_string).collect();
            malformed(format!("expected one of {} as authority", configured.join(", ")))
        })?,
    };
    let away = worker.authorities.away();
    let ledger = worker.ledger.clone();
    let now = Timestamp::now();
    let at = authority.clone();
    let standing = journaled(&worker, move |_| ledger.standing(&at, now, FULLEST)).await?;
    let report = |limit: LimitName| {
        let rule = worker.ledger.limits(&authority).get(limit)?;
        let of_limit = standing.fullest.iter().filter(|(bucket, _)| bucket.limit == limit);
        let buckets = of_limit.map(|(bucket, left)| BucketReport { subject: bucket.subject.to_string(), left: *left });
        Some(LimitReport {
            limit: limit.to_string(),
            burst: rule.burst(),
            interval_seconds: rule.interval().as_secs_f64(),
            buckets: buckets.collect(),
        })
    };
    let limits = LimitName::ALL.into_iter().filter_map(report).collect();
    let lane = |(lane, waits_until): &(certseal_issuance::Lane, Option<Timestamp>)| LaneReport {
        lane: lane.as_str().to_owned(),
        waits_until: *waits_until,
    };
    Ok(Json(BudgetReport {
        authority: authority.to_string(),
        limits,
        lanes: standing.lanes.iter().map(lane).collect(),
        authorities: all
            .iter()
            .map(|id| AuthorityReport { authority: id.to_string(), is_away: away.contains(id) })
            .collect(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaQuery {
    authority: Option<String>,
}

/// Buckets of each limit in one answer.
const FULLEST: usize = 20;
