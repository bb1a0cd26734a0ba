//! certedge: terminates TLS with keys that stay sealed until a handshake is signed, and passes requests on.
//!
//! ```text
//!   HTTPS  ClientHello -> SealedResolver -> request -> route of its host -> upstream
//!   HTTP   /.well-known/acme-challenge/TOKEN -> certstore -> verified -> answer;  anything else -> 308 to HTTPS
//!
//!   certstore --feed--> Follower -> Mirror: where certificates and routes come from, with certstore down too
//! ```
//!
//! The keys may be in a process of their own that only signs: see [`KeysIn`].
//!
//! It acts on nothing that certman or the security team did not sign. It starts from its mirror in constant time.

mod admission;
mod answer;
mod challenge;
mod config;
mod headers;
mod host;
mod key_files;
mod keys;
mod metrics;
mod plain;
mod proxy;
mod report;
mod signer;
mod signer_child;
mod tls;
mod upload;
mod upstreams;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use certseal_client::{Connection, StoreClient};
use certseal_resolver::{Follower, Mirror, SealedResolver};
use certseal_seal::VerifyingKey;
use certseal_service::{Shutdown, config as files, server, telemetry, tls::own_name};
use http::Request;
use hyper::body::Incoming;
use rustls::HandshakeKind;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::server::TlsStream;

pub use config::{Config, LegacyKeyFile, Limits, Reports, Signer as SignerConfig};
pub use keys::KeysIn;
pub use signer::run_signer;
pub use upstreams::Network;

use challenge::Challenges;
use keys::Keys;
use metrics::{Handshake, Metrics};
use plain::Plain;
use proxy::{Proxy, Visitor};
use report::Reporter;
use signer_child::SignerChild;
use tls::VisitorTls;

/// A started certedge.
#[derive(Debug)]
pub struct Running {
    /// Where it serves HTTPS.
    pub https: SocketAddr,
    /// Where it answers challenges, and redirects.
    pub http: SocketAddr,
    /// Where it serves health and metrics.
    pub telemetry: Option<SocketAddr>,
    servers: [JoinHandle<()>; 2],
    follower: JoinHandle<()>,
    /// Until no handshake is under way any more.
    _signer: Option<SignerChild>,
}

impl Running {
    /// Waits until the shutdown is complete.
    ///
    /// # Errors
    /// When a task of the daemon panicked.
    pub async fn finished(self) -> anyhow::Result<()> {
        for server in self.servers {
            server.await.context("a server task ended early")?;
        }
        self.follower.await.context("the follower task ended early")
    }
}

/// Opens the mirror and starts to serve from it; the feed is followed in the background.
///
/// # Errors
/// When a file of the configuration is not usable, a token does not have its key, a key is of another pool, the mirror does
/// not open, or an address is taken. It is no error when certstore cannot be reached.
pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    start_with(config, KeysIn::ThisProcess, shutdown).await
}

/// The same with keys that may be in another process. It is no error when one that was started apart cannot be reached.
///
/// # Errors
/// As of [`start`]. When the child does not start.
pub async fn start_with(config: Config, keys_in: KeysIn, shutdown: Shutdown) -> anyhow::Result<Running> {
    let (keys, signer) = Keys::start(&config, keys_in).await?;
    config.limits.check()?;
    let holder = keys.holder();
    let name = own_name(&config.store.certificate)?;
    let security = VerifyingKey::from_pem(&files::read(&config.security_key)?)
        .with_context(|| config.security_key.display().to_string())?;
    let url = config.store.url.parse().with_context(|| format!("store.url {:?}", config.store.url))?;
    let store = StoreClient::new(Connection::new(url, config.store.client_config()?));
    let listeners = (server::bind(config.https).await?, server::bind(config.http).await?);
    let (https, http) = (listeners.0.local_addr()?, listeners.1.local_addr()?);

    let (path, pool) = (config.mirror.clone(), config.pool.clone());
    let mirror = tokio::task::spawn_blocking(move || Mirror::open(&path, pool, security)).await??;
    let mirror = Arc::new(mirror);
    let resolver = SealedResolver::with_holder(mirror.clone(), holder.clone(), config.cache_bytes);
    // After the resolver, which has the mirror refuse what its keys cannot open.
    let follower = Follower::new(mirror.clone(), store.clone());
    let status = follower.status();
    let reported = status.clone();
    let visitors = server::Counts::default();
    let (metrics, mut registry) =
        Metrics::new(mirror.clone(), resolver.clone(), holder.clone(), status.clone(), visitors.clone());
    keys.register(&mut registry);

    let telemetry = match config.telemetry {
        Some(address) => {
            let (mirror, holder, can_sign) = (mirror.clone(), holder.clone(), keys.readiness());
            let ready = Arc::new(move || can_sign().and_then(|()| metrics::ready(&mirror, &*holder, &status.borrow())));
            Some(telemetry::start(address, registry, ready, shutdown.clone()).await?)
        }
        None => None,
    };
    let tls = Arc::new(VisitorTls::new(resolver.clone())?);
    let keys_changed = Arc::new(Notify::new());
    let reporter = Reporter {
        name,
        mirror: mirror.clone(),
        holder,
        store: store.clone(),
        follower: reported,
        metrics: metrics.clone(),
        every: Duration::from_secs(config.reports.every.max(1)),
        drills: (config.reports.drill_every > 0).then(|| Duration::from_secs(config.reports.drill_every)),
        sample: config.reports.drill_sample,
        keys_changed: keys_changed.clone(),
    };
    let proxy = Proxy::new(mirror.clone(), &config.limits, metrics.clone(), shutdown.clone());
    let challenges = Challenges::new(mirror.clone(), store);
    let plain = Plain::new(mirror, challenges, config.public_https_port, metrics.clone());
    let limits = config.limits.server();
    // In the clear there is nothing but short answers.
    let plain_limits = server::Limits { http2: false, ..limits.clone() };
    let servers = [
        tokio::spawn(serve_https(
            listeners.0,
            visitors.clone(),
            tls,
            Arc::new(proxy),
            metrics,
            limits,
            shutdown.clone(),
        )),
        tokio::spawn(serve_http(listeners.1, visitors, Arc::new(plain), plain_limits, shutdown.clone())),
    ];
    let watch = keys.watch(resolver, keys_changed);
    let follower = tokio::spawn(async move {
        tokio::select! {
            () = follower.run() => {}
            () = reporter.run() => {}
            // Without a watch the keys stay as they are, and the others go on.
            () = async { watch.await; std::future::pending().await } => {}
            () = shutdown.begun() => {}
        }
    });
    tracing::info!(%https, %http, pool = %config.pool, "certedge is listening");
    Ok(Running { https, http, telemetry, servers, follower, _signer: signer })
}

async fn serve_https(
    listener: TcpListener,
    counts: server::Counts,
    tls: Arc<VisitorTls>,
    proxy: Arc<Proxy>,
    metrics: Metrics,
    limits: server::Limits,
    shutdown: Shutdown,
) {
    server::serve(listener, limits, counts, shutdown, server::never(), move |stream, peer| {
        let (tls, proxy, metrics) = (tls.clone(), proxy.clone(), metrics.clone());
        async move {
            let (stream, visitor) = greet(&tls, &metrics, stream, peer).await?;
            let visitor = Arc::new(visitor);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (proxy, visitor) = (proxy.clone(), visitor.clone());
                async move { Ok::<_, Infallible>(proxy.answer(&visitor, request).await) }
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

async fn serve_http(
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
