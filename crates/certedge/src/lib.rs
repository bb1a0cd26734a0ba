//! certedge: terminates TLS with keys that stay sealed until a handshake is signed, and passes requests on.
//!
//! ```text
//!   HTTPS  ClientHello -> SealedResolver -> request -> route of its host -> upstream
//!          ClientHello with acme-tls/1 alone -> certstore -> verified -> certificate that answers
//!   HTTP   /.well-known/acme-challenge/TOKEN -> certstore -> verified -> answer;  anything else -> 308 to HTTPS
//!
//!   certstore --feed--> Follower -> Mirror: where certificates and routes come from, with certstore down too
//! ```
//!
//! `listen` accepts, `tls` shakes hands, `exchange` takes a request through its stages, `upstream` has the servers behind,
//! `keys` what opens envelopes, `acme` what CAs ask for, `demand` asks for names that no site has. This file puts them together.
//!
//! The keys may be in a process of their own that only signs: see [`KeysIn`].
//!
//! It acts on nothing that certman or the security team did not sign. It starts from its mirror in constant time.

mod acme;
mod config;
mod demand;
mod exchange;
mod keys;
mod listen;
mod metrics;
mod report;
mod tls;
mod upstream;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use certseal_client::{Connection, StoreClient};
use certseal_resolver::{Follower, Mirror, SealedResolver};
use certseal_seal::VerifyingKey;
use certseal_service::{Shutdown, config as files, server, telemetry, tls::own_name};
use tokio::{sync::Notify, task::JoinHandle};

pub use certseal_service::networks::Network;
pub use config::{
    Certman as CertmanConfig, Config, LegacyKeyFile, Limits, OnDemand as OnDemandConfig, Reports,
    Signer as SignerConfig,
};
pub use keys::{KeysIn, signer::run_signer};

use acme::challenges::Challenges;
use demand::Demand;
use exchange::{Exchanges, admission, plain::Plain};
use keys::{Keys, child::SignerChild};
use listen::{Https, serve_http, serve_https};
use metrics::Metrics;
use report::Reporter;
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
    admission::check(&config.limits)?;
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
    let mut tls = VisitorTls::new(resolver.clone())?;
    if let Some(certificate) = config.on_demand.as_ref().map(demand::fallback).transpose()?.flatten() {
        tls = tls.with_fallback(resolver.clone(), certificate)?;
    }
    let demand = config.on_demand.as_ref().map(|it| Demand::new(it, mirror.clone(), metrics.clone())).transpose()?;
    let (demand, asking) = demand.unzip();
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
    let exchanges = Exchanges::new(mirror.clone(), &config.limits, metrics.clone(), shutdown.clone());
    let challenges = Arc::new(Challenges::new(mirror.clone(), store));
    let plain = Plain::new(mirror, challenges.clone(), config.public_https_port, metrics.clone());
    let https_side = Https { tls, challenges, exchanges: Arc::new(exchanges), metrics, demand };
    let limits = config.limits.server();
    // In the clear there is nothing but short answers.
    let plain_limits = server::Limits { http2: false, ..limits.clone() };
    let servers = [
        tokio::spawn(serve_https(listeners.0, visitors.clone(), Arc::new(https_side), limits, shutdown.clone())),
        tokio::spawn(serve_http(listeners.1, visitors, Arc::new(plain), plain_limits, shutdown.clone())),
    ];
    let watch = keys.watch(resolver, keys_changed);
    let follower = tokio::spawn(async move {
        tokio::select! {
            () = follower.run() => {}
            () = reporter.run() => {}
            () = async { match asking { Some(asking) => asking.run().await, None => std::future::pending().await } } => {}
            // Without a watch the keys stay as they are, and the others go on.
            () = async { watch.await; std::future::pending().await } => {}
            () = shutdown.begun() => {}
        }
    });
    tracing::info!(%https, %http, pool = %config.pool, "certedge is listening");
    Ok(Running { https, http, telemetry, servers, follower, _signer: signer })
}
