//! Upstreams: which server a request goes to, where servers may be, and connections to them.

pub(crate) mod endpoints;
pub(crate) mod networks;

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use certseal_service::networks::Denied;
use certseal_wire::{Endpoint, Origin, Route};
use http::{Request, StatusCode, Uri, uri::Scheme};
use hyper::body::Body;
use hyper_util::{
    client::legacy::{Client, ResponseFuture, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::config::Limits;
use networks::Resolver;

/// Connections to all upstreams, for requests with bodies of type `B`.
pub(crate) struct Upstreams<B> {
    client: Client<HttpConnector<Resolver>, B>,
    denied: Denied,
    /// Counts requests to sites with several servers.
    turn: AtomicU64,
}

impl<B> Upstreams<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    /// `max_header` bounds the header of a response, and the part of a body that is read at one time.
    pub(crate) fn new(limits: &Limits, max_header: usize) -> Self {
        let denied = Denied::new(&limits.denied_upstreams);
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(denied.clone()));
        tcp.set_connect_timeout(Some(Duration::from_secs(limits.connect)));
        tcp.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_SIZE)
            .http1_max_buf_size(max_header)
            .build(tcp);
        Self { client, denied, turn: AtomicU64::new(0) }
    }

    /// The server whose turn it is.
    pub(crate) fn next<'r>(&self, route: &'r Route) -> Option<&'r Endpoint> {
        match route.upstreams.as_slice() {
            [] => None,
            [only] => Some(only),
            several => endpoints::in_turn(several, self.turn.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// The address of a server that states one where none may be.
    pub(crate) fn forbidden(&self, endpoint: &Endpoint) -> Option<IpAddr> {
        networks::literal(&endpoint.origin).filter(|address| !self.denied.allows(*address))
    }

    /// Sends a request whose URI is the upstream's.
    pub(crate) fn send(&self, request: Request<B>) -> ResponseFuture {
        self.client.request(request)
    }
}

/// The origin of a server with the request's path and query.
pub(crate) fn target(origin: &Origin, uri: &Uri) -> Result<Uri, StatusCode> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(origin.authority())
        .path_and_query(path)
        .build()
        .map_err(|_| StatusCode::BAD_REQUEST)
}

/// Shorter than the time after which common servers close idle connections, so that we close first.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Idle connections to one upstream.
const POOL_SIZE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

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
