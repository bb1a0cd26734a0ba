//! Refusals: the one place where [`Problem`] documents become HTTP answers.

use axum::{
    body::Body,
    http::{
        Response, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::IntoResponse,
};
use certseal_wire::{Problem, ProblemKind};

/// An error of a request handler.
#[derive(Debug)]
pub struct Refusal(pub Problem);

impl Refusal {
    /// A refusal of `kind`.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Problem::new(kind, detail))
    }

    /// Too much is under way, of this caller or of all: to be tried again in 1 to 5 seconds.
    pub fn busy(detail: impl Into<String>) -> Self {
        // Without randomness all come back together, which is no reason to fail.
        let spread = getrandom::u32().unwrap_or(0) % 5;
        let mut refusal = Self::new(ProblemKind::Busy, detail);
        refusal.0.retry_after = Some(1 + u64::from(spread));
        refusal
    }

    /// The server failed: the cause goes to the log, not to the caller.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(ProblemKind::Internal, "the server failed; its log says why")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Serialization fails for maps with other than text keys only; a problem has none.
        let body = serde_json::to_vec(&self.0).expect("a problem serializes");
        let mut response = (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(seconds) = self.0.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The fallback of every router: no such path.
pub async fn not_found(uri: axum::http::Uri) -> Refusal {
    Refusal::new(ProblemKind::NotFound, format!("there is no {}", uri.path().chars().take(200).collect::<String>()))
}

/// The fallback of every path: no such method.
pub async fn method_not_allowed(method: axum::http::Method) -> Refusal {
    Refusal::new(ProblemKind::MethodNotAllowed, format!("{method} does not fit this path"))
}
