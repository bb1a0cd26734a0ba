//! The HTTP interface for rotations, edges and drills.

use std::sync::Arc;

use axum::{
    Json,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::request::Parts,
    response::Response,
};
use certseal_service::problem::Refusal;
use certseal_wire::{
    Approval, DnsName, DrillOrder, EdgeList, EdgeOrders, EdgeReport, Inventory, PoolName, ProblemKind, Retirement,
    RewrapOutcome, RewrapRequest, Role, Rotation, RotationId, RotationList, SealedPage, SealedQuery, Signed,
    Verification,
};
use serde::de::DeserializeOwned;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use crate::{
    api::{AdminOnly, Body, Named, Service, blocking, forbidden, large, readers_only},
    audit::{Actor, What},
    openapi::Refused,
    records::malformed,
    vault::Vault,
};

pub(crate) fn router() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(rotations))
        .routes(routes!(propose, rotation))
        .routes(routes!(approve))
        .routes(routes!(abort))
        .routes(routes!(rewrap).layer(DefaultBodyLimit::max(MAX_REWRAPS)))
        .routes(routes!(verify))
        .routes(routes!(retire))
        .routes(routes!(sealed))
        .routes(routes!(inventory))
        .routes(routes!(edges))
        .routes(routes!(report, forget_edge))
        .routes(routes!(admit_edge))
        .routes(routes!(order_drill))
}

type Vaulted = State<Arc<Vault>>;

#[utoipa::path(
    get, path = "/v1/rotations", tag = "rotations",
    summary = "All rotations, the newest first. Roles edge, issuer, admin.",
    responses((status = 200, body = RotationList), Refused),
)]
async fn rotations(State(vault): Vaulted, caller: Actor) -> Result<Json<RotationList>, Refusal> {
    readers_only(&caller)?;
    blocking(move || vault.rotation_list()).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/rotations/{id}", tag = "rotations",
    summary = "A rotation. Roles edge, issuer, admin.",
    params(("id" = RotationId, Path)),
    responses((status = 200, body = Rotation), Refused),
)]
async fn rotation(
    State(vault): Vaulted,
    caller: Actor,
    Named(id): Named<RotationId>,
) -> Result<Json<Rotation>, Refusal> {
    readers_only(&caller)?;
    let known = blocking(move || vault.known(id)).await?;
    let missing = || Refusal::new(ProblemKind::NotFound, format!("there is no rotation {id}"));
    known.map(|known| Json(known.rotation)).ok_or_else(missing)
}

