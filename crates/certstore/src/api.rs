//! The HTTP interface: who may do what, and nothing else.

use std::{str::FromStr, sync::Arc};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, FromRef, FromRequestParts, Path, Query, Request, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{Method, StatusCode, header::CONTENT_TYPE, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use certseal_seal::Bundle;
use certseal_service::{
    Shutdown,
    problem::{Refusal, method_not_allowed, not_found},
};
use certseal_wire::{
    AuditAction, AuditPage, AuditQuery, Caller, Challenge, DeletionList, DeletionQuery, DnsName, FeedQuery, Kind,
    ParseError, PoolName, ProblemKind, PutOutcome, Role, Signed, Snapshot,
};

use crate::{
    admission::{Admission, held},
    audit::{Actor, Entry, ReadLog, What},
    feed::{Feed, may_read},
    metrics::RoleLabel,
    rates::Rates,
    records::{Checked, challenge_expiry, malformed},
    snapshot::Snapshots,
    sweep::now,
    vault::Vault,
};

/// The router of certstore's interface.
pub(crate) fn router(service: Service, shutdown: Shutdown) -> Router {
    Router::new()
        .route("/v1/bundles/{site}", put(put_bundle).get(bundle))
        .route("/v1/routes/{site}", put(put_route).get(route))
        .route("/v1/challenges/{host}/{token}", put(put_challenge).get(challenge).delete(delete_challenge))
        .route("/v1/ring", put(put_ring).get(ring))
        .route("/v1/accounts", put(put_accounts).get(accounts))
        .route("/v1/checkpoints/{pool}", put(put_checkpoint).get(checkpoint))
        .route("/v1/feed", get(feed))
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/snapshot/{digest}", get(segment))
        .route("/v1/audit", get(audit))
        .route("/v1/audit/checkpoint", put(put_audit_checkpoint).get(audit_checkpoint))
        .route("/v1/deletions", get(deletions))
        .merge(crate::rotation_api::router())
        .merge(crate::backup::router())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(Bundle::MAX))
        .layer(middleware::from_fn_with_state(service.clone(), account))
        .layer(Extension(shutdown))
        .with_state(service)
}

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) vault: Arc<Vault>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) reads: ReadLog,
    pub(crate) rates: Arc<Rates>,
}

impl FromRef<Service> for Arc<Vault> {
    fn from_ref(service: &Service) -> Self {
        service.vault.clone()
    }
}

async fn put_bundle(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Named(site): Named<DnsName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put(&actor, |trusted| Checked::bundle(&site, body.clone(), &trusted.issuers, &trusted.ring)))
        .await
        .map(Json)
}

async fn put_route(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Named(site): Named<DnsName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put(&actor, |trusted| Checked::route(&site, body.clone(), &trusted.issuers))).await.map(Json)
}

async fn put_accounts(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put(&actor, |trusted| Checked::accounts(body.clone(), &trusted.issuers))).await.map(Json)
}

async fn put_checkpoint(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Named(pool): Named<PoolName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put(&actor, |trusted| Checked::checkpoint(&pool, body.clone(), &trusted.issuers)))
        .await
        .map(Json)
}

async fn put_ring(
    State(vault): State<Arc<Vault>>,
    actor: Actor,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    if actor.role != Role::Admin {
        return Err(forbidden(&actor, "admin"));
    }
    blocking(move || vault.put_ring(&actor, body)).await.map(Json)
}

async fn put_challenge(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Token { host, token }: Token,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || {
        vault.put_challenge(&actor, &challenge_key(&host, &token), &body, |trusted| {
            challenge_expiry(&host, &token, &body, &trusted.issuers)
        })?;
        Ok(Json(PutOutcome { version: 1, changed: true }))
    })
    .await
}

async fn delete_challenge(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Token { host, token }: Token,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.delete_challenge(&actor, &challenge_key(&host, &token))).await?;
    Ok(Json(PutOutcome { version: 1, changed: true }))
}

async fn bundle(
    State(service): State<Service>,
    actor: Actor,
    Named(site): Named<DnsName>,
) -> Result<Response, Refusal> {
    let response = record(service.vault, &actor, Kind::Bundle, site.to_string()).await?;
    service.reads.note(actor, What::Site(site.to_string())).await?;
    Ok(response)
}

