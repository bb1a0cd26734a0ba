//! The two listeners: TLS for visitors, and the clear for challenges and redirects.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use certseal_service::{Shutdown, server};
use certseal_wire::DnsName;
use http::Request;
use hyper::body::Incoming;
use rustls::HandshakeKind;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use crate::{
    acme::challenges::Challenges,
    demand::Demand,
    exchange::{Exchanges, Visitor, plain::Plain},
    metrics::{Handshake, Metrics},
    tls::{Accepted, VisitorTls},
};

/// What is behind the listener for TLS.
pub(crate) struct Https {
    pub(crate) tls: VisitorTls,
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) exchanges: Arc<Exchanges>,
    pub(crate) metrics: Metrics,
    /// None where names that no site has are not asked for.
    pub(crate) demand: Option<Arc<Demand>>,
}

/// Serves HTTPS until the shutdown begins, and answers CAs that validate a name over TLS.
pub(crate) async fn serve_https(
    listener: TcpListener,
    counts: server::Counts,
    https: Arc<Https>,
    limits: server::Limits,
    shutdown: Shutdown,
) {
    server::serve(listener, limits, counts, shutdown, server::never(), move |stream, peer| {
        let https = https.clone();
        async move {
            let (stream, visitor) = https.greet(stream, peer).await?;
            let (exchanges, visitor) = (https.exchanges.clone(), Arc::new(visitor));
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (exchanges, visitor) = (exchanges.clone(), visitor.clone());
                async move { Ok::<_, Infallible>(exchanges.answer(&visitor, request).await) }
            });
            Some((stream, service))
        }
    })
    .await;
}

impl Https {
    /// The TLS handshake. With a CA there is nothing after it.
    async fn greet(&self, stream: TcpStream, peer: SocketAddr) -> Option<(TlsStream<TcpStream>, Visitor)> {
        let answer = |name: DnsName| async move { self.challenges.certificate(&name).await.ok() };
        let address = peer.ip().to_canonical();
        let failed = |name: &DnsName| self.miss(name, address);
        let accepted = self.tls.accept(stream, answer, failed).await;
        let accepted = accepted
            .inspect_err(|error| {
                self.metrics.handshake(Handshake::Failed);
                tracing::debug!(%peer, %error, "TLS handshake failed");
            })
            .ok()?;
        let (stream, is_fallback) = match accepted {
            Accepted::Visitor(stream) => (stream, false),
            Accepted::Fallback(stream) => (stream, true),
            Accepted::Validation => {
                self.metrics.handshake(Handshake::Full);
                self.metrics.challenge_answered();
                return None;
            }
        };
        let connection = stream.get_ref().1;
        self.metrics.handshake(match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            _ => Handshake::Full,
        });
        // The resolver has a certificate for no connection without a name.
        let server_name = connection.server_name()?.parse().ok()?;
        if is_fallback {
            self.miss(&server_name, address);
        }
        Some((stream, Visitor { address, server_name, is_fallback }))
    }

    /// There is no certificate for a name that a visitor wanted.
    fn miss(&self, name: &DnsName, address: IpAddr) {
        if let Some(demand) = &self.demand {
            demand.meet(name, address);
        }
    }
}

/// Serves HTTP until the shutdown begins.
pub(crate) async fn serve_http(
    listener: TcpListener,
    counts: server::Counts,
    plain: Arc<Plain>,
    limits: server::Limits,
    shutdown: Shutdown,
) {
    server::serve(listener, limits, counts, shutdown, server::never(), move |stream, _| {
        let plain = plain.clone();
        async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let plain = plain.clone();
                async move { Ok::<_, Infallible>(plain.answer(request).await) }
            });
            Some((stream, service))
        }
    })
    .await;
}
