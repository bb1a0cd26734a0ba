//! Rotations of unseal keys.

use std::sync::Arc;

use axum::{
    Json,
    extract::{DefaultBodyLimit, State},
};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{
    Approval, ProblemKind, Retirement, RewrapOutcome, RewrapRequest, Rotation, RotationId, RotationList, Signed,
    Verification,
};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use super::{
    caller::{AdminOnly, RewrapperOnly, readers_only},
    request::{Body, Named, parse},
    service::Service,
};
use crate::{actor::Actor, blocking::blocking, domain, vault::Vault};

pub(crate) fn operations() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(rotations))
        .routes(routes!(propose, rotation))
        .routes(routes!(approve))
        .routes(routes!(abort))
        .routes(routes!(rewrap).layer(DefaultBodyLimit::max(MAX_REWRAPS)))
        .routes(routes!(verify))
        .routes(routes!(retire))
}

#[utoipa::path(
    get, path = "/v1/rotations", tag = "rotations",
    summary = "All rotations, the newest first. Roles edge, issuer, admin.",
    responses((status = 200, body = RotationList), ProblemDocument),
)]
async fn rotations(State(vault): State<Arc<Vault>>, caller: Actor) -> Result<Json<RotationList>, Refusal> {
    readers_only(&caller)?;
    blocking(move || domain::rotation::list(&vault)).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/rotations/{id}", tag = "rotations",
    summary = "A rotation. Roles edge, issuer, admin.",
    params(("id" = RotationId, Path)),
    responses((status = 200, body = Rotation), ProblemDocument),
)]
async fn rotation(
    State(vault): State<Arc<Vault>>,
    caller: Actor,
    Named(id): Named<RotationId>,
) -> Result<Json<Rotation>, Refusal> {
    readers_only(&caller)?;
    let known = blocking(move || domain::rotation::find(&vault, id)).await?;
    let missing = || Refusal::new(ProblemKind::NotFound, format!("there is no rotation {id}"));
    known.map(|known| Json(known.rotation)).ok_or_else(missing)
}

#[utoipa::path(
    put, path = "/v1/rotations/{id}", tag = "rotations",
    summary = "Proposes a rotation by its signed plan. Role admin.",
    params(("id" = RotationId, Path)),
    request_body = Signed,
    responses((status = 200, body = Rotation), ProblemDocument),
)]
async fn propose(
    State(vault): State<Arc<Vault>>,
    AdminOnly(caller): AdminOnly,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<Rotation>, Refusal> {
    let plan: Signed = parse(&body, "a signed rotation plan")?;
    blocking(move || domain::rotation::propose(&vault, &caller, id, plan)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/rotations/{id}/approval", tag = "rotations",
    summary = "The second admin agrees to exactly this plan. Role admin.",
    params(("id" = RotationId, Path)),
    request_body = Approval,
    responses((status = 200, body = Rotation), ProblemDocument),
)]
async fn approve(
    State(vault): State<Arc<Vault>>,
    AdminOnly(caller): AdminOnly,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<Rotation>, Refusal> {
    let approval: Approval = parse(&body, "an approval with the digest of the plan")?;
    blocking(move || domain::rotation::approve(&vault, &caller, id, &approval)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/rotations/{id}/abort", tag = "rotations",
    summary = "Gives up a rotation whose key is not in the ring. Role admin.",
    params(("id" = RotationId, Path)),
    responses((status = 200, body = Rotation), ProblemDocument),
)]
async fn abort(
    State(vault): State<Arc<Vault>>,
    AdminOnly(caller): AdminOnly,
    Named(id): Named<RotationId>,
) -> Result<Json<Rotation>, Refusal> {
    blocking(move || domain::rotation::abort(&vault, &caller, id)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/rotations/{id}/rewraps", tag = "rotations",
    summary = "Adds stanzas for the new key. Roles admin, edge (own pool).",
    params(("id" = RotationId, Path)),
    request_body = RewrapRequest,
    responses((status = 200, body = RewrapOutcome), ProblemDocument),
)]
async fn rewrap(
    State(vault): State<Arc<Vault>>,
    RewrapperOnly(caller): RewrapperOnly,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<RewrapOutcome>, Refusal> {
    let request: RewrapRequest = parse(&body, "stanzas and the sites that they are for")?;
    blocking(move || domain::rotation::rewrap(&vault, &caller, id, &request)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/rotations/{id}/verification", tag = "rotations",
    summary = "Says that bundles were opened with the new key. Role admin.",
    params(("id" = RotationId, Path)),
    request_body = Verification,
    responses((status = 200, body = Rotation), ProblemDocument),
)]
async fn verify(
    State(vault): State<Arc<Vault>>,
    AdminOnly(caller): AdminOnly,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<Rotation>, Refusal> {
    let verification: Verification = parse(&body, "how many bundles were opened, of how many")?;
    blocking(move || domain::rotation::verify(&vault, &caller, id, &verification)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/rotations/{id}/retirements", tag = "rotations",
    summary = "Removes stanzas for the old keys from the next bundles. Role admin.",
    params(("id" = RotationId, Path)),
    request_body = Retirement,
    responses((status = 200, body = RewrapOutcome), ProblemDocument),
)]
async fn retire(
    State(vault): State<Arc<Vault>>,
    AdminOnly(caller): AdminOnly,
    Named(id): Named<RotationId>,
    Body(body): Body,
) -> Result<Json<RewrapOutcome>, Refusal> {
    let Retirement { after } = parse(&body, "the site to go on after, or none")?;
    blocking(move || domain::rotation::retire(&vault, &caller, id, after.as_ref())).await.map(Json)
}

/// Octets of a request with as many stanzas as it may have.
const MAX_REWRAPS: usize = 512 * 1024;
