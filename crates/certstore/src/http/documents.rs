//! Routes, the key ring, account lists, checkpoints and OCSP answers: signed documents, stored and handed out.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{DnsName, Kind, PoolName, PutOutcome, Signed};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::{AdminOnly, IssuerOnly},
    record::record,
    request::{Body, Named},
    service::Service,
};
use crate::{
    actor::Actor,
    blocking::blocking,
    documents::Checked,
    domain::{self, put::put},
    vault::{Trusted, Vault},
};

pub(crate) fn operations() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(put_route, route))
        .routes(routes!(put_ring, ring))
        .routes(routes!(put_accounts, accounts))
        .routes(routes!(put_checkpoint, checkpoint))
        .routes(routes!(put_staple, staple))
}

#[utoipa::path(
    put, path = "/v1/routes/{site}", tag = "routes",
    summary = "Stores a signed route. Role issuer.",
    params(("site" = DnsName, Path)),
    request_body = Signed,
    responses((status = 200, body = PutOutcome), ProblemDocument),
)]
async fn put_route(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Named(site): Named<DnsName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    let check = move |trusted: &Trusted| Checked::route(&site, body.clone(), &trusted.issuers);
    put(vault, actor, check).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/routes/{site}", tag = "routes",
    summary = "The signed route of a site. Roles edge (own pool), issuer, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = Signed), ProblemDocument),
)]
async fn route(State(service): State<Service>, actor: Actor, Named(site): Named<DnsName>) -> Result<Response, Refusal> {
    record(&service, &actor, Kind::Route, site.to_string()).await
}

#[utoipa::path(
    put, path = "/v1/ring", tag = "ring",
    summary = "Stores the signed key ring. Role admin.",
    request_body = Signed,
    responses((status = 200, body = PutOutcome), ProblemDocument),
)]
async fn put_ring(
    State(vault): State<Arc<Vault>>,
    AdminOnly(actor): AdminOnly,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || domain::ring::put(&vault, &actor, body)).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/ring", tag = "ring",
    summary = "The signed key ring. Roles edge, issuer, admin.",
    responses((status = 200, body = Signed), ProblemDocument),
)]
async fn ring(State(service): State<Service>, actor: Actor) -> Result<Response, Refusal> {
    record(&service, &actor, Kind::Ring, String::new()).await
}

#[utoipa::path(
    put, path = "/v1/accounts", tag = "accounts",
    summary = "Stores the signed list of ACME accounts. Role issuer.",
    request_body = Signed,
    responses((status = 200, body = PutOutcome), ProblemDocument),
)]
async fn put_accounts(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    let check = move |trusted: &Trusted| Checked::accounts(body.clone(), &trusted.issuers);
    put(vault, actor, check).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts",
    summary = "The signed list of ACME accounts. Roles edge, issuer, admin.",
    responses((status = 200, body = Signed), ProblemDocument),
)]
async fn accounts(State(service): State<Service>, actor: Actor) -> Result<Response, Refusal> {
    record(&service, &actor, Kind::Accounts, String::new()).await
}

#[utoipa::path(
    put, path = "/v1/checkpoints/{pool}", tag = "checkpoints",
    summary = "Stores a signed checkpoint of a pool. Role issuer.",
    params(("pool" = PoolName, Path)),
    request_body = Signed,
    responses((status = 200, body = PutOutcome), ProblemDocument),
)]
async fn put_checkpoint(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Named(pool): Named<PoolName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    let check = move |trusted: &Trusted| Checked::checkpoint(&pool, body.clone(), &trusted.issuers);
    put(vault, actor, check).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/checkpoints/{pool}", tag = "checkpoints",
    summary = "The signed checkpoint of a pool. Roles edge (own pool), issuer, admin.",
    params(("pool" = PoolName, Path)),
    responses((status = 200, body = Signed), ProblemDocument),
)]
async fn checkpoint(
    State(service): State<Service>,
    actor: Actor,
    Named(pool): Named<PoolName>,
) -> Result<Response, Refusal> {
    record(&service, &actor, Kind::Checkpoint, pool.to_string()).await
}

#[utoipa::path(
    put, path = "/v1/staples/{site}", tag = "staples",
    summary = "Stores a signed OCSP answer. Role issuer.",
    params(("site" = DnsName, Path)),
    request_body = Signed,
    responses((status = 200, body = PutOutcome), ProblemDocument),
)]
async fn put_staple(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Named(site): Named<DnsName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    let check = move |trusted: &Trusted| Checked::staple(&site, body.clone(), &trusted.issuers);
    put(vault, actor, check).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/staples/{site}", tag = "staples",
    summary = "The signed OCSP answer for a site's certificate. Roles edge (own pool), issuer, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = Signed), ProblemDocument),
)]
async fn staple(
    State(service): State<Service>,
    actor: Actor,
    Named(site): Named<DnsName>,
) -> Result<Response, Refusal> {
    record(&service, &actor, Kind::Staple, site.to_string()).await
}
