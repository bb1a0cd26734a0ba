//! Requests over TLS: to the upstream of the site that they are for.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use certseal_resolver::Mirror;
use certseal_service::{HeldUntilSent, Shutdown, server::STREAM_BYTES, shares::network};
use certseal_wire::{DnsName, Endpoint, Origin, Route};
use http::{Method, Request, Response, StatusCode, Uri, Version, uri::Scheme};
use hyper::{
    body::{Body as _, Incoming, SizeHint},
    upgrade::OnUpgrade,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};

use crate::{
    admission::{Admission, OfAddress, OfSite, Over},
    answer,
    config::Limits,
    headers,
    host::Host,
    metrics::{Listener, Metrics},
    upload::Upload,
    upstreams::{self, Denied},
};

/// Passes requests on.
pub(crate) struct Proxy {
    mirror: Arc<Mirror>,
    upstreams: Client<HttpConnector<upstreams::Resolver>, Upload>,
    denied: Denied,
    /// Counts requests to sites with several upstreams.
    turn: AtomicU64,
    admission: Admission,
    response: Duration,
    metrics: Metrics,
    shutdown: Shutdown,
}

/// Who is at the other end of a connection, and which certificate they were shown.
pub(crate) struct Visitor {
    pub(crate) address: IpAddr,
    pub(crate) server_name: DnsName,
}

