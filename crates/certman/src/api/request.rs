//! The common parts of requests: who may make them, which site they are about, and how a site is read and changed.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use certseal_issuance::{Failure, RecordError, Site, site_status};
use certseal_service::problem::Refusal;
use certseal_wire::{Caller, DnsName, KeyType, PoolName, ProblemKind, Role, SiteRequest, SiteStatus, ValidationMethod};
use jiff::Timestamp;

use crate::{
    journal::{
        Entry, Journal,
        claims::{Clash, Done, NotDone},
    },
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

/// Lets edges pass.
pub(crate) struct Edge {
    pub(crate) caller: Caller,
    pub(crate) pool: PoolName,
}

impl<S: Send + Sync> FromRequestParts<S> for Edge {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Extension(caller) =
            Extension::<Caller>::from_request_parts(parts, state).await.map_err(Refusal::internal)?;
        match caller.role.clone() {
            Role::Edge(pool) => Ok(Self { caller, pool }),
            _ => Err(Refusal::new(ProblemKind::Forbidden, format!("this needs role edge, the caller is {caller}"))),
        }
    }
}

/// The name in the path.
pub(crate) struct Name(pub(crate) DnsName);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(name) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|e| malformed(e.body_text()))?;
        name.parse().map(Self).map_err(malformed)
    }
}

/// The pools that can be sealed to. None while the ring cannot be read: sites wait with a diagnosis then.
pub(crate) struct Pools(Option<Vec<PoolName>>);

impl Pools {
    pub(crate) async fn of(worker: &Worker) -> Self {
        Self(worker.certstore.active_pools().await.ok().map(|(_, active)| active))
    }

    /// Without a question to certstore.
    pub(crate) fn unasked() -> Self {
        Self(None)
    }
}

/// A request that can be served, its pools in order.
pub(crate) fn checked(
    worker: &Worker,
    name: &DnsName,
    mut request: SiteRequest,
    pools: &Pools,
) -> Result<SiteRequest, Refusal> {
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
    if let Some(site) = name.companion_of() {
        return Err(malformed(format!(
            "{name} stands for the RSA certificate of {site} and follows it: change {site}"
        )));
    }
    if request.key_type == KeyType::Both && name.companion().is_none() {
        return Err(malformed(format!(
            "expected a name of at most 248 octets for a site with both types of key, got {name}"
        )));
    }
    let challenges = &request.challenges;
    if (1..challenges.len()).any(|index| challenges[..index].contains(&challenges[index])) {
        return Err(malformed("expected each way to validate names once in `challenges`"));
    }
    if challenges.contains(&ValidationMethod::Dns) && worker.dns_challenges.is_none() {
        return Err(malformed("expected no dns-01 in `challenges`: certman's configuration has no [dns.challenges]"));
    }
    if name.is_wildcard() || !request.names.iter().any(|own| own == name) {
        return Err(malformed(format!("expected {name}, without a wildcard, to be among the site's names")));
    }
    if let Pools(Some(active)) = pools
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
        let changed = journal.change_alone(&name, change).map_err(unread)?;
        changed.map_err(|why| not_done(&name, why))
    });
    let (site, done) = changed.await.map_err(Refusal::internal)??;
    worker.wake.notify_one();
    Ok((site, done == Done::Created))
}

/// The site as it is now.
pub(crate) fn status(site: &Site) -> SiteStatus {
    site_status(site, Timestamp::now())
}

/// Why a change was not made, for the caller.
pub(crate) fn not_done(name: &DnsName, why: NotDone<Refusal>) -> Refusal {
    let detail = match why {
        NotDone::Unwanted(refusal) => return refusal,
        NotDone::Failed(error) => return unread(error),
        NotDone::Clash(Clash::Taken { name, holder }) => {
            format!("{name} leads to site {holder} already: remove it there first")
        }
        NotDone::Clash(Clash::Covered { name, other, holder }) => format!(
            "{name} and {other} of site {holder} cover one another: give both sites the same `owner` if they are one \
             customer's"
        ),
        NotDone::Outrun => format!("{name} is being changed by others all the time; try again"),
    };
    Refusal::new(ProblemKind::Conflict, detail)
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
    Ok(Json(status(&site)))
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
    tokio::task::spawn_blocking(move || work(&journal)).await.map_err(Refusal::internal)?.map_err(unread)
}

/// A record that a later release wrote is no fault of this process.
fn unread(error: anyhow::Error) -> Refusal {
    match error.downcast_ref::<RecordError>() {
        Some(later @ RecordError::Later(_)) => {
            Refusal::new(ProblemKind::Unavailable, format!("the site's record: {later}"))
        }
        _ => Refusal::internal(error),
    }
}

/// Why a companion is not removed by itself.
pub(crate) fn leaves_with(companion: &DnsName, site: &DnsName) -> String {
    format!("{companion} stands for the RSA certificate of {site} and leaves with it")
}

pub(crate) fn no_such_site(name: &DnsName) -> String {
    format!("there is no site {name}; `certctl site list` shows all")
}

pub(crate) fn malformed(detail: impl ToString) -> Refusal {
    Refusal::new(ProblemKind::Malformed, detail.to_string())
}

pub(crate) fn conflict(detail: String) -> Refusal {
    Refusal::new(ProblemKind::Conflict, detail)
}

/// What a failure of certstore, or of a CA, is to the caller.
pub(crate) fn refusal(failure: Failure) -> Refusal {
    if failure.may_pass() { Refusal::new(ProblemKind::Unavailable, failure.detail) } else { malformed(failure.detail) }
}

const MAX_OWNER: usize = 200;
/// Half as many as an envelope has stanzas: the keys of all its pools can then be rotated at one time.
const MAX_POOLS: usize = certseal_seal::MAX_STANZAS / 2;
