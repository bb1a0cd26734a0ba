//! The common parts of requests: who may make them, which site they are about, and how a site is read and changed.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use certseal_issuance::{RecordError, Site, site_status};
use certseal_service::problem::Refusal;
use certseal_wire::{Caller, DnsName, ProblemKind, Role, SiteRequest, SiteStatus};

use crate::{
    journal::{Claim, Entry, Journal},
    worker::Worker,
};

/// Lets the platform and operators pass.
pub(crate) struct Allowed;

impl<S: Send + Sync> FromRequestParts<S> for Allowed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Extension(caller) =
            Extension::<Caller>::from_request_parts(parts, state).await.map_err(Refusal::internal)?;
        match caller.role {
            Role::Platform | Role::Admin => Ok(Self),
            _ => Err(Refusal::new(
                ProblemKind::Forbidden,
                format!("this needs role platform or admin, the caller is {caller}"),
            )),
        }
    }
}

/// Lets operators pass, and not the platform.
pub(crate) struct Admin;

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Extension(caller) =
            Extension::<Caller>::from_request_parts(parts, state).await.map_err(Refusal::internal)?;
        match caller.role {
            Role::Admin => Ok(Self),
            _ => Err(Refusal::new(ProblemKind::Forbidden, format!("this needs role admin, the caller is {caller}"))),
        }
    }
}

/// The site in the path.
pub(crate) struct Name(pub(crate) DnsName);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(name) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|e| malformed(e.body_text()))?;
        name.parse().map(Self).map_err(malformed)
    }
}

/// A request that can be served, its pools in order.
pub(crate) async fn checked(worker: &Worker, name: &DnsName, mut request: SiteRequest) -> Result<SiteRequest, Refusal> {
    request.pools.sort();
    request.pools.dedup();
    if request.pools.is_empty() || request.pools.len() > MAX_POOLS {
        return Err(malformed(format!("expected 1 to {MAX_POOLS} pools")));
    }
    if request.owner.as_ref().is_some_and(|owner| owner.len() > MAX_OWNER) {
        return Err(malformed(format!("expected an owner of at most {MAX_OWNER} octets")));
    }
    let profile = request.profile.as_ref().or(worker.policy.profile.as_ref());
    if let Some(profile) = profile.filter(|profile| request.names.len() > profile.most_names()) {
        let (most, count) = (profile.most_names(), request.names.len());
        return Err(malformed(format!(
            "expected at most {most} names, as many as a certificate of profile {profile} has; these are {count}: make several \
             sites of them, or choose another profile"
        )));
    }
    if name.is_wildcard() || !request.names.iter().any(|own| own == name) {
        return Err(malformed(format!("expected {name}, without a wildcard, to be among the site's names")));
    }
    // While the ring cannot be read, the site waits with a diagnosis instead.
    if let Ok((_, active)) = worker.certstore.active_pools().await
        && let Some(unknown) = request.pools.iter().find(|pool| !active.contains(pool))
    {
        return Err(malformed(format!(
            "pool {unknown} has no active unseal key; `certctl keys list` shows those that have"
        )));
    }
    Ok(request)
}

/// Changes a site, against whoever else does at the same time. Answers it, and whether it is new.
pub(crate) async fn change(
    worker: &Arc<Worker>,
    name: &DnsName,
    change: impl Fn(Option<&Site>) -> Result<Site, Refusal> + Send + Sync + 'static,
) -> Result<(Site, bool), Refusal> {
    let (journal, name) = (worker.journal.clone(), name.clone());
    let changed = tokio::task::spawn_blocking(move || {
        for _ in 0..MAX_RACES {
            let before = journal.read(&name).map_err(refusal)?;
            let site = change(before.as_ref().map(|entry| &entry.site))?;
            if before.as_ref().is_some_and(|entry| entry.site == site) {
                return Ok((site, false));
            }
            match journal.claim(before.as_ref(), &site).map_err(Refusal::internal)? {
                Claim::Written => return Ok((site, before.is_none_or(|entry| entry.site.departed))),
                Claim::Outrun => {}
                Claim::Taken { name, holder } => {
                    let detail = format!("{name} leads to site {holder} already: remove it there first");
                    return Err(Refusal::new(ProblemKind::Conflict, detail));
                }
                Claim::Covered { name, other, holder } => {
                    let detail = format!(
                        "{name} and {other} of site {holder} cover one another: give both sites the same `owner` if they \
                         are one customer's"
                    );
                    return Err(Refusal::new(ProblemKind::Conflict, detail));
                }
            }
        }
        Err(Refusal::new(ProblemKind::Conflict, format!("{name} is being changed by others all the time; try again")))
    });
    let changed = changed.await.map_err(Refusal::internal)??;
    worker.wake.notify_one();
    Ok(changed)
}

/// Changes a site that is there.
pub(crate) async fn change_present(
    worker: &Arc<Worker>,
    name: &DnsName,
    changed: impl Fn(Site) -> Site + Send + Sync + 'static,
) -> Result<Json<SiteStatus>, Refusal> {
    let missing = no_such_site(name);
    let (site, _) = change(worker, name, move |before| match before {
        Some(site) if !site.departed => Ok(changed(site.clone())),
        _ => Err(Refusal::new(ProblemKind::NotFound, missing.clone())),
    })
    .await?;
    Ok(Json(site_status(&site)))
}

pub(crate) async fn present(worker: &Arc<Worker>, name: &DnsName) -> Result<Entry, Refusal> {
    let missing = no_such_site(name);
    let name = name.clone();
    let entry = journaled(worker, move |journal| journal.read(&name)).await?;
    entry.filter(|entry| !entry.site.departed).ok_or_else(|| Refusal::new(ProblemKind::NotFound, missing))
}

/// Reads the journal away from the reactor.
pub(crate) async fn journaled<T: Send + 'static>(
    worker: &Arc<Worker>,
    work: impl FnOnce(&Journal) -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    let journal = worker.journal.clone();
    tokio::task::spawn_blocking(move || work(&journal)).await.map_err(Refusal::internal)?.map_err(refusal)
}

/// A record that a later release wrote is no fault of this process.
fn refusal(error: anyhow::Error) -> Refusal {
    match error.downcast_ref::<RecordError>() {
        Some(later @ RecordError::Later(_)) => {
            Refusal::new(ProblemKind::Unavailable, format!("the site's record: {later}"))
        }
        _ => Refusal::internal(error),
    }
}

pub(crate) fn no_such_site(name: &DnsName) -> String {
    format!("there is no site {name}; `certctl site list` shows all")
}

pub(crate) fn malformed(detail: impl ToString) -> Refusal {
    Refusal::new(ProblemKind::Malformed, detail.to_string())
}

const MAX_RACES: usize = 20;
const MAX_OWNER: usize = 200;
/// Half as many as an envelope has stanzas: the keys of all its pools can then be rotated at one time.
const MAX_POOLS: usize = certseal_seal::MAX_STANZAS / 2;