impl Proxy {
    pub(crate) fn new(mirror: Arc<Mirror>, limits: &Limits, metrics: Metrics, shutdown: Shutdown) -> Self {
        let denied = Denied::new(&limits.denied_upstreams);
        let mut tcp = HttpConnector::new_with_resolver(upstreams::Resolver::new(denied.clone()));
        tcp.set_connect_timeout(Some(Duration::from_secs(limits.connect)));
        tcp.set_nodelay(true);
        let upstreams = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_SIZE)
            .http1_max_buf_size(MAX_HEADER)
            .build(tcp);
        Self {
            mirror,
            upstreams,
            denied,
            turn: AtomicU64::new(0),
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
                let answer = self.forward(visitor, request).await;
                let (mut response, place) = match answer {
                    Ok((response, place)) => (response, Some(place)),
                    Err(Refusal::Status(status)) => (answer::refusal(status), None),
                    Err(Refusal::Over(over)) => (self.refuse(over, version), None),
                };
                response.extensions_mut().insert(HeldUntilSent::new((share, place)));
                response
            }
            Err(over) => self.refuse(over, version),
        };
        self.metrics.answered(Listener::Https, response.status());
        response
    }

    /// The server whose turn it is.
    fn endpoint<'r>(&self, route: &'r Route) -> Option<&'r Endpoint> {
        match route.upstreams.as_slice() {
            [] => None,
            [only] => Some(only),
            several => upstreams::in_turn(several, self.turn.fetch_add(1, Ordering::Relaxed)),
        }
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
        let host = Host::of(&request)?;
        let route = destination(|name| self.mirror.route(name), &visitor.server_name, host.name.as_ref())?;
        let upstream = self.endpoint(&route).ok_or(StatusCode::NOT_FOUND)?;
        if request.method() == Method::CONNECT {
            return Err(StatusCode::NOT_IMPLEMENTED.into());
        }
        if let Some(address) = upstreams::literal(&upstream.origin).filter(|address| !self.denied.allows(*address)) {
            self.metrics.upstream_failed();
            tracing::info!(site = %route.site, %address, "no upstream may have this address");
            return Err(StatusCode::BAD_GATEWAY.into());
        }
        let memory = |octets| self.admission.memory.of_both(network(visitor.address), &route.site, octets);
        let place = self.admission.requests.of_site(&route.site, 1)?;
        let base = memory(REQUEST_BYTES)?;
        let upload = match request.body().is_end_stream() {
            true => None,
            false => Some(memory(memory_of(&request.body().size_hint()))?),
        };
        let upgrade = match request.version() == Version::HTTP_11 && headers::wants_websocket(request.headers()) {
            true => {
                let slot = self.admission.upgrades.of_both(network(visitor.address), &route.site, 1)?;
                // It outlives the request and what that has.
                Some((hyper::upgrade::on(&mut request), [slot, memory(REQUEST_BYTES)?]))
            }
            false => None,
        };

        let (mut parts, body) = request.into_parts();
        parts.uri = target(&upstream.origin, &parts.uri)?;
        // WebSocket is not offered over HTTP/2, and what asks for it there asks for nothing.
        headers::for_upstream(&mut parts.headers, visitor.address, &host.sent, upgrade.is_some());
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let (body, progress) = Upload::new(body, upload);
        let asked = self.upstreams.request(Request::from_parts(parts, body));
        let response = match progress.wait_for(self.response, asked).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => {
                self.metrics.upstream_failed();
                tracing::info!(site = %route.site, error = %causes(&error), "no answer from an upstream");
                return Err(StatusCode::BAD_GATEWAY.into());
            }
            None => {
                self.metrics.upstream_failed();
                tracing::info!(site = %route.site, seconds = self.response.as_secs(), "an upstream does not answer");
                return Err(StatusCode::GATEWAY_TIMEOUT.into());
            }
        };
        let download = memory(memory_of(&response.body().size_hint()))?;
        let response = self.backward(response, upgrade)?;
        Ok((response, Place { _request: place, _memory: [base, download] }))
    }

    fn backward(
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

/// What a request has of the bounds until its response has left.
struct Place {
    _request: OfSite,
    _memory: [(OfAddress, OfSite); 2],
}

/// What an upgraded connection has of the bounds: its place among them, and memory.
type Slot = [(OfAddress, OfSite); 2];

/// Why a request is not passed on.
enum Refusal {
    Status(StatusCode),
    Over(Over),
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

/// Where a request goes that came over a connection for `server_name` and is for `host`.
///
/// # Errors
/// 404 where no site has that host, 421 where it belongs to another site than the connection (RFC 9110, 15.5.20).
fn destination(
    route: impl Fn(&DnsName) -> Option<Arc<Route>>,
    server_name: &DnsName,
    host: Option<&DnsName>,
) -> Result<Arc<Route>, StatusCode> {
    let host = host.ok_or(StatusCode::NOT_FOUND)?;
    let found = route(host).ok_or(StatusCode::NOT_FOUND)?;
    if host == server_name || route(server_name).is_some_and(|shown| shown.site == found.site) {
        return Ok(found);
    }
    Err(StatusCode::MISDIRECTED_REQUEST)
}

/// The upstream's origin with the request's path and query.
fn target(upstream: &Origin, uri: &Uri) -> Result<Uri, StatusCode> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(upstream.authority())
        .path_and_query(path)
        .build()
        .map_err(|_| StatusCode::BAD_REQUEST)
}

/// An error with the causes behind it, which hyper keeps out of its own message.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Shorter than the time after which common servers close idle connections, so that we close first.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Idle connections to one upstream.
const POOL_SIZE: usize = 64;

/// The largest header of a response, in octets, and the largest part of a body that is read at one time.
const MAX_HEADER: usize = 64 * 1024;

/// Memory of a request without its bodies: header fields, both connections' state and smallest buffers.
pub(crate) const REQUEST_BYTES: u64 = 48 * 1024;

/// The most that is kept of a body: what waits in the stream, a part in between, and the buffer of the other connection.
pub(crate) const BODY_BYTES: u64 = (STREAM_BYTES + 2 * MAX_HEADER) as u64;

#[cfg(test)]
mod tests {
    use certseal_wire::HttpsMode;

    use super::*;

    #[test]
    fn a_request_goes_to_the_site_of_its_connection_only() {
        let routes = [("a.example", &["a.example", "www.a.example"][..]), ("b.example", &["b.example"])];
        let route = |name: &DnsName| {
            let (site, names) = routes.iter().find(|(_, names)| names.contains(&name.as_str()))?;
            Some(Arc::new(Route {
                site: site.parse().unwrap(),
                names: names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap(),
                version: 1,
                pools: Vec::new(),
                upstreams: Vec::new(),
                https: HttpsMode::Redirect,
            }))
        };
        let to = |server_name: &str, host: &str| {
            let host = host.parse().ok();
            destination(route, &server_name.parse().unwrap(), host.as_ref()).map(|route| route.site.to_string())
        };
        assert_eq!(to("a.example", "a.example"), Ok("a.example".into()));
        assert_eq!(to("a.example", "www.a.example"), Ok("a.example".into()));
        assert_eq!(to("a.example", "b.example"), Err(StatusCode::MISDIRECTED_REQUEST));
        assert_eq!(to("a.example", "c.example"), Err(StatusCode::NOT_FOUND));
        assert_eq!(to("a.example", "127.0.0.1"), Err(StatusCode::NOT_FOUND));
        assert_eq!(to("c.example", "a.example"), Err(StatusCode::MISDIRECTED_REQUEST));
    }

    #[test]
    fn the_target_keeps_path_and_query() {
        let upstream: Origin = "http://10.0.0.7:8080".parse().unwrap();
        for (uri, want) in [
            ("/a%20b?c=d", "http://10.0.0.7:8080/a%20b?c=d"),
            ("https://a.example/x", "http://10.0.0.7:8080/x"),
            ("https://a.example", "http://10.0.0.7:8080/"),
        ] {
            assert_eq!(target(&upstream, &uri.parse().unwrap()).unwrap(), want);
        }
    }
}
