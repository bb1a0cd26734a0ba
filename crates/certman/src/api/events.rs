//! What happened to sites: the list of it, and its repetition.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{EventList, ProblemKind, Replay, Replayed};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::request::{Allowed, journaled, malformed},
    events,
    worker::Worker,
};

pub(crate) fn operations() -> OpenApiRouter<Arc<Worker>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(replay))
}

#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    summary = "What happened to sites in the last week, a page at a time. Roles platform, admin.",
    params(("after" = Option<String>, Query, description = "`next` of the page before.", pattern = "^([0-9a-f]{2})*$")),
    responses((status = 200, body = EventList), ProblemDocument),
)]
async fn list(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<EventList>, Refusal> {
    let Query(ListQuery { after }) = query.map_err(|e| malformed(e.body_text()))?;
    let list = journaled(&worker, move |journal| events::list(&*journal.storage(), after.as_deref(), PAGE)).await?;
    list.map(Json).ok_or_else(|| malformed("expected `next` of the page before as `after`"))
}

#[utoipa::path(
    post, path = "/v1/events/replay", tag = "events",
    summary = "Sends events of the last week again, each with its id. Roles platform, admin.",
    request_body = Replay,
    responses((status = 200, body = Replayed), ProblemDocument),
)]
async fn replay(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    replay: Result<Json<Replay>, JsonRejection>,
) -> Result<Json<Replayed>, Refusal> {
    let Json(replay) = replay.map_err(|e| malformed(e.body_text()))?;
    if !worker.journal.tells() {
        return Err(Refusal::new(ProblemKind::Conflict, "this certman has no [webhooks] in its configuration"));
    }
    let events = journaled(&worker, move |journal| events::replay(&*journal.storage(), &replay)).await?;
    Ok(Json(Replayed { events }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    after: Option<String>,
}

/// Events in one answer.
const PAGE: usize = 200;
