//! Backups, and the restore into an empty store.

use std::sync::Arc;

use axum::{
    Json,
    extract::{DefaultBodyLimit, Path, State},
    response::Response,
};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{BackupPage, BackupPlan, BackupQuery, BackupRecord, RestoreEnd, RestoreRequest};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use super::{
    answer::large,
    caller::AdminOnly,
    request::{Asked, Body, parse},
    service::Service,
};
use crate::{audit::ReadOf, blocking::blocking, domain, records::BUNDLES, vault::Vault};

pub(crate) fn operations() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(plan))
        .routes(routes!(page))
        .routes(routes!(restore).layer(DefaultBodyLimit::max(MAX_RESTORE)))
        .routes(routes!(end))
}

#[utoipa::path(
    get, path = "/v1/backup", tag = "backup",
    summary = "What a backup has to copy. Role admin.",
    responses((status = 200, body = BackupPlan), ProblemDocument),
)]
async fn plan(State(vault): State<Arc<Vault>>, AdminOnly(actor): AdminOnly) -> Result<Json<BackupPlan>, Refusal> {
    blocking(move || domain::backup::plan(&vault, &actor)).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/backup/{table}", tag = "backup",
    summary = "Records of a table. Role admin.",
    params(
        ("table" = String, Path),
        ("after" = Option<String>, Query, description = "Go on after this key, in hex."),
        ("only" = Option<String>, Query, description = "Only the record with this key, in hex."),
    ),
    responses((status = 200, body = BackupPage), ProblemDocument),
)]
async fn page(
    State(service): State<Service>,
    AdminOnly(actor): AdminOnly,
    Path(table): Path<String>,
    Asked(query): Asked<BackupQuery>,
) -> Result<Response, Refusal> {
    let table = domain::backup::table_named(&table)?.0;
    let permit = service.admission.heavy(&actor).await?;
    let vault = service.vault;
    let page: BackupPage = blocking(move || domain::backup::page(&vault, table, &query)).await?;
    drop(permit);
    let answer = large(&service.admission, &actor, &page)?;
    if table == BUNDLES
        && let (Some(first), Some(last)) = (page.records.first(), page.records.last())
    {
        let site = |record: &BackupRecord| {
            String::from_utf8_lossy(&domain::backup::from_hex(&record.key).unwrap_or_default()).into_owned()
        };
        let what = format!("a backup of {} bundles from {} to {}", page.records.len(), site(first), site(last));
        service.reads.note(actor, ReadOf::Many(what)).await?;
    }
    Ok(answer)
}

#[utoipa::path(
    post, path = "/v1/restore", tag = "backup",
    summary = "Takes records of a backup into an empty store. Role admin.",
    request_body = RestoreRequest,
    responses((status = 200, description = "Done"), ProblemDocument),
)]
async fn restore(
    State(vault): State<Arc<Vault>>,
    AdminOnly(actor): AdminOnly,
    Body(body): Body,
) -> Result<Json<()>, Refusal> {
    let request: RestoreRequest = parse(&body, "records of a backup")?;
    blocking(move || domain::restore::take(&vault, &actor, &request)).await.map(Json)
}

#[utoipa::path(
    post, path = "/v1/restore/end", tag = "backup",
    summary = "Ends a restore. Role admin.",
    request_body = RestoreEnd,
    responses((status = 200, description = "Done"), ProblemDocument),
)]
async fn end(
    State(vault): State<Arc<Vault>>,
    AdminOnly(actor): AdminOnly,
    Body(body): Body,
) -> Result<Json<()>, Refusal> {
    let end: RestoreEnd = parse(&body, "the counts of a backup, and where it was made")?;
    blocking(move || domain::restore::end(&vault, &actor, &end)).await.map(Json)
}

/// Octets of a request with records.
pub(crate) const MAX_RESTORE: usize = 16 * 1024 * 1024;
