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
};
use certseal_seal::Bundle;
use certseal_service::{
    Shutdown,
    admission::{Bodies, Rates, within_budget},
    problem::{Refusal, method_not_allowed, not_found},
};
use certseal_wire::{
    AuditAction, AuditPage, AuditQuery, Caller, Challenge, Cursor, DeletionList, DeletionQuery, Digest, DnsName, Event,
    FeedPage, FeedQuery, Kind, ParseError, PoolName, ProblemKind, PutOutcome, Role, Signed, Snapshot,
};
use tokio::sync::Semaphore;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    admission::{Admission, held, held_in_turn},
    audit::{Actor, Entry, ReadLog, What},
    feed::{Feed, may_read},
    metrics::RoleLabel,
    openapi::{Refused, described},
    records::{Checked, challenge_expiry, malformed},
    snapshot::Snapshots,
    sweep::now,
    vault::{Trusted, Vault},
};

/// The router of certstore's interface.
pub(crate) fn router(service: Service, shutdown: Shutdown) -> Router {
    described()
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(Bundle::MAX))
        .layer(middleware::from_fn_with_state(service.bodies.clone(), within_budget))
        .layer(middleware::from_fn_with_state(service.clone(), account))
        .layer(Extension(shutdown))
        .with_state(service)
}

/// All operations, with their description.
pub(crate) fn routes(description: OpenApi) -> OpenApiRouter<Service> {
    OpenApiRouter::with_openapi(description)
        .routes(routes!(put_bundle, bundle))
        .routes(routes!(put_route, route))
        .routes(routes!(put_challenge, challenge, delete_challenge))
        .routes(routes!(put_ring, ring))
        .routes(routes!(put_accounts, accounts))
        .routes(routes!(put_checkpoint, checkpoint))
        .routes(routes!(feed))
        .routes(routes!(snapshot))
        .routes(routes!(segment))
        .routes(routes!(audit))
        .routes(routes!(put_audit_checkpoint, audit_checkpoint))
        .routes(routes!(deletions))
        .merge(crate::rotation_api::router())
        .merge(crate::backup::router())
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
    pub(crate) bodies: Bodies,
}

impl Service {
    /// Notes what was refused to a caller without a right to it. One that asks too often must not fill the log: it is
    /// refused all the same.
    async fn note_refusal(&self, actor: &Actor, entry: Entry) -> Result<(), Refusal> {
        self.rates.admit_refusal(actor)?;
        let vault = self.vault.clone();
        blocking(move || vault.note_refused(entry)).await
    }
}

impl FromRef<Service> for Arc<Vault> {
    fn from_ref(service: &Service) -> Self {
        service.vault.clone()
    }
}

#[utoipa::path(
    put, path = "/v1/bundles/{site}", tag = "bundles",
    summary = "Stores a bundle. Role issuer.",
    params(("site" = DnsName, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = PutOutcome), Refused),
)]
async fn put_bundle(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Named(site): Named<DnsName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    let check = move |trusted: &Trusted| Checked::bundle(&site, body.clone(), &trusted.issuers, &trusted.ring);
    vault.put(actor, check).await.map(Json)
}

#[utoipa::path(
    put, path = "/v1/routes/{site}", tag = "routes",
    summary = "Stores a signed route. Role issuer.",
    params(("site" = DnsName, Path)),
    request_body = Signed,
    responses((status = 200, body = PutOutcome), Refused),
)]
async fn put_route(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Named(site): Named<DnsName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    let check = move |trusted: &Trusted| Checked::route(&site, body.clone(), &trusted.issuers);
    vault.put(actor, check).await.map(Json)
}

#[utoipa::path(
    put, path = "/v1/accounts", tag = "accounts",
    summary = "Stores the signed list of ACME accounts. Role issuer.",
    request_body = Signed,
    responses((status = 200, body = PutOutcome), Refused),
)]
async fn put_accounts(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    let check = move |trusted: &Trusted| Checked::accounts(body.clone(), &trusted.issuers);
    vault.put(actor, check).await.map(Json)
}

