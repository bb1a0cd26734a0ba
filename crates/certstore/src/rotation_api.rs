//! The HTTP interface for rotations, edges and drills.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::QueryRejection},
    routing::{get, post, put},
};
use certseal_service::problem::Refusal;
use certseal_wire::{
    Approval, Caller, DrillOrder, EdgeList, EdgeOrders, EdgeReport, Inventory, PoolName, ProblemKind, Retirement,
    RewrapOutcome, RewrapRequest, Role, Rotation, RotationId, RotationList, SealedPage, SealedQuery, Signed,
    Verification,
};
use serde::de::DeserializeOwned;

use crate::{
    api::{Body, Named, Service, blocking, forbidden, readers_only},
    audit::{Actor, What},
    records::malformed,
    vault::Vault,
};

pub(crate) fn router() -> Router<Service> {
    Router::new()
        .route("/v1/rotations", get(rotations))
        .route("/v1/rotations/{id}", put(propose).get(rotation))
        .route("/v1/rotations/{id}/approval", post(approve))
        .route("/v1/rotations/{id}/abort", post(abort))
        .route("/v1/rotations/{id}/rewraps", post(rewrap).layer(DefaultBodyLimit::max(MAX_REWRAPS)))
        .route("/v1/rotations/{id}/verification", post(verify))
        .route("/v1/rotations/{id}/retirements", post(retire))
        .route("/v1/sealed", get(sealed))
        .route("/v1/inventory", get(inventory))
        .route("/v1/edges", get(edges))
        .route("/v1/edges/{pool}/{name}", put(report).delete(forget_edge))
        .route("/v1/edges/{pool}/{name}/admission", post(admit_edge))
        .route("/v1/drills/{pool}", put(order_drill))
}

type Vaulted = State<Arc<Vault>>;

async fn rotations(State(vault): Vaulted, caller: Actor) -> Result<Json<RotationList>, Refusal> {
    readers_only(&caller)?;
    blocking(move || vault.rotation_list()).await.map(Json)
}

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

async fn propose(
    State(vault): Vaulted,
    caller: Actor,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<Rotation>, Refusal> {
    admins_only(&caller)?;
    let plan: Signed = parse(&body, "a signed rotation plan")?;
    blocking(move || vault.propose(&caller, id, plan)).await.map(Json)
}

async fn approve(
    State(vault): Vaulted,
    caller: Actor,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<Rotation>, Refusal> {
    admins_only(&caller)?;
    let approval: Approval = parse(&body, "an approval with the digest of the plan")?;
    blocking(move || vault.approve(&caller, id, &approval)).await.map(Json)
}

async fn abort(State(vault): Vaulted, caller: Actor, Named(id): Named<RotationId>) -> Result<Json<Rotation>, Refusal> {
    admins_only(&caller)?;
    blocking(move || vault.abort(&caller, id)).await.map(Json)
}

async fn rewrap(
    State(vault): Vaulted,
    caller: Actor,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<RewrapOutcome>, Refusal> {
    let request: RewrapRequest = parse(&body, "stanzas and the sites that they are for")?;
    blocking(move || vault.rewrap(&caller, id, &request)).await.map(Json)
}

async fn verify(
    State(vault): Vaulted,
    caller: Actor,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<Rotation>, Refusal> {
    admins_only(&caller)?;
    let verification: Verification = parse(&body, "how many bundles were opened, of how many")?;
    blocking(move || vault.verified(&caller, id, &verification)).await.map(Json)
}

async fn retire(
    State(vault): Vaulted,
    caller: Actor,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<RewrapOutcome>, Refusal> {
    admins_only(&caller)?;
    let Retirement { after } = parse(&body, "the site to go on after, or none")?;
    blocking(move || vault.retire_stanzas(&caller, id, after.as_ref())).await.map(Json)
}

async fn sealed(
    State(service): State<Service>,
    caller: Actor,
    query: Result<Query<SealedQuery>, QueryRejection>,
) -> Result<Json<SealedPage>, Refusal> {
    let Query(query) = query.map_err(|e| malformed(e.body_text()))?;
    match &caller.role {
        Role::Admin => {}
        // Legacy keys name no pool: what certctl asks for with an admin's identity is not for edges.
        Role::Edge(pool) if query.pool.as_ref() == Some(pool) && !query.legacy => {}
        _ => return Err(forbidden(&caller, "admin, or edge for its own pool")),
    }
    let permit = service.admission.heavy(&caller).await?;
    let vault = service.vault;
    let page = blocking(move || vault.sealed(&query)).await?;
    drop(permit);
    if let (Some(first), Some(last)) = (page.keys.first(), page.keys.last()) {
        let what = format!("{} sealed keys from {} to {}", page.keys.len(), first.site, last.site);
        service.reads.note(caller, What::Many(what)).await?;
    }
    Ok(Json(page))
}

async fn inventory(State(vault): Vaulted, caller: Actor) -> Result<Json<Inventory>, Refusal> {
    admins_only(&caller)?;
    blocking(move || vault.inventory()).await.map(Json)
}

async fn edges(State(vault): Vaulted, caller: Actor) -> Result<Json<EdgeList>, Refusal> {
    admins_only(&caller)?;
    blocking(move || vault.edges()).await.map(Json)
}

async fn report(
    State(vault): Vaulted,
    caller: Actor,
    path: EdgePath,
    Body(body): Body,
) -> Result<Json<EdgeOrders>, Refusal> {
    let (pool, name) = edge(path)?;
    let report: EdgeReport = parse(&body, "an edge's report")?;
    blocking(move || vault.edge_reported(&caller, &pool, &name, report)).await.map(Json)
}

async fn forget_edge(State(vault): Vaulted, caller: Actor, path: EdgePath) -> Result<Json<()>, Refusal> {
    admins_only(&caller)?;
    let (pool, name) = edge(path)?;
    blocking(move || vault.forget_edge(&caller, &pool, &name)).await.map(Json)
}

async fn admit_edge(State(vault): Vaulted, caller: Actor, path: EdgePath) -> Result<Json<()>, Refusal> {
    admins_only(&caller)?;
    let (pool, name) = edge(path)?;
    blocking(move || vault.admit_edge(&caller, &pool, &name)).await.map(Json)
}

async fn order_drill(
    State(vault): Vaulted,
    caller: Actor,
    Named(pool): Named<PoolName>,
    Body(body): Body,
) -> Result<Json<()>, Refusal> {
    admins_only(&caller)?;
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

pub(crate) fn admins_only(caller: &Caller) -> Result<(), Refusal> {
    match caller.role {
        Role::Admin => Ok(()),
        _ => Err(forbidden(caller, "admin")),
    }
}

/// Octets of a request with as many stanzas as it may have.
const MAX_REWRAPS: usize = 512 * 1024;
