//! Listeners: bounded connections, time-outs on everything before a request is there, graceful shutdown.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use certseal_wire::TrustDomain;
use hyper::{Request, Response, body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tower::ServiceExt;

pub use crate::counts::Counts;

use crate::{
    Shutdown,
    delivery::{Deliveries, Sent},
    lively::Lively,
    shares::{Shares, network},
    tls::{self, LiveTls},
};

/// The limits of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at one time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Connections from one address (with IPv6: one /64) at one time; further ones are closed at once.
    pub per_address: usize,
    /// After so long a connection ends with its request under way, however lively it is. One that was upgraded ends a minute
    /// later at most.
    pub lifetime: Duration,
    /// From accepting a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// From the handshake to the first octet, from one request's end to the end of the next one's header (HTTP/1), and
    /// of silence after a ping (HTTP/2).
    pub header: Duration,
    /// How long a connection may stay open on which no octet moves in either direction.
    pub idle: Duration,
    /// For the next piece of a response, 16 KiB at most, to be read: a stream whose response nobody reads is reset, a
    /// connection over HTTP/1 closed.
    pub unread: Duration,
    /// Whether HTTP/2 is spoken, too.
    pub http2: bool,
    /// How long open requests may go on after the shutdown has begun.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            per_address: 2_500,
            lifetime: Duration::from_secs(60 * 60),
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            unread: Duration::from_secs(60),
            http2: true,
            drain: Duration::from_secs(10),
        }
    }
}

/// Opens a listening socket.
///
/// # Errors
/// Names the address, and says what to do when it is in use.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => ": another process listens there; stop it, or configure another port",
            io::ErrorKind::PermissionDenied => ": ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "",
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{hint}"))
    })
}

/// Where connections come from.
pub trait Listener: Send + 'static {
    /// The octets of a connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and what is at its other end.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Whom the connection is of, by whose share it counts. A listener behind a load balancer reads that from the
    /// connection's first octets: it has [`Limits::handshake`] for it, and holds up nobody else.
    fn identify(
        stream: Self::Stream,
        peer: SocketAddr,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send {
        async move { Ok((stream, peer)) }
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }
}