#[utoipa::path(
    put, path = "/v1/checkpoints/{pool}", tag = "checkpoints",
    summary = "Stores a signed checkpoint of a pool. Role issuer.",
    params(("pool" = PoolName, Path)),
    request_body = Signed,
    responses((status = 200, body = PutOutcome), Refused),
)]
async fn put_checkpoint(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Named(pool): Named<PoolName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    let check = move |trusted: &Trusted| Checked::checkpoint(&pool, body.clone(), &trusted.issuers);
    vault.put(actor, check).await.map(Json)
}

#[utoipa::path(
    put, path = "/v1/ring", tag = "ring",
    summary = "Stores the signed key ring. Role admin.",
    request_body = Signed,
    responses((status = 200, body = PutOutcome), Refused),
)]
async fn put_ring(
    State(vault): State<Arc<Vault>>,
    AdminOnly(actor): AdminOnly,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put_ring(&actor, body)).await.map(Json)
}

#[utoipa::path(
    put, path = "/v1/challenges/{host}/{token}", tag = "challenges",
    summary = "Stores a signed challenge until it expires. Role issuer.",
    params(("host" = DnsName, Path), ("token" = String, Path)),
    request_body = Signed,
    responses((status = 200, body = PutOutcome), Refused),
)]
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

#[utoipa::path(
    delete, path = "/v1/challenges/{host}/{token}", tag = "challenges",
    summary = "Forgets a challenge. Role issuer.",
    params(("host" = DnsName, Path), ("token" = String, Path)),
    responses((status = 200, body = PutOutcome), Refused),
)]
async fn delete_challenge(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Token { host, token }: Token,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.delete_challenge(&actor, &challenge_key(&host, &token))).await?;
    Ok(Json(PutOutcome { version: 1, changed: true }))
}

#[utoipa::path(
    get, path = "/v1/bundles/{site}", tag = "bundles",
    summary = "The bundle of a site. Roles edge (own pool), issuer, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), Refused),
)]
async fn bundle(
    State(service): State<Service>,
    actor: Actor,
    Named(site): Named<DnsName>,
) -> Result<Response, Refusal> {
    let bytes = record_bytes(&service, &actor, Kind::Bundle, site.to_string()).await?;
    let page = service.admission.page(&actor, bytes.len())?;
    service.reads.note(actor, What::Site(site.to_string())).await?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], held(bytes.into(), page)).into_response())
}

#[utoipa::path(
    get, path = "/v1/routes/{site}", tag = "routes",
    summary = "The signed route of a site. Roles edge (own pool), issuer, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = Signed), Refused),
)]
async fn route(State(service): State<Service>, actor: Actor, Named(site): Named<DnsName>) -> Result<Response, Refusal> {
    record(&service, &actor, Kind::Route, site.to_string()).await
}

#[utoipa::path(
    get, path = "/v1/ring", tag = "ring",
    summary = "The signed key ring. Roles edge, issuer, admin.",
    responses((status = 200, body = Signed), Refused),
)]
async fn ring(State(service): State<Service>, actor: Actor) -> Result<Response, Refusal> {
    record(&service, &actor, Kind::Ring, String::new()).await
}

#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts",
    summary = "The signed list of ACME accounts. Roles edge, issuer, admin.",
    responses((status = 200, body = Signed), Refused),
)]
async fn accounts(State(service): State<Service>, actor: Actor) -> Result<Response, Refusal> {
    record(&service, &actor, Kind::Accounts, String::new()).await
}

#[utoipa::path(
    get, path = "/v1/checkpoints/{pool}", tag = "checkpoints",
    summary = "The signed checkpoint of a pool. Roles edge (own pool), issuer, admin.",
    params(("pool" = PoolName, Path)),
    responses((status = 200, body = Signed), Refused),
)]
async fn checkpoint(
    State(service): State<Service>,
    actor: Actor,
    Named(pool): Named<PoolName>,
) -> Result<Response, Refusal> {
    record(&service, &actor, Kind::Checkpoint, pool.to_string()).await
}

