//! ACME challenges, stored, handed out and forgotten.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{DnsName, ProblemKind, PutOutcome, Signed};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::document,
    caller::{IssuerOnly, readers_only},
    request::{Body, Token},
    service::Service,
};
use crate::{actor::Actor, blocking::blocking, clock::now, domain::challenges, vault::Vault};

pub(crate) fn operations() -> OpenApiRouter<Service> {
    OpenApiRouter::new().routes(routes!(put_challenge, challenge, delete_challenge))
}

#[utoipa::path(
    put, path = "/v1/challenges/{host}/{token}", tag = "challenges",
    summary = "Stores a signed challenge until it expires. Role issuer.",
    params(("host" = DnsName, Path), ("token" = String, Path)),
    request_body = Signed,
    responses((status = 200, body = PutOutcome), ProblemDocument),
)]
async fn put_challenge(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Token { host, token }: Token,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || {
        challenges::put(&vault, &actor, &host, &token, &body)?;
        Ok(Json(PutOutcome { version: 1, changed: true }))
    })
    .await
}

#[utoipa::path(
    get, path = "/v1/challenges/{host}/{token}", tag = "challenges",
    summary = "A signed challenge. Roles edge, issuer, admin.",
    params(("host" = DnsName, Path), ("token" = String, Path)),
    responses((status = 200, body = Signed), ProblemDocument),
)]
async fn challenge(
    State(vault): State<Arc<Vault>>,
    actor: Actor,
    Token { host, token }: Token,
) -> Result<Response, Refusal> {
    readers_only(&actor)?;
    let record = blocking(move || challenges::find(&vault, &host, &token, now())).await?;
    let record = record.ok_or_else(|| Refusal::new(ProblemKind::NotFound, "there is no such challenge"))?;
    Ok(document(record.value))
}

#[utoipa::path(
    delete, path = "/v1/challenges/{host}/{token}", tag = "challenges",
    summary = "Forgets a challenge. Role issuer.",
    params(("host" = DnsName, Path), ("token" = String, Path)),
    responses((status = 200, body = PutOutcome), ProblemDocument),
)]
async fn delete_challenge(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Token { host, token }: Token,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || challenges::delete(&vault, &actor, &host, &token)).await?;
    Ok(Json(PutOutcome { version: 1, changed: true }))
}