/// Serves connections until the shutdown begins, then lets open requests end.
///
/// `greet` turns a new connection into a byte stream and the service for its requests; it runs within
/// `limits.handshake`. When it answers None, the connection is closed. Whenever `cut` moves, all connections end as soon as
/// their requests are answered.
pub async fn serve<L, G, F, I, S>(
    mut listener: L,
    limits: Limits,
    counts: Counts,
    shutdown: Shutdown,
    cut: watch::Receiver<u64>,
    greet: G,
) where
    L: Listener,
    G: Fn(L::Stream, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Option<(I, S)>> + Send,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    // More than the semaphore can count is no limit.
    let places = limits.connections.min(MAX_PLACES);
    let slots = Arc::new(Semaphore::new(places));
    let addresses = Shares::default();
    let most = u64::try_from(limits.per_address).unwrap_or(u64::MAX);
    let mut begun = pin!(shutdown.begun());
    loop {
        // Closing the semaphore is not done, so acquiring a slot does not fail.
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            () = &mut begun => break,
        };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: waiting lets others close.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut begun => break,
        };
        let (addresses, counts) = (addresses.clone(), counts.clone());
        let (greet, mut cut, ending) = (greet.clone(), cut.clone(), shutdown.clone());
        // A change before this connection was there does not count.
        cut.mark_unchanged();
        let (limits, deliveries) = (limits.clone(), Deliveries::new(limits.unread, counts.clone()));
        tokio::spawn(async move {
            let greeted = async {
                let (stream, peer) = L::identify(stream, peer)
                    .await
                    .inspect_err(|error| tracing::debug!(%peer, %error, "nobody knows whose connection it is"))
                    .ok()?;
                let Some(place) = addresses.take(network(peer.ip()), 1, most) else {
                    counts.add_refused();
                    tracing::debug!(%peer, "connection refused: its address has too many");
                    return None;
                };
                let (io, service) = greet(stream, peer).await?;
                Some((io, service, place))
            };
            let Ok(Some((io, service, place))) = timeout(limits.handshake, greeted).await else { return };
            let held = (slot, place);
            let longest = limits.lifetime.saturating_add(LONGEST_END);
            let io = TokioIo::new(Lively::new(io, held, limits.header, limits.idle, longest));
            let service = hyper::service::service_fn(move |request| {
                let answer = service.call(request);
                async move { answer.await.map(Sent::response) }
            });
            let http = http(&limits, deliveries.clone());
            let mut connection = pin!(http.serve_connection_with_upgrades(io, service).into_owned());
            let is_cut = async {
                if cut.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let ends = async {
                tokio::select! {
                    () = is_cut => {}
                    () = ending.begun() => {}
                    () = tokio::time::sleep(limits.lifetime) => {}
                }
            };
            let to_its_end = async {
                tokio::select! {
                    outcome = connection.as_mut() => return outcome,
                    () = ends => connection.as_mut().graceful_shutdown(),
                }
                timeout(LONGEST_END, connection).await.unwrap_or(Ok(()))
            };
            let outcome = tokio::select! {
                outcome = deliveries.watch(to_its_end) => outcome.unwrap_or(Ok(())),
                () = deliveries.hopeless() => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
    drop(listener);
    // All places are free once all connections have ended; there are few enough to count.
    let ended = slots.acquire_many(places as u32);
    if timeout(limits.drain, ended).await.is_err() {
        tracing::warn!("some requests were still open at the end of the drain time");
    }
}

/// Serves `app` in the clear.
pub async fn serve_plain(listener: TcpListener, app: Router, limits: Limits, shutdown: Shutdown) {
    serve(listener, limits, Counts::default(), shutdown, never(), move |stream, _| {
        let app = app.clone();
        async move { Some((stream, requests_to(app, |_| ()))) }
    })
    .await;
}

/// Where a request came from: an extension of every request over mTLS.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

/// Serves `app` over mTLS. Every request carries the [`certseal_wire::Caller`] and the [`PeerAddress`] as extensions.
/// With every new TLS configuration old connections end, so that who was let in is asked again who it is.
pub async fn serve_mtls(
    listener: TcpListener,
    tls: LiveTls,
    domain: TrustDomain,
    app: Router,
    limits: Limits,
    shutdown: Shutdown,
) {
    let turns = Arc::new(Semaphore::new(HANDSHAKES));
    serve(listener, limits, Counts::default(), shutdown, tls.generations(), move |stream, peer| {
        let (config, app, domain, turns) = (tls.current(), app.clone(), domain.clone(), turns.clone());
        async move {
            let stream = handshake(stream, config, &turns)
                .await
                .inspect_err(|error| tracing::info!(%peer, %error, "TLS handshake refused"))
                .ok()?;
            let certificate = stream.get_ref().1.peer_certificates()?.first()?;
            let caller = tls::caller(certificate, &domain)
                .inspect_err(|error| tracing::warn!(%peer, error, "caller refused"))
                .ok()?;
            let prepare = move |request: &mut Request<Incoming>| {
                request.extensions_mut().insert(caller.clone());
                request.extensions_mut().insert(PeerAddress(peer));
            };
            Some((stream, requests_to(app, prepare)))
        }
    })
    .await;
}

/// A handshake in its turn: a fleet that comes at one time must not keep those waiting who are in. Silent clients take no
/// turn, and slow ones give theirs back.
async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    turns: &Semaphore,
) -> io::Result<TlsStream<TcpStream>> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let turn = turns.acquire().await;
    let mut handshake = pin!(hello.into_stream(config));
    match timeout(LONGEST_TURN, handshake.as_mut()).await {
        Ok(outcome) => outcome,
        Err(_) => {
            drop(turn);
            handshake.await
        }
    }
}

/// For a listener whose connections nothing cuts.
pub fn never() -> watch::Receiver<u64> {
    watch::channel(0).1
}

/// The HTTP of one connection. Memory is bounded by what is said here: octets that nobody takes wait in windows and buffers.
fn http(limits: &Limits, streams: Deliveries) -> auto::Builder<Deliveries> {
    let mut http = auto::Builder::new(streams);
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits.header).max_buf_size(64 * 1024);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.header)
        .max_concurrent_streams(100)
        .initial_stream_window_size(STREAM_BYTES as u32)
        .max_send_buf_size(STREAM_BYTES)
        .max_header_list_size(64 * 1024);
    if limits.http2 { http } else { http.http1_only() }
}

/// The service of one connection: `app`, with each request prepared by `prepare`.
fn requests_to(
    app: Router,
    prepare: impl Fn(&mut Request<Incoming>) + Send + 'static,
) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Send + 'static {
    hyper::service::service_fn(move |mut request| {
        prepare(&mut request);
        app.clone().oneshot(request.map(Body::new))
    })
}

/// Handshakes that are computed at one time.
const HANDSHAKES: usize = 16;

/// How long a handshake keeps its turn.
const LONGEST_TURN: Duration = Duration::from_millis(50);

/// How long a connection that is to end may go on with what is under way: longer than the longest poll.
const LONGEST_END: Duration = Duration::from_secs(60);

/// The octets that a stream of HTTP/2 may have waiting in each direction: for the upstream, and for a client that does
/// not read. It gets past that by a piece of 16 KiB at most.
pub const STREAM_BYTES: usize = 64 * 1024;

/// As many permits as are surely countable.
const MAX_PLACES: usize = 1 << 24;

#[cfg(test)]
mod tests;
