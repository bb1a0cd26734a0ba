//! One request and its response, over TLS: from the visitor to the upstream of the site that it is for, and back.
//!
//! ```text
//! admit (address) -> choose -> admit (site, memory, upgrade) -> send -> receive -> count
//! ```

pub(crate) mod admission;
pub(crate) mod answer;
mod choose;
mod headers;
pub(crate) mod host;
pub(crate) mod plain;
mod upload;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::body::Body;
use certseal_resolver::Mirror;
use certseal_service::{HeldUntilSent, Shutdown, shares::network};
use certseal_wire::{DnsName, Endpoint, Route, causes};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::{
    body::{Body as _, Incoming, SizeHint},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;

use self::{
    admission::{Admission, BODY_BYTES, MAX_HEADER, OfAddress, OfSite, Over, REQUEST_BYTES},
    choose::destination,
    host::Host,
    upload::{Memory, Upload},
};
use crate::{
    config::Limits,
    metrics::{Listener, Metrics},
    upstream::{Upstreams, target},
};

/// Has requests answered by upstreams.
pub(crate) struct Exchanges {
    mirror: Arc<Mirror>,
    upstreams: Upstreams<Upload>,
    admission: Admission,
    response: Duration,
    metrics: Metrics,
    shutdown: Shutdown,
}

/// The client at the other end of a connection, and the certificate that it was shown.
pub(crate) struct Visitor {
    pub(crate) address: IpAddr,
    pub(crate) server_name: DnsName,
    /// The certificate is the one for names that have none.
    pub(crate) is_fallback: bool,
}

impl Exchanges {
    pub(crate) fn new(mirror: Arc<Mirror>, limits: &Limits, metrics: Metrics, shutdown: Shutdown) -> Self {
        Self {
            mirror,
            upstreams: Upstreams::new(limits, MAX_HEADER),
            admission: Admission::new(limits),
            response: Duration::from_secs(limits.response),
            metrics,
            shutdown,
        }
    }

    /// Answers one request: with its upstream's response, or with a refusal.
    pub(crate) async fn answer(&self, visitor: &Visitor, request: Request<Incoming>) -> Response<Body> {
        let version = request.version();
        // Of a refusal, too: it may be left unread like any other answer.
        let response = match self.admission.requests.of_address(network(visitor.address), 1) {
            Ok(share) => {
                let (mut response, place) = match self.forward(visitor, request).await {
                    Ok((response, place)) => (response, Some(place)),
                    Err(Refusal::Status(status)) => (answer::refusal(status), None),
                    Err(Refusal::Over(over)) => (self.refuse(over, version), None),
                    Err(Refusal::NoCertificate) => (answer::no_certificate(), None),
                };
                response.extensions_mut().insert(HeldUntilSent::new((share, place)));
                response
            }
            Err(over) => self.refuse(over, version),
        };
        self.metrics.answered(Listener::Https, response.status());
        response
    }

    fn refuse(&self, over: Over, version: Version) -> Response<Body> {
        self.metrics.refused(over);
        answer::busy(over, version)
    }

    async fn forward(
        &self,
        visitor: &Visitor,
        mut request: Request<Incoming>,
    ) -> Result<(Response<Body>, Place), Refusal> {
        if visitor.is_fallback {
            return Err(Refusal::NoCertificate);
        }
        let host = Host::of(&request)?;
        let route = destination(|name| self.mirror.route(name), &visitor.server_name, host.name.as_ref())?;
        let endpoint = self.choose(&route, request.method())?;
        let admitted = self.admit(visitor, &route, &mut request)?;
        let Admitted { place, base, upload, upgrade } = admitted;
        let request = outgoing(request, visitor, &host, endpoint, upgrade.is_some())?;
        let response = self.send(&route, request, upload).await?;
        let download = self.memory(visitor, &route, memory_of(&response.body().size_hint()))?;
        let response = self.receive(response, upgrade)?;
        Ok((response, Place { _request: place, _memory: [base, download] }))
    }

    /// The server that the request goes to.
    fn choose<'r>(&self, route: &'r Route, method: &Method) -> Result<&'r Endpoint, Refusal> {
        let endpoint = self.upstreams.next(route).ok_or(StatusCode::NOT_FOUND)?;
        if method == Method::CONNECT {
            return Err(StatusCode::NOT_IMPLEMENTED.into());
        }
        if let Some(address) = self.upstreams.forbidden(endpoint) {
            self.metrics.upstream_failed();
            tracing::info!(site = %route.site, %address, "no upstream may have this address");
            return Err(StatusCode::BAD_GATEWAY.into());
        }
        Ok(endpoint)
    }

    /// Takes what the request needs of the bounds.
    fn admit(&self, visitor: &Visitor, route: &Route, request: &mut Request<Incoming>) -> Result<Admitted, Refusal> {
        let place = self.admission.requests.of_site(&route.site, 1)?;
        let base = self.memory(visitor, route, REQUEST_BYTES)?;
        let upload = if request.body().is_end_stream() {
            None
        } else {
            Some(self.memory(visitor, route, memory_of(&request.body().size_hint()))?)
        };
        let upgrade = if request.version() == Version::HTTP_11 && headers::wants_websocket(request.headers()) {
            let slot = self.admission.upgrades.of_both(network(visitor.address), &route.site, 1)?;
            // It outlives the request and what that has.
            let memory = self.memory(visitor, route, REQUEST_BYTES)?;
            Some((hyper::upgrade::on(request), [slot, memory]))
        } else {
            None
        };
        Ok(Admitted { place, base, upload, upgrade })
    }

    fn memory(&self, visitor: &Visitor, route: &Route, octets: u64) -> Result<Memory, Over> {
        self.admission.memory.of_both(network(visitor.address), &route.site, octets)
    }

    /// Sends the request to the upstream, and waits for the header of its response.
    async fn send(
        &self,
        route: &Route,
        request: Request<Incoming>,
        memory: Option<Memory>,
    ) -> Result<Response<Incoming>, Refusal> {
        let (parts, body) = request.into_parts();
        let (body, progress) = Upload::new(body, memory);
        let asked = self.upstreams.send(Request::from_parts(parts, body));
        match progress.wait_for(self.response, asked).await {
            Some(Ok(response)) => Ok(response),
            Some(Err(error)) => {
                self.metrics.upstream_failed();
                tracing::info!(site = %route.site, error = causes(&error), "no answer from an upstream");
                Err(StatusCode::BAD_GATEWAY.into())
            }
            None => {
                self.metrics.upstream_failed();
                tracing::info!(site = %route.site, seconds = self.response.as_secs(), "an upstream does not answer");
                Err(StatusCode::GATEWAY_TIMEOUT.into())
            }
        }
    }

    /// The upstream's response as the visitor gets it.
    fn receive(
        &self,
        mut response: Response<Incoming>,
        upgrade: Option<(OnUpgrade, Slot)>,
    ) -> Result<Response<Body>, StatusCode> {
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match (is_upgrade, upgrade) {
            (true, Some((visitor, slot))) => self.join(visitor, hyper::upgrade::on(&mut response), slot),
            (true, None) => {
                self.metrics.upstream_failed();
                return Err(StatusCode::BAD_GATEWAY);
            }
            (false, _) => {}
        }
        let (mut parts, body) = response.into_parts();
        headers::for_visitor(&mut parts.headers, is_upgrade);
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        Ok(Response::from_parts(parts, Body::new(body)))
    }

    /// Copies octets between two upgraded connections until one ends, nothing moves for long, or the shutdown begins.
    fn join(&self, visitor: OnUpgrade, upstream: OnUpgrade, slot: Slot) {
        let shutdown = self.shutdown.clone();
        let joined = async move {
            let (visitor, upstream) = tokio::try_join!(visitor, upstream).map_err(std::io::Error::other)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(visitor), &mut TokioIo::new(upstream)).await
        };
        tokio::spawn(async move {
            let _slot = slot;
            tokio::select! {
                ended = joined => if let Err(error) = ended {
                    tracing::debug!(%error, "an upgraded connection ended");
                },
                () = shutdown.begun() => {}
            }
        });
    }
}