async fn route(
    State(vault): State<Arc<Vault>>,
    actor: Actor,
    Named(site): Named<DnsName>,
) -> Result<Response, Refusal> {
    record(vault, &actor, Kind::Route, site.to_string()).await
}

async fn ring(State(vault): State<Arc<Vault>>, actor: Actor) -> Result<Response, Refusal> {
    record(vault, &actor, Kind::Ring, String::new()).await
}

async fn accounts(State(vault): State<Arc<Vault>>, actor: Actor) -> Result<Response, Refusal> {
    record(vault, &actor, Kind::Accounts, String::new()).await
}

async fn checkpoint(
    State(vault): State<Arc<Vault>>,
    actor: Actor,
    Named(pool): Named<PoolName>,
) -> Result<Response, Refusal> {
    record(vault, &actor, Kind::Checkpoint, pool.to_string()).await
}

async fn challenge(
    State(vault): State<Arc<Vault>>,
    actor: Actor,
    Token { host, token }: Token,
) -> Result<Response, Refusal> {
    readers_only(&actor)?;
    let record = blocking(move || vault.challenge(&challenge_key(&host, &token), now())).await?;
    let record = record.ok_or_else(|| Refusal::new(ProblemKind::NotFound, "there is no such challenge"))?;
    Ok(body(Kind::Route, record.value))
}

async fn feed(
    State(service): State<Service>,
    actor: Actor,
    Extension(shutdown): Extension<Shutdown>,
    query: Result<Query<FeedQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    readers_only(&actor)?;
    let Query(query) = query.map_err(|e| malformed(e.body_text()))?;
    let (page, permit) = service.feed.page(actor, query, &shutdown).await?;
    Ok(([(CONTENT_TYPE, JSON)], held(page, permit)).into_response())
}

async fn snapshot(State(service): State<Service>, actor: Actor) -> Result<Json<Snapshot>, Refusal> {
    readers_only(&actor)?;
    service.snapshots.newest(&actor).await.map(Json)
}

async fn segment(
    State(service): State<Service>,
    actor: Actor,
    Path(digest): Path<String>,
) -> Result<Response, Refusal> {
    readers_only(&actor)?;
    let digest = digest.parse().map_err(malformed)?;
    let permit = service.admission.heavy(&actor).await?;
    let (bytes, segment, cursor) = service.snapshots.segment(&actor, digest).await?;
    let what = format!("snapshot at {cursor}, segment {digest}: {} records", segment.events);
    service.reads.note(actor, What::Many(what)).await?;
    Ok(([(CONTENT_TYPE, JSON)], held(bytes, permit)).into_response())
}

async fn audit(
    State(vault): State<Arc<Vault>>,
    actor: Actor,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditPage>, Refusal> {
    if !matches!(actor.role, Role::Admin | Role::Issuer) {
        return Err(forbidden(&actor, "admin or issuer"));
    }
    let Query(query) = query.map_err(|e| malformed(e.body_text()))?;
    blocking(move || vault.audit_page(&query)).await.map(Json)
}

async fn put_audit_checkpoint(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put_audit_checkpoint(&actor, &body)).await.map(Json)
}

async fn audit_checkpoint(State(vault): State<Arc<Vault>>, actor: Actor) -> Result<Json<Signed>, Refusal> {
    if !matches!(actor.role, Role::Admin | Role::Issuer) {
        return Err(forbidden(&actor, "admin or issuer"));
    }
    let signed = blocking(move || vault.audit_checkpoint()).await?;
    let missing = || Refusal::new(ProblemKind::NotFound, "there is no checkpoint of the audit log yet");
    signed.map(Json).ok_or_else(missing)
}

async fn deletions(
    State(vault): State<Arc<Vault>>,
    actor: Actor,
    query: Result<Query<DeletionQuery>, QueryRejection>,
) -> Result<Json<DeletionList>, Refusal> {
    if actor.role != Role::Admin {
        return Err(forbidden(&actor, "admin"));
    }
    let Query(query) = query.map_err(|e| malformed(e.body_text()))?;
    blocking(move || vault.deletions(&query)).await.map(Json)
}

