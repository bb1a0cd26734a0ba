//! Sites: the requests of a platform, and their progress.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State, rejection::JsonRejection},
    http::StatusCode,
    routing::{get, post},
};
use certseal_issuance::{Site, site_status};
use certseal_service::problem::Refusal;
use certseal_wire::{DnsName, ProblemKind, Renewal, SiteList, SiteRequest, SiteStatus};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    api::request::{Allowed, Name, change, change_present, checked, journaled, malformed, no_such_site, present},
    worker::Worker,
};

pub(crate) fn router() -> Router<Arc<Worker>> {
    Router::new()
        .route("/v1/sites", get(sites))
        .route("/v1/sites/{site}", get(site).put(put_site).delete(remove_site))
        .route("/v1/sites/{site}/renew", post(renew))
        .route("/v1/sites/{site}/advice", post(ask_advice))
}

async fn sites(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
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
    let mut status = site_status(site);
    status.dns.iter_mut().for_each(|dns| dns.names.clear());
    status
}

async fn site(State(worker): State<Arc<Worker>>, _: Allowed, Name(name): Name) -> Result<Json<SiteStatus>, Refusal> {
    Ok(Json(site_status(&present(&worker, &name).await?.site)))
}

async fn put_site(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    Name(name): Name,
    request: Result<Json<SiteRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<SiteStatus>), Refusal> {
    let Json(request) = request.map_err(|e| malformed(e.body_text()))?;
    let request = checked(&worker, &name, request).await?;
    let own = name.clone();
    let (site, created) = change(&worker, &name, move |before| {
        Ok(match before {
            Some(site) => site.clone().changed(request.clone()),
            None => Site::new(own.clone(), request.clone()),
        })
    })
    .await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(site_status(&site))))
}

async fn remove_site(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    Name(name): Name,
) -> Result<Json<SiteStatus>, Refusal> {
    present(&worker, &name).await?;
    let missing = no_such_site(&name);
    let (site, _) = change(&worker, &name, move |before| match before {
        Some(site) => Ok(if site.departed { site.clone() } else { site.clone().departed() }),
        None => Err(Refusal::new(ProblemKind::NotFound, missing.clone())),
    })
    .await?;
    Ok(Json(site_status(&site)))
}

/// A request without a body asks for a renewal now.
async fn renew(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    Name(name): Name,
    body: Bytes,
) -> Result<Json<SiteStatus>, Refusal> {
    let Renewal { at } = if body.is_empty() {
        Renewal::default()
    } else {
        serde_json::from_slice(&body).map_err(|e| malformed(format!("expected a renewal: {e}")))?
    };
    change_present(&worker, &name, move |site| site.renewed(at)).await
}

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