#[utoipa::path(
    put, path = "/v1/rotations/{id}", tag = "rotations",
    summary = "Proposes a rotation by its signed plan. Role admin.",
    params(("id" = RotationId, Path)),
    request_body = Signed,
    responses((status = 200, body = Rotation), Refused),
)]
async fn propose(
    State(vault): Vaulted,
    AdminOnly(caller): AdminOnly,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<Rotation>, Refusal> {
    let plan: Signed = parse(&body, "a signed rotation plan")?;
    blocking(move || vault.propose(&caller, id, plan)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/rotations/{id}/approval", tag = "rotations",
    summary = "The second admin agrees to exactly this plan. Role admin.",
    params(("id" = RotationId, Path)),
    request_body = Approval,
    responses((status = 200, body = Rotation), Refused),
)]
async fn approve(
    State(vault): Vaulted,
    AdminOnly(caller): AdminOnly,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<Rotation>, Refusal> {
    let approval: Approval = parse(&body, "an approval with the digest of the plan")?;
    blocking(move || vault.approve(&caller, id, &approval)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/rotations/{id}/abort", tag = "rotations",
    summary = "Gives up a rotation whose key is not in the ring. Role admin.",
    params(("id" = RotationId, Path)),
    responses((status = 200, body = Rotation), Refused),
)]
async fn abort(
    State(vault): Vaulted,
    AdminOnly(caller): AdminOnly,
    Named(id): Named<RotationId>,
) -> Result<Json<Rotation>, Refusal> {
    blocking(move || vault.abort(&caller, id)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/rotations/{id}/rewraps", tag = "rotations",
    summary = "Adds stanzas for the new key. Roles admin, edge (own pool).",
    params(("id" = RotationId, Path)),
    request_body = RewrapRequest,
    responses((status = 200, body = RewrapOutcome), Refused),
)]
async fn rewrap(
    State(vault): Vaulted,
    RewrapperOnly(caller): RewrapperOnly,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<RewrapOutcome>, Refusal> {
    let request: RewrapRequest = parse(&body, "stanzas and the sites that they are for")?;
    blocking(move || vault.rewrap(&caller, id, &request)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/rotations/{id}/verification", tag = "rotations",
    summary = "Says that bundles were opened with the new key. Role admin.",
    params(("id" = RotationId, Path)),
    request_body = Verification,
    responses((status = 200, body = Rotation), Refused),
)]
async fn verify(
    State(vault): Vaulted,
    AdminOnly(caller): AdminOnly,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<Rotation>, Refusal> {
    let verification: Verification = parse(&body, "how many bundles were opened, of how many")?;
    blocking(move || vault.verified(&caller, id, &verification)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/rotations/{id}/retirements", tag = "rotations",
    summary = "Removes stanzas for the old keys from the next bundles. Role admin.",
    params(("id" = RotationId, Path)),
    request_body = Retirement,
    responses((status = 200, body = RewrapOutcome), Refused),
)]
async fn retire(
    State(vault): Vaulted,
    AdminOnly(caller): AdminOnly,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<RewrapOutcome>, Refusal> {
    let Retirement { after } = parse(&body, "the site to go on after, or none")?;
    blocking(move || vault.retire_stanzas(&caller, id, after.as_ref())).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/sealed", tag = "rotations",
    summary = "A page of sealed keys. Roles admin, edge (own pool).",
    params(
        ("after" = Option<DnsName>, Query, description = "Go on after this site."),
        ("limit" = Option<u32>, Query, description = "At most so many."),
        ("pool" = Option<PoolName>, Query, description = "Only what is sealed to this pool."),
        ("lacking" = Option<u32>, Query, description = "Only what has no stanza for this epoch of the pool."),
        ("legacy" = Option<bool>, Query, description = "Only legacy keys."),
    ),
    responses((status = 200, body = SealedPage), Refused),
)]
async fn sealed(
    State(service): State<Service>,
    caller: Actor,
    query: Result<Query<SealedQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|e| malformed(e.body_text()))?;
    match &caller.role {
        Role::Admin => {}
        // Legacy keys name no pool: what certctl asks for with an admin's identity is not for edges.
        Role::Edge(pool) if query.pool.as_ref() == Some(pool) && !query.legacy => {}
        _ => return Err(forbidden(&caller, "admin, or edge for its own pool")),
    }
    let permit = service.admission.heavy(&caller).await?;
    let vault = service.vault;
    let page: SealedPage = blocking(move || vault.sealed(&query)).await?;
    drop(permit);
    let answer = large(&service.admission, &caller, &page)?;
    if let (Some(first), Some(last)) = (page.keys.first(), page.keys.last()) {
        let what = format!("{} sealed keys from {} to {}", page.keys.len(), first.site, last.site);
        service.reads.note(caller, What::Many(what)).await?;
    }
    Ok(answer)
}

#[utoipa::path(
    get, path = "/v1/inventory", tag = "bundles",
    summary = "Counts by suite, pool and epoch. Role admin.",
    responses((status = 200, body = Inventory), Refused),
)]
async fn inventory(State(vault): Vaulted, _: AdminOnly) -> Result<Json<Inventory>, Refusal> {
    blocking(move || vault.inventory()).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/edges", tag = "edges",
    summary = "Edges that reported lately. Role admin.",
    responses((status = 200, body = EdgeList), Refused),
)]
async fn edges(State(vault): Vaulted, _: AdminOnly) -> Result<Json<EdgeList>, Refusal> {
    blocking(move || vault.edges()).await.map(Json)
}