/// One record, if this caller may see it. To others it is not there.
async fn record(vault: Arc<Vault>, actor: &Actor, kind: Kind, name: String) -> Result<Response, Refusal> {
    readers_only(actor)?;
    let missing = format!("there is no {kind} {name} that {} may see", actor.caller);
    let stored = blocking(move || vault.get(kind, &name)).await?;
    let visible = stored.filter(|stored| !stored.is_tombstone() && may_read(&actor.role, kind, &stored.pools));
    let stored = visible.ok_or_else(|| Refusal::new(ProblemKind::NotFound, missing))?;
    Ok(body(kind, stored.bytes))
}

fn body(kind: Kind, bytes: Vec<u8>) -> Response {
    let content_type = match kind {
        Kind::Bundle => "application/octet-stream",
        _ => JSON,
    };
    (StatusCode::OK, [(CONTENT_TYPE, content_type)], bytes).into_response()
}

/// Runs what touches the disk off the reactor.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(Refusal::internal)?
}

fn challenge_key(host: &DnsName, token: &str) -> String {
    format!("{host}/{token}")
}

pub(crate) fn forbidden(caller: &Caller, needed: &str) -> Refusal {
    Refusal::new(ProblemKind::Forbidden, format!("this needs role {needed}, the caller is {caller}"))
}

pub(crate) fn readers_only(caller: &Caller) -> Result<(), Refusal> {
    match caller.role {
        Role::Edge(_) | Role::Issuer | Role::Admin => Ok(()),
        Role::Platform | Role::Service => Err(forbidden(caller, "edge, issuer or admin")),
    }
}

/// Holds callers to their rate, notes what was refused to them, and counts every answer.
async fn account(State(service): State<Service>, actor: Actor, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let role = match actor.role {
        Role::Edge(_) => RoleLabel::Edge,
        Role::Issuer => RoleLabel::Issuer,
        Role::Admin => RoleLabel::Admin,
        Role::Platform => RoleLabel::Platform,
        Role::Service => RoleLabel::Service,
    };
    let admitted = match service.vault.is_restoring() && !path.starts_with("/v1/restore") {
        true => Err(Refusal::new(ProblemKind::Unavailable, "a backup is being restored: come back when that is done")),
        false => service.rates.admit(&actor),
    };
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    if is_noted(&method, response.status()) {
        let detail = format!("{method} {path}: {}", response.status());
        let entry = Entry::new(&actor, AuditAction::Other).detail(detail);
        let vault = service.vault.clone();
        if let Err(refusal) = blocking(move || vault.note_refused(entry)).await {
            response = refusal.into_response();
        }
    }
    service.vault.metrics.answered(role, response.status().as_u16());
    response
}

/// Refused changes, and whatever a caller has no right to. Not what is too much: the log would grow with it.
fn is_noted(method: &Method, status: StatusCode) -> bool {
    match status {
        StatusCode::FORBIDDEN => true,
        StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => *method != Method::GET,
        _ => false,
    }
}

/// Lets only the issuer pass.
struct IssuerOnly(Actor);

impl<S: Send + Sync> FromRequestParts<S> for IssuerOnly {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let actor = Actor::from_request_parts(parts, state).await?;
        match actor.role {
            Role::Issuer => Ok(Self(actor)),
            _ => Err(forbidden(&actor, "issuer")),
        }
    }
}

/// The site or pool in the path.
pub(crate) struct Named<T>(pub(crate) T);

impl<S: Send + Sync, T: FromStr<Err = ParseError>> FromRequestParts<S> for Named<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(name) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|e| malformed(e.body_text()))?;
        name.parse().map(Self).map_err(malformed)
    }
}

/// The host and token in the path.
struct Token {
    host: DnsName,
    token: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Token {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path((host, token)) =
            Path::<(String, String)>::from_request_parts(parts, state).await.map_err(|e| malformed(e.body_text()))?;
        if !Challenge::is_token(&token) {
            return Err(malformed("expected a token of 1 to 128 base64url characters"));
        }
        Ok(Self { host: host.parse().map_err(malformed)?, token })
    }
}

/// The request's body, within the limit.
pub(crate) struct Body(pub(crate) Vec<u8>);

impl<S: Send + Sync> axum::extract::FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes.into())),
            Err(BytesRejection::FailedToBufferBody(e)) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Refusal::new(ProblemKind::TooLarge, format!("expected a body of at most {} octets", Bundle::MAX)))
            }
            Err(e) => Err(malformed(e.body_text())),
        }
    }
}

const JSON: &str = "application/json";