#[utoipa::path(
    get, path = "/v1/challenges/{host}/{token}", tag = "challenges",
    summary = "A signed challenge. Roles edge, issuer, admin.",
    params(("host" = DnsName, Path), ("token" = String, Path)),
    responses((status = 200, body = Signed), Refused),
)]
async fn challenge(
    State(vault): State<Arc<Vault>>,
    actor: Actor,
    Token { host, token }: Token,
) -> Result<Response, Refusal> {
    readers_only(&actor)?;
    let record = blocking(move || vault.challenge(&challenge_key(&host, &token), now())).await?;
    let record = record.ok_or_else(|| Refusal::new(ProblemKind::NotFound, "there is no such challenge"))?;
    Ok(document(record.value))
}

#[utoipa::path(
    get, path = "/v1/feed", tag = "feed",
    summary = "What changed after a cursor; waits for news. Roles edge (own pool), issuer, admin.",
    params(
        ("after" = Option<Cursor>, Query, description = "Answer what came after this; a snapshot says where to begin."),
        ("limit" = Option<u32>, Query, description = "At most this many events."),
        ("wait" = Option<u32>, Query, description = "Seconds to wait for news, at most 30."),
    ),
    responses((status = 200, body = FeedPage), Refused),
)]
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

#[utoipa::path(
    get, path = "/v1/snapshot", tag = "feed",
    summary = "What a reader without a cursor begins with. Roles edge (own pool), issuer, admin.",
    responses((status = 200, body = Snapshot), Refused),
)]
async fn snapshot(State(service): State<Service>, actor: Actor) -> Result<Json<Snapshot>, Refusal> {
    readers_only(&actor)?;
    service.snapshots.newest(&actor).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/snapshot/{digest}", tag = "feed",
    summary = "One segment of a snapshot. Roles edge (own pool), issuer, admin.",
    params(("digest" = Digest, Path)),
    responses((status = 200, body = Vec<Event>), Refused),
)]
async fn segment(
    State(service): State<Service>,
    actor: Actor,
    Path(digest): Path<String>,
) -> Result<Response, Refusal> {
    readers_only(&actor)?;
    let digest = digest.parse().map_err(malformed)?;
    // Found before its turn comes: a snapshot in the making keeps nobody else waiting.
    let (bytes, segment, cursor) = service.snapshots.segment(&actor, digest).await?;
    let turn = service.admission.heavy(&actor).await?;
    let what = format!("snapshot at {cursor}, segment {digest}: {} records", segment.events);
    let page = service.admission.page(&actor, bytes.len())?;
    service.reads.note(actor, What::Many(what)).await?;
    Ok(([(CONTENT_TYPE, JSON)], held_in_turn(bytes, page, turn)).into_response())
}

#[utoipa::path(
    get, path = "/v1/audit", tag = "audit",
    summary = "A page of the audit log. Roles admin, issuer.",
    params(
        ("after" = Option<u64>, Query, description = "Answer the entries after this number."),
        ("limit" = Option<u32>, Query, description = "At most this many entries."),
    ),
    responses((status = 200, body = AuditPage), Refused),
)]
async fn audit(
    State(service): State<Service>,
    actor: Actor,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    if !matches!(actor.role, Role::Admin | Role::Issuer) {
        return Err(forbidden(&actor, "admin or issuer"));
    }
    let Query(query) = query.map_err(|e| malformed(e.body_text()))?;
    let vault = service.vault.clone();
    let page: AuditPage = blocking(move || vault.audit_page(&query)).await?;
    large(&service.admission, &actor, &page)
}

#[utoipa::path(
    put, path = "/v1/audit/checkpoint", tag = "audit",
    summary = "Stores what certman saw of the audit log, signed. Role issuer.",
    request_body = Signed,
    responses((status = 200, body = PutOutcome), Refused),
)]
async fn put_audit_checkpoint(
    State(vault): State<Arc<Vault>>,
    IssuerOnly(actor): IssuerOnly,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put_audit_checkpoint(&actor, &body)).await.map(Json)
}

