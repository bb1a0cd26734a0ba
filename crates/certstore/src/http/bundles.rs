//! Bundles, stored and handed out; the sealed keys in them, listed and counted.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{
    DeletionList, DeletionQuery, DnsName, Inventory, Kind, PoolName, PutOutcome, Role, SealedPage, SealedQuery,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{held, large},
    caller::{AdminOnly, IssuerOnly},
    record::record_bytes,
    request::{Asked, Body, Named},
    service::Service,
};
use crate::{
    actor::Actor,
    audit::ReadOf,
    blocking::blocking,
    documents::Checked,
    domain::{self, put::put, sweep},
    refusal::forbidden,
    vault::{Trusted, Vault},
};

pub(crate) fn operations() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(put_bundle, bundle))
        .routes(routes!(deletions))
        .routes(routes!(sealed))
        .routes(routes!(inventory))
}

#[utoipa::path(
    put, path = "/v1/bundles/{site}", tag = "bundles",
    summary = "Stores a bundle. Role issuer.",
    params(("site" = DnsName, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = PutOutcome), ProblemDocument),
)]
async fn put_bundle(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Named(site): Named<DnsName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    let check = move |trusted: &Trusted| Checked::bundle(&site, body.clone(), &trusted.issuers, &trusted.ring);
    put(vault, actor, check).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/bundles/{site}", tag = "bundles",
    summary = "The bundle of a site. Roles edge (own pool), issuer, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), ProblemDocument),
)]
async fn bundle(
    State(service): State<Service>,
    actor: Actor,
    Named(site): Named<DnsName>,
) -> Result<Response, Refusal> {
    let bytes = record_bytes(&service, &actor, Kind::Bundle, site.to_string()).await?;
    let page = service.admission.page(&actor, bytes.len())?;
    service.reads.note(actor, ReadOf::Site(site.to_string())).await?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], held(bytes.into(), page)).into_response())
}

#[utoipa::path(
    get, path = "/v1/deletions", tag = "bundles",
    summary = "Bundles that will be deleted by themselves, the earliest first. Role admin.",
    params(
        ("within" = Option<u64>, Query, description = "List what is deleted within so many seconds from now."),
        ("limit" = Option<u32>, Query, description = "At most so many."),
    ),
    responses((status = 200, body = DeletionList), ProblemDocument),
)]
async fn deletions(
    State(vault): State<Arc<Vault>>,
    _: AdminOnly,
    Asked(query): Asked<DeletionQuery>,
) -> Result<Json<DeletionList>, Refusal> {
    blocking(move || sweep::deletions(&vault, &query)).await.map(Json)
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
    responses((status = 200, body = SealedPage), ProblemDocument),
)]
async fn sealed(
    State(service): State<Service>,
    caller: Actor,
    Asked(query): Asked<SealedQuery>,
) -> Result<Response, Refusal> {
    match &caller.role {
        Role::Admin => {}
        // Legacy keys name no pool: certctl asks for them with an admin's identity, and edges do not get them.
        Role::Edge(pool) if query.pool.as_ref() == Some(pool) && !query.legacy => {}
        _ => return Err(forbidden(&caller, "admin, or edge for its own pool")),
    }
    let permit = service.admission.heavy(&caller).await?;
    let vault = service.vault;
    let page: SealedPage = blocking(move || domain::inventory::sealed_keys(&vault, &query)).await?;
    drop(permit);
    let answer = large(&service.admission, &caller, &page)?;
    if let (Some(first), Some(last)) = (page.keys.first(), page.keys.last()) {
        let what = format!("{} sealed keys from {} to {}", page.keys.len(), first.site, last.site);
        service.reads.note(caller, ReadOf::Many(what)).await?;
    }
    Ok(answer)
}

#[utoipa::path(
    get, path = "/v1/inventory", tag = "bundles",
    summary = "Counts by suite, pool and epoch. Role admin.",
    responses((status = 200, body = Inventory), ProblemDocument),
)]
async fn inventory(State(vault): State<Arc<Vault>>, _: AdminOnly) -> Result<Json<Inventory>, Refusal> {
    blocking(move || domain::inventory::count(&vault)).await.map(Json)
}
