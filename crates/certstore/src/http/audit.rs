//! The audit log, and the newest state of it that certman saw and signed.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{AuditPage, AuditQuery, ProblemKind, PutOutcome, Signed};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::large,
    caller::{AuditorOnly, IssuerOnly},
    request::{Asked, Body},
    service::Service,
};
use crate::{audit as log, blocking::blocking, vault::Vault};

pub(crate) fn operations() -> OpenApiRouter<Service> {
    OpenApiRouter::new().routes(routes!(audit)).routes(routes!(put_audit_checkpoint, audit_checkpoint))
}

#[utoipa::path(
    get, path = "/v1/audit", tag = "audit",
    summary = "A page of the audit log. Roles admin, issuer.",
    params(
        ("after" = Option<u64>, Query, description = "Answer the entries after this number."),
        ("limit" = Option<u32>, Query, description = "At most this many entries."),
    ),
    responses((status = 200, body = AuditPage), ProblemDocument),
)]
async fn audit(
    State(service): State<Service>,
    AuditorOnly(actor): AuditorOnly,
    Asked(query): Asked<AuditQuery>,
) -> Result<Response, Refusal> {
    let vault = service.vault.clone();
    let page: AuditPage = blocking(move || log::page(&vault, &query)).await?;
    large(&service.admission, &actor, &page)
}

#[utoipa::path(
    put, path = "/v1/audit/checkpoint", tag = "audit",
    summary = "Stores what certman saw of the audit log, signed. Role issuer.",
    request_body = Signed,
    responses((status = 200, body = PutOutcome), ProblemDocument),
)]
async fn put_audit_checkpoint(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || log::put_checkpoint(&vault, &actor, &body)).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/audit/checkpoint", tag = "audit",
    summary = "What certman saw last of the audit log, signed. Roles admin, issuer.",
    responses((status = 200, body = Signed), ProblemDocument),
)]
async fn audit_checkpoint(State(vault): State<Arc<Vault>>, _: AuditorOnly) -> Result<Json<Signed>, Refusal> {
    let signed = blocking(move || log::checkpoint(&vault)).await?;
    let missing = || Refusal::new(ProblemKind::NotFound, "there is no checkpoint of the audit log yet");
    signed.map(Json).ok_or_else(missing)
}