/// The request as the upstream gets it.
fn outgoing(
    request: Request<Incoming>,
    visitor: &Visitor,
    host: &Host,
    endpoint: &Endpoint,
    is_upgrade: bool,
) -> Result<Request<Incoming>, StatusCode> {
    let (mut parts, body) = request.into_parts();
    parts.uri = target(&endpoint.origin, &parts.uri)?;
    // WebSocket is not offered over HTTP/2, and what asks for it there asks for nothing.
    headers::for_upstream(&mut parts.headers, visitor.address, &host.sent, is_upgrade);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Ok(Request::from_parts(parts, body))
}

/// The shares of the bounds that a request got.
struct Admitted {
    place: OfSite,
    base: Memory,
    upload: Option<Memory>,
    upgrade: Option<(OnUpgrade, Slot)>,
}

/// The shares of the bounds that a request has until its response has left.
struct Place {
    _request: OfSite,
    _memory: [Memory; 2],
}

/// The shares of the bounds that an upgraded connection has: its place among them, and memory.
type Slot = [(OfAddress, OfSite); 2];

/// Why a request is not passed on.
enum Refusal {
    Status(StatusCode),
    Over(Over),
    /// The connection shows none of the site's.
    NoCertificate,
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self::Status(status)
    }
}

impl From<Over> for Refusal {
    fn from(over: Over) -> Self {
        Self::Over(over)
    }
}

/// Memory for a body of which so much is still to come.
fn memory_of(length: &SizeHint) -> u64 {
    length.upper().unwrap_or(u64::MAX).min(BODY_BYTES)
}