#[utoipa::path(
    put, path = "/v1/edges/{pool}/{name}", tag = "edges",
    summary = "What an edge says of itself. That edge.",
    params(("pool" = PoolName, Path), ("name" = String, Path)),
    request_body = EdgeReport,
    responses((status = 200, body = EdgeOrders), Refused),
)]
async fn report(
    State(vault): Vaulted,
    Itself { actor, pool, name }: Itself,
    Body(body): Body,
) -> Result<Json<EdgeOrders>, Refusal> {
    let report: EdgeReport = parse(&body, "an edge's report")?;
    blocking(move || vault.edge_reported(&actor, &pool, &name, report)).await.map(Json)
}

#[utoipa::path(
    delete, path = "/v1/edges/{pool}/{name}", tag = "edges",
    summary = "Forgets an edge, and refuses its reports. Role admin.",
    params(("pool" = PoolName, Path), ("name" = String, Path)),
    responses((status = 200, description = "Done"), Refused),
)]
async fn forget_edge(State(vault): Vaulted, AdminOnly(caller): AdminOnly, path: EdgePath) -> Result<Json<()>, Refusal> {
    let (pool, name) = edge(path)?;
    blocking(move || vault.forget_edge(&caller, &pool, &name)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/edges/{pool}/{name}/admission", tag = "edges",
    summary = "Takes the reports of a forgotten edge again. Role admin.",
    params(("pool" = PoolName, Path), ("name" = String, Path)),
    responses((status = 200, description = "Done"), Refused),
)]
async fn admit_edge(State(vault): Vaulted, AdminOnly(caller): AdminOnly, path: EdgePath) -> Result<Json<()>, Refusal> {
    let (pool, name) = edge(path)?;
    blocking(move || vault.admit_edge(&caller, &pool, &name)).await.map(Json)
}

#[utoipa::path(
    put, path = "/v1/drills/{pool}", tag = "edges",
    summary = "Asks the edges of a pool for a drill. Role admin.",
    params(("pool" = PoolName, Path)),
    request_body = DrillOrder,
    responses((status = 200, description = "Done"), Refused),
)]
async fn order_drill(
    State(vault): Vaulted,
    AdminOnly(caller): AdminOnly,
    Named(pool): Named<PoolName>,
    Body(body): Body,
) -> Result<Json<()>, Refusal> {
    let order: DrillOrder = parse(&body, "a drill with an id and a sample size")?;
    blocking(move || vault.order_drill(&caller, &pool, &order)).await.map(Json)
}

type EdgePath = Result<Path<(String, String)>, axum::extract::rejection::PathRejection>;

fn edge(path: EdgePath) -> Result<(PoolName, String), Refusal> {
    let Path((pool, name)) = path.map_err(|e| malformed(e.body_text()))?;
    if name.is_empty() || name.len() > 64 {
        return Err(malformed("expected an edge's name of 1 to 64 characters"));
    }
    Ok((pool.parse().map_err(malformed)?, name))
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| malformed(format!("expected {expected}: {e}")))
}

/// Lets those pass who add stanzas; whether it is an edge's own pool shows by the rotation.
struct RewrapperOnly(Actor);

impl<S: Send + Sync> FromRequestParts<S> for RewrapperOnly {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let actor = Actor::from_request_parts(parts, state).await?;
        match actor.role {
            Role::Admin | Role::Edge(_) => Ok(Self(actor)),
            _ => Err(forbidden(&actor, "admin or edge")),
        }
    }
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

/// Octets of a request with as many stanzas as it may have.
const MAX_REWRAPS: usize = 512 * 1024;
