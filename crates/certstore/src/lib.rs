//! certstore: keeps what others seal and sign, and can open none of it.
//!
//! ```text
//! PUT    /v1/bundles/SITE            issuer      GET  edge (own pool), issuer, admin
//! PUT    /v1/routes/SITE             issuer      GET  edge (own pool), issuer, admin
//! PUT    /v1/challenges/HOST/TOKEN   issuer      GET  edge, issuer, admin       DELETE  issuer
//! PUT    /v1/ring                    admin       GET  edge, issuer, admin
//! PUT    /v1/accounts                issuer      GET  edge, issuer, admin
//! PUT    /v1/checkpoints/POOL        issuer      GET  edge (own pool), issuer, admin
//! GET    /v1/feed?after=&limit=&wait=            edge (own pool), issuer, admin
//!
//! PUT    /v1/rotations/ID            admin       GET  edge, issuer, admin       also GET /v1/rotations
//! POST   /v1/rotations/ID/approval   admin, another one than who proposed it
//! POST   /v1/rotations/ID/abort, .../verification, .../retirements              admin
//! POST   /v1/rotations/ID/rewraps    admin, edge (own pool)
//! GET    /v1/sealed?after=&pool=&lacking=&legacy=                               admin, edge (own pool)
//! GET    /v1/inventory               admin
//! PUT    /v1/edges/POOL/NAME         that edge   DELETE  admin                  GET /v1/edges  admin
//! POST   /v1/edges/POOL/NAME/admission           admin
//! PUT    /v1/drills/POOL             admin
//! ```
//!
//! Every write carries a signature that is checked before it is stored: bundles, routes, challenges, account lists and
//! checkpoints by an issuer of the key ring, the key ring and rotation plans by the security team. Edges check again:
//! certstore is not trusted. Stanzas are not signed: whoever holds the unseal key tells good from bad.

mod api;
mod config;
mod feed;
mod fleet;
mod metrics;
pub mod migrate;
mod records;
mod rotation;
mod rotation_api;
mod sweep;
mod vault;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use certseal_seal::VerifyingKey;
use certseal_service::{
    Shutdown, config as files,
    server::{self, Limits},
    telemetry,
};
use certseal_store::{PostgresStore, SledOptions, SledStore, Storage};
use tokio::task::JoinHandle;

pub use config::{Config, Postgres};

use config::Engine;

use vault::Vault;

/// A started certstore.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    server: JoinHandle<()>,
    sweeper: JoinHandle<()>,
}

impl Running {
    /// Waits until the shutdown is complete.
    ///
    /// # Errors
    /// When a task of the daemon panicked.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.server.await.context("the server task ended early")?;
        self.sweeper.await.context("the sweeper task ended early")
    }
}

/// Opens the store and starts to listen.
///
/// # Errors
/// When a file of the configuration is not usable, the store does not open, or the address is taken.
pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    let tls = config.tls.server_config()?;
    let security = VerifyingKey::from_pem(&files::read(&config.security_key)?)
        .with_context(|| config.security_key.display().to_string())?;
    let listener = server::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let options = SledOptions { reserve_bytes: config.reserve_bytes, ..SledOptions::default() };
    let engine = config.engine()?;
    let storage = tokio::task::spawn_blocking(move || match engine {
        Engine::Sled(directory) => {
            SledStore::open(&directory, options).map(|store| Arc::new(store) as Arc<dyn Storage>)
        }
        Engine::Postgres(options) => PostgresStore::open(*options).map(|store| Arc::new(store) as Arc<dyn Storage>),
    });
    let storage = storage.await??;
    let (metrics, registry) = metrics::Metrics::new();
    let vault = Arc::new(Vault::new(storage, security, metrics)?);

    if let Some(address) = config.telemetry {
        let readiness = vault.clone();
        let ready = Arc::new(move || readiness.healthy().map_err(|e| e.to_string()));
        telemetry::start(address, registry, ready, shutdown.clone()).await?;
    }
    let sweeper = tokio::spawn(sweep::run(vault.clone(), shutdown.clone()));
    let app = api::router(vault, shutdown.clone());
    let limits = Limits { connections: config.max_connections, ..Limits::default() };
    let server = tokio::spawn(server::serve_mtls(listener, tls, config.trust_domain, app, limits, shutdown));
    tracing::info!(%address, "certstore is listening");
    Ok(Running { address, server, sweeper })
}