#[utoipa::path(
    get, path = "/v1/audit/checkpoint", tag = "audit",
    summary = "What certman saw last of the audit log, signed. Roles admin, issuer.",
    responses((status = 200, body = Signed), Refused),
)]
async fn audit_checkpoint(State(vault): State<Arc<Vault>>, actor: Actor) -> Result<Json<Signed>, Refusal> {
    if !matches!(actor.role, Role::Admin | Role::Issuer) {
        return Err(forbidden(&actor, "admin or issuer"));
    }
    let signed = blocking(move || vault.audit_checkpoint()).await?;
    let missing = || Refusal::new(ProblemKind::NotFound, "there is no checkpoint of the audit log yet");
    signed.map(Json).ok_or_else(missing)
}

#[utoipa::path(
    get, path = "/v1/deletions", tag = "bundles",
    summary = "Bundles that will be deleted by themselves, the earliest first. Role admin.",
    params(
        ("within" = Option<u64>, Query, description = "List what is deleted within so many seconds from now."),
        ("limit" = Option<u32>, Query, description = "At most so many."),
    ),
    responses((status = 200, body = DeletionList), Refused),
)]
async fn deletions(
    State(vault): State<Arc<Vault>>,
    _: AdminOnly,
    query: Result<Query<DeletionQuery>, QueryRejection>,
) -> Result<Json<DeletionList>, Refusal> {
    let Query(query) = query.map_err(|e| malformed(e.body_text()))?;
    blocking(move || vault.deletions(&query)).await.map(Json)
}

/// One document, if this caller may see it. To others it is not there.
async fn record(service: &Service, actor: &Actor, kind: Kind, name: String) -> Result<Response, Refusal> {
    Ok(document(record_bytes(service, actor, kind, name).await?))
}

async fn record_bytes(service: &Service, actor: &Actor, kind: Kind, name: String) -> Result<Vec<u8>, Refusal> {
    readers_only(actor)?;
    let missing = format!("there is no {kind} {name} that {actor} may see");
    let (vault, own) = (service.vault.clone(), name.clone());
    let stored = blocking(move || vault.get(kind, &own)).await?.filter(|stored| !stored.is_tombstone());
    match stored {
        Some(stored) if may_read(&actor.role, kind, &stored.pools) => return Ok(stored.bytes),
        // The caller is not told that it is there, but whoever reads the log is told who asked.
        Some(_) => {
            let entry = Entry::new(actor, AuditAction::Other).target(&name);
            service.note_refusal(actor, entry.detail(format!("the {kind} of another pool"))).await?;
        }
        None => {}
    }
    Err(Refusal::new(ProblemKind::NotFound, missing))
}

fn document(bytes: Vec<u8>) -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, JSON)], bytes).into_response()
}

/// A large answer as JSON, counted among what waits to be sent.
pub(crate) fn large<T: serde::Serialize>(
    admission: &Admission,
    actor: &Actor,
    answer: &T,
) -> Result<Response, Refusal> {
    let bytes = serde_json::to_vec(answer).map_err(Refusal::internal)?;
    let page = admission.page(actor, bytes.len())?;
    Ok(([(CONTENT_TYPE, JSON)], held(bytes.into(), page)).into_response())
}

/// Runs what touches the disk off the reactor, in its turn.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let turn = TURNS.acquire().await.map_err(Refusal::internal)?;
    let work = move || {
        // Until it is done, also when whoever asked has gone.
        let _turn = turn;
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(Refusal::internal)?
}

/// Turns for what blocks: more than the large requests that are let in at one time. Hundreds of threads wake each other up
/// more than they work: with 8 of them on two cores there were 1.2 times as many puts as with the runtime's usual 512.
static TURNS: Semaphore = Semaphore::const_new(16);

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
        if let Err(refusal) = service.note_refusal(&actor, Entry::new(&actor, AuditAction::Other).detail(detail)).await
        {
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

/// Lets only the issuer pass. What may be called with a body has its role in its signature, before the body: nothing is
/// read from those who may not send it.
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

/// Lets only administrators pass.
pub(crate) struct AdminOnly(pub(crate) Actor);

impl<S: Send + Sync> FromRequestParts<S> for AdminOnly {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let actor = Actor::from_request_parts(parts, state).await?;
        match actor.role {
            Role::Admin => Ok(Self(actor)),
            _ => Err(forbidden(&actor, "admin")),
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
