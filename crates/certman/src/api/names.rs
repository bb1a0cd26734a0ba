//! Names in the DNS: the records that they should have, and a look at those that they have.

use std::sync::Arc;

use axum::{Json, extract::State};
use certseal_issuance::Site;
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{DnsName, DnsPlan, NamesReport, ProblemKind};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::request::{Allowed, Name, change_present, present},
    preflight::Preflight,
    worker::Worker,
};

pub(crate) fn operations() -> OpenApiRouter<Arc<Worker>> {
    OpenApiRouter::new().routes(routes!(own_plan)).routes(routes!(plan, look))
}

#[utoipa::path(
    get, path = "/v1/dns", tag = "names",
    summary = "The DNS records of the platform itself. Roles platform, admin.",
    responses((status = 200, body = DnsPlan), ProblemDocument),
)]
async fn own_plan(State(worker): State<Arc<Worker>>, _: Allowed) -> Result<Json<DnsPlan>, Refusal> {
    Ok(Json(configured(&worker)?.own_plan()))
}

#[utoipa::path(
    get, path = "/v1/sites/{site}/dns", tag = "names",
    summary = "The DNS records that a site's names should have. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = DnsPlan), ProblemDocument),
)]
async fn plan(State(worker): State<Arc<Worker>>, _: Allowed, Name(name): Name) -> Result<Json<DnsPlan>, Refusal> {
    let site = present(&worker, &name).await?.site;
    Ok(Json(configured(&worker)?.plan(&site.names, &site.challenges, &worker.authorities.account_urls())))
}

/// Looks at a site's names now. An order that waits for them goes on if they are ready.
#[utoipa::path(
    post, path = "/v1/sites/{site}/dns", tag = "names",
    summary = "Looks at a site's names in the DNS now. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = NamesReport), ProblemDocument),
)]
async fn look(State(worker): State<Arc<Worker>>, _: Allowed, Name(name): Name) -> Result<Json<NamesReport>, Refusal> {
    let site = present(&worker, &name).await?.site;
    let preflight = configured(&worker)?;
    let (accounts, account) = (worker.authorities.account_urls(), worker.probed_account(preflight).await);
    let report = preflight.look(&site.names, &site.challenges, &accounts, account).await;
    let (seen, moment) = (report.clone(), worker.moment().map_err(Refusal::internal)?);
    let looked_at = move |now: Site| {
        // What was seen is of the names that it had, and of how they were validated.
        if (&now.names, &now.challenges) == (&site.names, &site.challenges) {
            now.looked_at(seen.clone(), moment)
        } else {
            now
        }
    };
    drop(change_present(&worker, &name, looked_at).await?);
    Ok(Json(report))
}

fn configured(worker: &Worker) -> Result<&Preflight, Refusal> {
    let none = || {
        let detail = "certman looks at no names: its configuration has no [dns] with resolvers and a target";
        Refusal::new(ProblemKind::NotFound, detail.to_owned())
    };
    worker.preflight.as_deref().ok_or_else(none)
}
