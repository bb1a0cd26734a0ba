//! Sites: the requests of a platform, and their progress.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Query, State,
        rejection::{BytesRejection, JsonRejection, QueryRejection},
    },
    http::StatusCode,
};
use certseal_issuance::Site;
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{DnsName, ProblemKind, Renewal, SiteList, SiteRequest, SiteStatus};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::request::{
        Allowed, Name, Pools, change, change_present, checked, journaled, leaves_with, malformed, no_such_site,
        present, status,
    },
    worker::Worker,
};

pub(crate) fn operations() -> OpenApiRouter<Arc<Worker>> {
    OpenApiRouter::new()
        .routes(routes!(sites))
        .routes(routes!(site, put_site, remove_site))
        .routes(routes!(renew))
        .routes(routes!(ask_advice))
}

#[utoipa::path(
    get, path = "/v1/sites", tag = "sites",
    summary = "A page of sites. Roles platform, admin.",
    params(
        ("after" = Option<DnsName>, Query, description = "Go on after this site."),
        ("expiring" = Option<bool>, Query, description = "Only those whose certificates are near their end."),
    ),
    responses((status = 200, body = SiteList), ProblemDocument),
)]
async fn sites(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<SiteList>, Refusal> {
    let Query(ListQuery { after, expiring }) = query.map_err(|e| malformed(e.body_text()))?;
    if expiring {
        let sites = journaled(&worker, |journal| journal.expiring(Timestamp::now(), MOST_EXPIRING)).await?;
        return Ok(Json(SiteList { sites: sites.iter().map(listed).collect(), next: None }));
    }
    let page = journaled(&worker, move |journal| journal.list(after.as_ref(), PAGE)).await?;
    let next = (page.len() == PAGE).then(|| page.last().map(|site| site.site.clone())).flatten();
    let sites = page.iter().filter(|site| !site.departed).map(listed).collect();
    Ok(Json(SiteList { sites, next }))
}

/// A site in a list, where what was found of its names would take too much room: the site alone has it.
fn listed(site: &Site) -> SiteStatus {
    let mut listed = status(site);
    listed.dns.iter_mut().for_each(|dns| dns.names.clear());
    listed
}

#[utoipa::path(
    get, path = "/v1/sites/{site}", tag = "sites",
    summary = "A site and how it is going. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = SiteStatus), ProblemDocument),
)]
async fn site(State(worker): State<Arc<Worker>>, _: Allowed, Name(name): Name) -> Result<Json<SiteStatus>, Refusal> {
    Ok(Json(status(&present(&worker, &name).await?.site)))
}

#[utoipa::path(
    put, path = "/v1/sites/{site}", tag = "sites",
    summary = "Adds or changes a site. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    request_body = SiteRequest,
    responses(
        (status = 200, description = "It was there.", body = SiteStatus),
        (status = 201, description = "It is new.", body = SiteStatus),
        ProblemDocument,
    ),
)]
async fn put_site(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    Name(name): Name,
    request: Result<Json<SiteRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<SiteStatus>), Refusal> {
    let Json(request) = request.map_err(|e| malformed(e.body_text()))?;
    let request = checked(&worker, &name, request, &Pools::of(&worker).await)?;
    let own = name.clone();
    let (site, created) = change(&worker, &name, move |before| {
        Ok(match before {
            Some(site) => site.clone().changed(request.clone()),
            None => Site::new(own.clone(), request.clone()),
        })
    })
    .await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(status(&site))))
}

#[utoipa::path(
    delete, path = "/v1/sites/{site}", tag = "sites",
    summary = "Removes a site. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = SiteStatus), ProblemDocument),
)]
async fn remove_site(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    Name(name): Name,
) -> Result<Json<SiteStatus>, Refusal> {
    present(&worker, &name).await?;
    if let Some(site) = name.companion_of() {
        return Err(malformed(leaves_with(&name, &site)));
    }
    let missing = no_such_site(&name);
    let (site, _) = change(&worker, &name, move |before| match before {
        Some(site) => Ok(if site.departed { site.clone() } else { site.clone().departed() }),
        None => Err(Refusal::new(ProblemKind::NotFound, missing.clone())),
    })
    .await?;
    Ok(Json(status(&site)))
}

/// A request without a body asks for a renewal now.
#[utoipa::path(
    post, path = "/v1/sites/{site}/renew", tag = "sites",
    summary = "Renews a site's certificate now, or earlier than planned. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    request_body = Option<Renewal>,
    responses((status = 200, body = SiteStatus), ProblemDocument),
)]
async fn renew(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    Name(name): Name,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<SiteStatus>, Refusal> {
    let body = body.map_err(|e| malformed(e.body_text()))?;
    let renewal: Option<Renewal> = if body.is_empty() {
        None
    } else {
        serde_json::from_slice(&body).map_err(|e| malformed(format!("expected a renewal: {e}")))?
    };
    let Renewal { at } = renewal.unwrap_or_default();
    change_present(&worker, &name, move |site| site.renewed(at)).await
}

#[utoipa::path(
    post, path = "/v1/sites/{site}/advice", tag = "sites",
    summary = "Asks the CA now when it wants a site's certificate to be renewed. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = SiteStatus), ProblemDocument),
)]
async fn ask_advice(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    Name(name): Name,
) -> Result<Json<SiteStatus>, Refusal> {
    change_present(&worker, &name, |site| site.advice_wanted(Timestamp::now())).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    after: Option<DnsName>,
    /// Only those whose certificates are near their end, those that are nearest first, and of very many the first ones.
    #[serde(default)]
    expiring: bool,
}

/// Sites in an answer about certificates near their end.
const MOST_EXPIRING: usize = 1000;

/// Sites in one answer.
const PAGE: usize = 200;
