//! The HTTP interface: who may do what, and nothing else.

use std::{str::FromStr, sync::Arc};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, Request, State, rejection::BytesRejection},
    http::{StatusCode, header::CONTENT_TYPE, request::Parts},
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
    Caller, Challenge, DnsName, FeedPage, FeedQuery, Kind, ParseError, PoolName, ProblemKind, PutOutcome, Role,
};

use crate::{
    feed,
    metrics::RoleLabel,
    records::{Checked, challenge_expiry, malformed},
    sweep::now,
    vault::Vault,
};

/// The router of certstore's interface.
pub(crate) fn router(vault: Arc<Vault>, shutdown: Shutdown) -> Router {
    Router::new()
        .route("/v1/bundles/{site}", put(put_bundle).get(bundle))
        .route("/v1/routes/{site}", put(put_route).get(route))
        .route("/v1/challenges/{host}/{token}", put(put_challenge).get(challenge).delete(delete_challenge))
        .route("/v1/ring", put(put_ring).get(ring))
        .route("/v1/accounts", put(put_accounts).get(accounts))
        .route("/v1/checkpoints/{pool}", put(put_checkpoint).get(checkpoint))
        .route("/v1/feed", get(feed))
        .merge(crate::rotation_api::router())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(Bundle::MAX))
        .layer(middleware::from_fn_with_state(vault.clone(), count))
        .layer(Extension(shutdown))
        .with_state(vault)
}

async fn put_bundle(
    State(vault): State<Arc<Vault>>,
    IssuerOnly: IssuerOnly,
    Named(site): Named<DnsName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put(Checked::bundle(&site, body, &vault.issuers(), &vault.ring())?)).await.map(Json)
}

async fn put_route(
    State(vault): State<Arc<Vault>>,
    IssuerOnly: IssuerOnly,
    Named(site): Named<DnsName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put(Checked::route(&site, body, &vault.issuers())?)).await.map(Json)
}

async fn put_accounts(
    State(vault): State<Arc<Vault>>,
    IssuerOnly: IssuerOnly,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put(Checked::accounts(body, &vault.issuers())?)).await.map(Json)
}

async fn put_checkpoint(
    State(vault): State<Arc<Vault>>,
    IssuerOnly: IssuerOnly,
    Named(pool): Named<PoolName>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.put(Checked::checkpoint(&pool, body, &vault.issuers())?)).await.map(Json)
}

async fn put_ring(
    State(vault): State<Arc<Vault>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    if caller.role != Role::Admin {
        return Err(forbidden(&caller, "admin"));
    }
    blocking(move || vault.put_ring(&caller, body)).await.map(Json)
}

async fn put_challenge(
    State(vault): State<Arc<Vault>>,
    IssuerOnly: IssuerOnly,
    Token { host, token }: Token,
    Body(body): Body,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || {
        let expires_at = challenge_expiry(&host, &token, &body, &vault.issuers())?;
        vault.put_challenge(challenge_key(&host, &token), body, expires_at)?;
        Ok(Json(PutOutcome { version: 1, changed: true }))
    })
    .await
}

async fn delete_challenge(
    State(vault): State<Arc<Vault>>,
    IssuerOnly: IssuerOnly,
    Token { host, token }: Token,
) -> Result<Json<PutOutcome>, Refusal> {
    blocking(move || vault.delete_challenges([challenge_key(&host, &token)])).await?;
    Ok(Json(PutOutcome { version: 1, changed: true }))
}

async fn bundle(
    State(vault): State<Arc<Vault>>,
    Extension(caller): Extension<Caller>,
    Named(site): Named<DnsName>,
) -> Result<Response, Refusal> {
    record(vault, caller, Kind::Bundle, site.to_string()).await
}

async fn route(
    State(vault): State<Arc<Vault>>,
    Extension(caller): Extension<Caller>,
    Named(site): Named<DnsName>,
) -> Result<Response, Refusal> {
    record(vault, caller, Kind::Route, site.to_string()).await
}

async fn ring(State(vault): State<Arc<Vault>>, Extension(caller): Extension<Caller>) -> Result<Response, Refusal> {
    record(vault, caller, Kind::Ring, String::new()).await
}

async fn accounts(State(vault): State<Arc<Vault>>, Extension(caller): Extension<Caller>) -> Result<Response, Refusal> {
    record(vault, caller, Kind::Accounts, String::new()).await
}

async fn checkpoint(
    State(vault): State<Arc<Vault>>,
    Extension(caller): Extension<Caller>,
    Named(pool): Named<PoolName>,
) -> Result<Response, Refusal> {
    record(vault, caller, Kind::Checkpoint, pool.to_string()).await
}

async fn challenge(
    State(vault): State<Arc<Vault>>,
    Extension(caller): Extension<Caller>,
    Token { host, token }: Token,
) -> Result<Response, Refusal> {
    readers_only(&caller)?;
    let record = blocking(move || vault.challenge(&challenge_key(&host, &token), now())).await?;
    let record = record.ok_or_else(|| Refusal::new(ProblemKind::NotFound, "there is no such challenge"))?;
    Ok(body(Kind::Route, record.value))
}

async fn feed(
    State(vault): State<Arc<Vault>>,
    Extension(caller): Extension<Caller>,
    Extension(shutdown): Extension<Shutdown>,
    query: Result<Query<FeedQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<FeedPage>, Refusal> {
    readers_only(&caller)?;
    let Query(query) = query.map_err(|e| malformed(e.body_text()))?;
    feed::page(vault, &caller, query, &shutdown).await.map(Json)
}

/// One record, if this caller may see it. To others it is not there.
async fn record(vault: Arc<Vault>, caller: Caller, kind: Kind, name: String) -> Result<Response, Refusal> {
    readers_only(&caller)?;
    let missing = format!("there is no {kind} {name} that {caller} may see");
    let stored = blocking(move || vault.get(kind, &name)).await?;
    let visible = stored.filter(|stored| feed::may_read(&caller.role, kind, &stored.pools));
    let stored = visible.ok_or_else(|| Refusal::new(ProblemKind::NotFound, missing))?;
    Ok(body(kind, stored.bytes))
}

fn body(kind: Kind, bytes: Vec<u8>) -> Response {
    let content_type = match kind {
        Kind::Bundle => "application/octet-stream",
        _ => "application/json",
    };
    (StatusCode::OK, [(CONTENT_TYPE, content_type)], bytes).into_response()
}

/// Runs what touches the disk off the reactor.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(Refusal::internal)?
}

fn challenge_key(host: &DnsName, token: &str) -> Vec<u8> {
    format!("{host}/{token}").into_bytes()
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

/// Counts every answer.
async fn count(
    State(vault): State<Arc<Vault>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let role = match caller.role {
        Role::Edge(_) => RoleLabel::Edge,
        Role::Issuer => RoleLabel::Issuer,
        Role::Admin => RoleLabel::Admin,
        Role::Platform => RoleLabel::Platform,
        Role::Service => RoleLabel::Service,
    };
    vault.metrics.answered(role, response.status().as_u16());
    response
}

/// Lets only the issuer pass.
struct IssuerOnly;

impl<S: Send + Sync> FromRequestParts<S> for IssuerOnly {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        match parts.extensions.get::<Caller>() {
            Some(Caller { role: Role::Issuer, .. }) => Ok(Self),
            Some(caller) => Err(forbidden(caller, "issuer")),
            None => Err(Refusal::internal("a request without a caller")),
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
