//! The parts of a request: its path, its query and its body.

use std::str::FromStr;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::{StatusCode, request::Parts},
};
use certseal_seal::Bundle;
use certseal_service::problem::Refusal;
use certseal_wire::{Challenge, DnsName, ParseError, ProblemKind};
use serde::de::DeserializeOwned;

use crate::refusal::malformed;

/// The name or id in the path.
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
pub(crate) struct Token {
    pub(crate) host: DnsName,
    pub(crate) token: String,
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

impl<S: Send + Sync> FromRequest<S> for Body {
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

/// The query, parsed.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Query(query) = Query::from_request_parts(parts, state).await.map_err(|e| malformed(e.body_text()))?;
        Ok(Self(query))
    }
}

/// Reads a body as JSON.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| malformed(format!("expected {expected}: {e}")))
}
