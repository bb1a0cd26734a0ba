//! The feed, and the snapshots that readers begin with.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use certseal_service::{Shutdown, openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{Cursor, Digest, Event, FeedPage, FeedQuery, Snapshot};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{JSON, held, held_in_turn},
    caller::{ReaderOnly, readers_only},
    request::Asked,
    service::Service,
};
use crate::{actor::Actor, audit::ReadOf, refusal::malformed};

pub(crate) fn operations() -> OpenApiRouter<Service> {
    OpenApiRouter::new().routes(routes!(feed)).routes(routes!(snapshot)).routes(routes!(segment))
}

#[utoipa::path(
    get, path = "/v1/feed", tag = "feed",
    summary = "What changed after a cursor; waits for news. Roles edge (own pool), issuer, admin.",
    params(
        ("after" = Option<Cursor>, Query, description = "Answer what came after this; a snapshot says where to begin."),
        ("limit" = Option<u32>, Query, description = "At most this many events."),
        ("wait" = Option<u32>, Query, description = "Seconds to wait for news, at most 30."),
    ),
    responses((status = 200, body = FeedPage), ProblemDocument),
)]
async fn feed(
    State(service): State<Service>,
    ReaderOnly(actor): ReaderOnly,
    Extension(shutdown): Extension<Shutdown>,
    Asked(query): Asked<FeedQuery>,
) -> Result<Response, Refusal> {
    let (page, permit) = service.feed.page(actor, query, &shutdown).await?;
    Ok(([(CONTENT_TYPE, JSON)], held(page, permit)).into_response())
}

#[utoipa::path(
    get, path = "/v1/snapshot", tag = "feed",
    summary = "What a reader without a cursor begins with. Roles edge (own pool), issuer, admin.",
    responses((status = 200, body = Snapshot), ProblemDocument),
)]
async fn snapshot(State(service): State<Service>, actor: Actor) -> Result<Json<Snapshot>, Refusal> {
    readers_only(&actor)?;
    service.snapshots.newest(&actor).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/snapshot/{digest}", tag = "feed",
    summary = "One segment of a snapshot. Roles edge (own pool), issuer, admin.",
    params(("digest" = Digest, Path)),
    responses((status = 200, body = Vec<Event>), ProblemDocument),
)]
async fn segment(
    State(service): State<Service>,
    actor: Actor,
    Path(digest): Path<String>,
) -> Result<Response, Refusal> {
    readers_only(&actor)?;
    let digest = digest.parse().map_err(malformed)?;
    // The segment is found before its turn comes: a snapshot in the making keeps nobody else waiting.
    let (bytes, segment, cursor) = service.snapshots.segment(&actor, digest).await?;
    let turn = service.admission.heavy(&actor).await?;
    let what = format!("snapshot at {cursor}, segment {digest}: {} records", segment.events);
    let page = service.admission.page(&actor, bytes.len())?;
    service.reads.note(actor, ReadOf::Many(what)).await?;
    Ok(([(CONTENT_TYPE, JSON)], held_in_turn(bytes, page, turn)).into_response())
}
