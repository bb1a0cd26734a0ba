//! Names that edges meet and no site has.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use certseal_issuance::Site;
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{Caller, DnsName, NameSet, OnDemandAnswer, OnDemandOutcome, ProblemKind, causes};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::request::{Edge, Name, Pools, change, checked, journaled, malformed},
    journal::Journal,
    metrics::Demanded,
    on_demand::{OnDemand, Permission},
    worker::Worker,
};

pub(crate) fn operations() -> OpenApiRouter<Arc<Worker>> {
    OpenApiRouter::new().routes(routes!(on_demand))
}

/// The answer comes before there is a certificate. The same question again changes nothing.
#[utoipa::path(
    post, path = "/v1/on-demand/{name}", tag = "on-demand",
    summary = "Asks for a site for a name that a visitor wants, if it is permitted. Role edge.",
    params(("name" = DnsName, Path)),
    responses((status = 200, body = OnDemandAnswer), ProblemDocument),
)]
async fn on_demand(
    State(worker): State<Arc<Worker>>,
    Edge { caller, pool }: Edge,
    Name(name): Name,
) -> Result<Json<OnDemandAnswer>, Refusal> {
    let none =
        || Refusal::new(ProblemKind::NotFound, "certman's configuration has no [on_demand]: it makes no such sites");
    let on_demand = worker.on_demand.as_ref().ok_or_else(none)?;
    if !on_demand.is_for(&pool) {
        let detail =
            format!("sites on demand are not for pool {pool}: [on_demand] of certman's configuration names others");
        return Err(Refusal::new(ProblemKind::Forbidden, detail));
    }
    let outcome = answered(&worker, on_demand, &caller, &name).await;
    worker.metrics.demanded(match &outcome {
        Ok(OnDemandOutcome::Known) => Demanded::Known,
        Ok(OnDemandOutcome::Accepted) => Demanded::Accepted,
        Err(refusal) => match refusal.0.kind {
            ProblemKind::Busy => Demanded::Limited,
            ProblemKind::Unavailable | ProblemKind::Internal => Demanded::Unavailable,
            _ => Demanded::Refused,
        },
    });
    Ok(Json(OnDemandAnswer { outcome: outcome? }))
}

async fn answered(
    worker: &Arc<Worker>,
    on_demand: &OnDemand,
    edge: &Caller,
    name: &DnsName,
) -> Result<OnDemandOutcome, Refusal> {
    on_demand.count_question(edge).map_err(|wait| busy(format!("{edge} asks for too many names"), wait))?;
    let asked = name.clone();
    match journaled(worker, move |journal| standing(journal, &asked)).await? {
        Standing::Known => return Ok(OnDemandOutcome::Known),
        Standing::Left => return Err(left(name)),
        Standing::Unknown => {}
    }
    if let Some(why) = on_demand.forbidden(name) {
        return Err(Refusal::new(ProblemKind::Forbidden, why));
    }
    let full =
        |wait| busy(format!("there are enough new sites on demand for now, of the domain of {name} or in all"), wait);
    on_demand.room(name).map_err(full)?;
    match on_demand.permission(name).await {
        Some(Permission::Permitted) => {}
        Some(Permission::Refused) => {
            return Err(Refusal::new(ProblemKind::Forbidden, format!("no rule permits {name}")));
        }
        Some(Permission::Unavailable) => {
            let detail = format!("whether {name} is permitted cannot be asked now; certman's log says why");
            return Err(Refusal::new(ProblemKind::Unavailable, detail));
        }
        None => return Err(Refusal::busy("too many names are asked about now")),
    }
    let names = NameSet::try_from(vec![name.clone()]).map_err(malformed)?;
    let request = checked(worker, name, on_demand.request(names), &Pools::unasked())?;
    on_demand
        .take_room(name)
        .await
        .map_err(|error| {
            tracing::error!(site = %name, error = causes(error.as_ref()), "room for a site on demand cannot be taken");
            Refusal::new(ProblemKind::Unavailable, "certman's journal cannot be written now; its log says why")
        })?
        .map_err(full)?;
    let own = name.clone();
    let (_, is_new) = change(worker, name, move |before| match before {
        None => Ok(Site { on_demand: true, ..Site::new(own.clone(), request.clone()) }),
        Some(site) if site.departed => Err(left(&own)),
        // Another edge was faster.
        Some(site) => Ok(site.clone()),
    })
    .await?;
    if !is_new {
        return Ok(OnDemandOutcome::Known);
    }
    tracing::info!(site = %name, %edge, "a site is made on demand");
    Ok(OnDemandOutcome::Accepted)
}

/// How a name stands to the sites.
enum Standing {
    /// One has it, or a wildcard over it.
    Known,
    /// It was a site's own name, and the site has left.
    Left,
    Unknown,
}

fn standing(journal: &Journal, name: &DnsName) -> anyhow::Result<Standing> {
    for name in [Some(name.clone()), name.covering_wildcard()].iter().flatten() {
        if journal.holder(name)?.is_some() {
            return Ok(Standing::Known);
        }
    }
    Ok(match journal.read(name)? {
        Some(entry) if entry.site.departed => Standing::Left,
        Some(_) => Standing::Known,
        None => Standing::Unknown,
    })
}

fn left(name: &DnsName) -> Refusal {
    let detail = format!("site {name} has left: only the platform adds it again");
    Refusal::new(ProblemKind::Forbidden, detail)
}

fn busy(detail: String, wait: Duration) -> Refusal {
    let mut refusal = Refusal::busy(detail);
    refusal.0.retry_after = Some(wait.as_secs() + 1);
    refusal
}
