//! The two listeners: TLS for visitors, and the clear for challenges and redirects.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use certseal_service::{Shutdown, server};
use http::Request;
use hyper::body::Incoming;
use rustls::HandshakeKind;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use crate::{
    exchange::{Exchanges, Visitor, plain::Plain},
    metrics::{Handshake, Metrics},
    tls::VisitorTls,
};

/// Serves HTTPS until the shutdown begins.
pub(crate) async fn serve_https(
    listener: TcpListener,
    counts: server::Counts,
    tls: Arc<VisitorTls>,
    exchanges: Arc<Exchanges>,
    metrics: Metrics,
    limits: server::Limits,
    shutdown: Shutdown,
) {
    server::serve(listener, limits, counts, shutdown, server::never(), move |stream, peer| {
        let (tls, exchanges, metrics) = (tls.clone(), exchanges.clone(), metrics.clone());
        async move {
            let (stream, visitor) = greet(&tls, &metrics, stream, peer).await?;
            let visitor = Arc::new(visitor);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (exchanges, visitor) = (exchanges.clone(), visitor.clone());
                async move { Ok::<_, Infallible>(exchanges.answer(&visitor, request).await) }
            });
            Some((stream, service))
        }
    })
    .await;
}

/// The TLS handshake.
async fn greet(
    tls: &VisitorTls,
    metrics: &Metrics,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Visitor)> {
    let stream = tls
        .accept(stream)
        .await
        .inspect_err(|error| {
            metrics.handshake(Handshake::Failed);
            tracing::debug!(%peer, %error, "TLS handshake failed");
        })
        .ok()?;
    let connection = stream.get_ref().1;
    metrics.handshake(match connection.handshake_kind() {
        Some(HandshakeKind::Resumed) => Handshake::Resumed,
        _ => Handshake::Full,
    });
    // The resolver has a certificate for no connection without a name.
    let server_name = connection.server_name()?.parse().ok()?;
    Some((stream, Visitor { address: peer.ip().to_canonical(), server_name }))
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
