//! Requests in the clear: ACME challenges are answered, everything else is sent to HTTPS.

use std::sync::Arc;

use axum::body::Body;
use certseal_resolver::Mirror;
use certseal_wire::{Challenge, DnsName};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
};

use crate::{
    acme::challenges::{Challenges, Unanswered},
    exchange::{answer, host::Host},
    metrics::{Listener, Metrics},
};

/// Answers on the port without TLS.
pub(crate) struct Plain {
    mirror: Arc<Mirror>,
    challenges: Arc<Challenges>,
    https_port: u16,
    metrics: Metrics,
}

impl Plain {
    /// `https_port` is the port of HTTPS as visitors know it.
    pub(crate) fn new(mirror: Arc<Mirror>, challenges: Arc<Challenges>, https_port: u16, metrics: Metrics) -> Self {
        Self { mirror, challenges, https_port, metrics }
    }

    /// Answers one request.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Response<Body> {
        let response = self.respond(&request).await.unwrap_or_else(answer::refusal);
        self.metrics.answered(Listener::Http, response.status());
        response
    }

    async fn respond<B>(&self, request: &Request<B>) -> Result<Response<Body>, StatusCode> {
        let host = Host::of(request)?.name.ok_or(StatusCode::NOT_FOUND)?;
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path().strip_prefix(CHALLENGES) {
            Some(token) if is_read && Challenge::is_token(token) => Ok(self.challenge(&host, token).await),
            Some(_) => Err(StatusCode::NOT_FOUND),
            None => {
                self.mirror.route(&host).ok_or(StatusCode::NOT_FOUND)?;
                redirect(&host, self.https_port, request.uri())
            }
        }
    }

    async fn challenge(&self, host: &DnsName, token: &str) -> Response<Body> {
        if let Some(answer) = self.challenges.probed(token) {
            return key_authorization(answer);
        }
        match self.challenges.answer(host, token).await {
            Ok(answer) => {
                self.metrics.challenge_answered();
                key_authorization(answer)
            }
            // A host that is not served here has none, whoever can be asked.
            Err(_) if self.mirror.route(host).is_none() => answer::refusal(StatusCode::NOT_FOUND),
            Err(Unanswered::Unknown) => answer::text(StatusCode::NOT_FOUND, "there is no such challenge\n"),
            Err(Unanswered::Unavailable) => {
                let response = answer::refusal(StatusCode::SERVICE_UNAVAILABLE);
                answer::with(response, RETRY_AFTER, HeaderValue::from_static(answer::RETRY_SECONDS))
            }
        }
    }
}

fn key_authorization(text: String) -> Response<Body> {
    let octets = HeaderValue::from_static("application/octet-stream");
    answer::with(Response::new(Body::from(text)), CONTENT_TYPE, octets)
}

/// The same place over HTTPS. 308 keeps the method (RFC 9110, 15.4.9).
fn redirect(host: &DnsName, port: u16, uri: &Uri) -> Result<Response<Body>, StatusCode> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let location = match port {
        _ if !path.starts_with('/') => return Err(StatusCode::BAD_REQUEST),
        443 => format!("https://{host}{path}"),
        port => format!("https://{host}:{port}{path}"),
    };
    let location = HeaderValue::from_str(&location).map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(answer::with(
        answer::text(StatusCode::PERMANENT_REDIRECT, "this site is served over HTTPS\n"),
        LOCATION,
        location,
    ))
}

/// RFC 8555, 8.3.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_the_same_place_over_https() {
        let host: DnsName = "a.example".parse().unwrap();
        let location = |port, uri: &str| {
            let response = redirect(&host, port, &uri.parse().unwrap()).unwrap();
            assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
            response.headers()[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(location(443, "/x?y=z"), "https://a.example/x?y=z");
        assert_eq!(location(8443, "http://a.example/x"), "https://a.example:8443/x");
        assert_eq!(location(443, "//evil.example/x"), "https://a.example//evil.example/x");
        assert!(redirect(&host, 443, &"*".parse().unwrap()).is_err());
    }
}
