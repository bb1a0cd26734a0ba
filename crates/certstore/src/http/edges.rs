//! The reports of edges, and the drills that they are asked for.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequestParts, Path, State, rejection::PathRejection},
    http::request::Parts,
};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{DrillOrder, EdgeList, EdgeOrders, EdgeReport, PoolName, ProblemKind, Role};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::AdminOnly,
    request::{Body, Named, parse},
    service::Service,
};
use crate::{actor::Actor, blocking::blocking, domain, refusal::malformed, vault::Vault};

pub(crate) fn operations() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(edges))
        .routes(routes!(report, forget_edge))
        .routes(routes!(admit_edge))
        .routes(routes!(order_drill))
}

#[utoipa::path(
    get, path = "/v1/edges", tag = "edges",
    summary = "Edges that reported lately. Role admin.",
    responses((status = 200, body = EdgeList), ProblemDocument),
)]
async fn edges(State(vault): State<Arc<Vault>>, _: AdminOnly) -> Result<Json<EdgeList>, Refusal> {
    blocking(move || domain::edges::list(&vault)).await.map(Json)
}

#[utoipa::path(
    put, path = "/v1/edges/{pool}/{name}", tag = "edges",
    summary = "What an edge says of itself. That edge.",
    params(("pool" = PoolName, Path), ("name" = String, Path)),
    request_body = EdgeReport,
    responses((status = 200, body = EdgeOrders), ProblemDocument),
)]
async fn report(
    State(vault): State<Arc<Vault>>,
    Itself { actor, pool, name }: Itself,
    Body(body): Body,
) -> Result<Json<EdgeOrders>, Refusal> {
    let report: EdgeReport = parse(&body, "an edge's report")?;
    blocking(move || domain::edges::report(&vault, &actor, &pool, &name, report)).await.map(Json)
}

#[utoipa::path(
    delete, path = "/v1/edges/{pool}/{name}", tag = "edges",
    summary = "Forgets an edge, and refuses its reports. Role admin.",
    params(("pool" = PoolName, Path), ("name" = String, Path)),
    responses((status = 200, description = "Done"), ProblemDocument),
)]
async fn forget_edge(
    State(vault): State<Arc<Vault>>,
    AdminOnly(caller): AdminOnly,
    path: EdgePath,
) -> Result<Json<()>, Refusal> {
    let (pool, name) = edge(path)?;
    blocking(move || domain::edges::forget(&vault, &caller, &pool, &name)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/edges/{pool}/{name}/admission", tag = "edges",
    summary = "Takes the reports of a forgotten edge again. Role admin.",
    params(("pool" = PoolName, Path), ("name" = String, Path)),
    responses((status = 200, description = "Done"), ProblemDocument),
)]
async fn admit_edge(
    State(vault): State<Arc<Vault>>,
    AdminOnly(caller): AdminOnly,
    path: EdgePath,
) -> Result<Json<()>, Refusal> {
    let (pool, name) = edge(path)?;
    blocking(move || domain::edges::admit(&vault, &caller, &pool, &name)).await.map(Json)
}

#[utoipa::path(
    put, path = "/v1/drills/{pool}", tag = "edges",
    summary = "Asks the edges of a pool for a drill. Role admin.",
    params(("pool" = PoolName, Path)),
    request_body = DrillOrder,
    responses((status = 200, description = "Done"), ProblemDocument),
)]
async fn order_drill(
    State(vault): State<Arc<Vault>>,
    AdminOnly(caller): AdminOnly,
    Named(pool): Named<PoolName>,
    Body(body): Body,
) -> Result<Json<()>, Refusal> {
    let order: DrillOrder = parse(&body, "a drill with an id and a sample size")?;
    blocking(move || domain::edges::order_drill(&vault, &caller, &pool, &order)).await.map(Json)
}

/// Lets only the edge in the path pass.
struct Itself {
    actor: Actor,
    pool: PoolName,
    name: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Itself {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let actor = Actor::from_request_parts(parts, state).await?;
        let (pool, name) = edge(Path::from_request_parts(parts, state).await)?;
        if actor.role != Role::Edge(pool.clone()) || actor.name != name {
            let detail =
                format!("an edge reports of itself only: the caller is {actor}, the path is of edge/{pool}/{name}");
            return Err(Refusal::new(ProblemKind::Forbidden, detail));
        }
        Ok(Self { actor, pool, name })
    }
}

type EdgePath = Result<Path<(String, String)>, PathRejection>;

fn edge(path: EdgePath) -> Result<(PoolName, String), Refusal> {
    let Path((pool, name)) = path.map_err(|e| malformed(e.body_text()))?;
    if name.is_empty() || name.len() > 64 {
        return Err(malformed("expected an edge's name of 1 to 64 characters"));
    }
    Ok((pool.parse().map_err(malformed)?, name))
}
