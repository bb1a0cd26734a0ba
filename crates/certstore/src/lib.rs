//! certstore keeps keys and documents that others seal and sign, and can open none of them.
//!
//! ```text
//! PUT    /v1/bundles/SITE            issuer      GET  edge (own pool), issuer, admin
//! PUT    /v1/routes/SITE             issuer      GET  edge (own pool), issuer, admin
//! PUT    /v1/challenges/HOST/TOKEN   issuer      GET  edge, issuer, admin       DELETE  issuer
//! PUT    /v1/ring                    admin       GET  edge, issuer, admin
//! PUT    /v1/accounts                issuer      GET  edge, issuer, admin
//! PUT    /v1/checkpoints/POOL        issuer      GET  edge (own pool), issuer, admin
//! PUT    /v1/staples/SITE            issuer      GET  edge (own pool), issuer, admin
//! GET    /v1/snapshot, /v1/snapshot/DIGEST      edge (own pool), issuer, admin
//! GET    /v1/feed?after=&limit=&wait=            edge (own pool), issuer, admin
//! GET    /v1/audit?after=&limit=                 admin, issuer
//! PUT    /v1/audit/checkpoint        issuer      GET  admin, issuer
//! GET    /v1/backup, /v1/backup/TABLE           admin;  POST /v1/restore, /v1/restore/end   admin, into an empty store
//! GET    /v1/openapi.json                        every role: this interface in OpenAPI
//! GET    /v1/deletions?within=&limit=            admin
//!
//! PUT    /v1/rotations/ID            admin       GET  edge, issuer, admin       also GET /v1/rotations
//! POST   /v1/rotations/ID/approval   admin, other than the proposer
//! POST   /v1/rotations/ID/abort, .../verification, .../retirements              admin
//! POST   /v1/rotations/ID/rewraps    admin, edge (own pool)
//! GET    /v1/sealed?after=&pool=&lacking=&legacy=                               admin, edge (own pool)
//! GET    /v1/inventory               admin
//! PUT    /v1/edges/POOL/NAME         that edge   DELETE  admin                  GET /v1/edges  admin
//! POST   /v1/edges/POOL/NAME/admission           admin
//! PUT    /v1/drills/POOL             admin
//! ```
//!
//! Every write carries a signature that is checked before it is stored: bundles, routes, challenges, account lists, checkpoints
//! and OCSP answers by an issuer of the key ring, the key ring and rotation plans by the security team. Edges check again:
//! certstore is not trusted. Stanzas are not signed: the holder of the unseal key tells good from bad.
//!
//! ```text
//! http                                             one file for each family of operations
//! snapshot, feed                                   changes, for readers
//! domain                                           the rules of each kind of record
//! audit                                            the log of all changes and reads
//! vault                                            storage, the ring that counts, commits, news
//! records, documents, guards, audit_note           stored records, and the checks before
//! clock, refusal, actor, visibility, admission     no imports from above
//! ```
//!
//! A file imports from the lines below its own.

mod actor;
mod admission;
mod audit;
mod audit_note;
mod blocking;
mod clock;
mod config;
mod documents;
mod domain;
mod events;
mod feed;
mod guards;
mod http;
mod lookups;
mod metrics;
pub mod migrate;
mod records;
mod refusal;
mod snapshot;
#[cfg(test)]
mod tests;
mod vault;
mod visibility;

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, anyhow};
use certseal_seal::VerifyingKey;
use certseal_service::{
    Shutdown,
    admission::{Bodies, BodyLimits, Rates},
    config as files,
    server::{self, Limits},
    telemetry,
    tls::LiveTls,
};
use certseal_store::{PostgresStore, SledOptions, SledStore, Storage};
use tokio::task::JoinHandle;

pub use config::{AuditFiles, Config, Retention};
pub use http::openapi;

use admission::Admission;
use audit::ReadLog;
use config::Engine;
use feed::Feed;
use http::{MAX_RESTORE, Service};
use lookups::Lookups;
use snapshot::Snapshots;
use vault::Vault;

/// A started certstore.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    server: JoinHandle<()>,
    sweeper: JoinHandle<()>,
    follower: JoinHandle<()>,
}

impl Running {
    /// Waits until the shutdown is complete.
    ///
    /// # Errors
    /// When a task of the daemon panicked.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.server.await.context("the server task ended early")?;
        self.follower.await.context("the task that follows the feed ended early")?;
        self.sweeper.await.context("the sweeper task ended early")
    }
}

/// Opens the store and starts to listen.
///
/// # Errors
/// When a file of the configuration is not usable, the store does not open, or the address is taken.
pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    let (engine, snapshot_dir) = (config.engine()?, config.snapshot_dir());
    let tls = LiveTls::follow(config.tls, shutdown.clone())?;
    let security = VerifyingKey::from_pem(&files::read(&config.security_key)?)
        .with_context(|| config.security_key.display().to_string())?;
    let listener = server::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let options = SledOptions { reserve_bytes: config.reserve_bytes, ..SledOptions::default() };
    let storage = tokio::task::spawn_blocking(move || match engine {
        Engine::Sled(directory) => {
            SledStore::open(&directory, options).map(|store| Arc::new(store) as Arc<dyn Storage>)
        }
        Engine::Postgres(options) => PostgresStore::open(*options).map(|store| Arc::new(store) as Arc<dyn Storage>),
    });
    let storage = storage.await??;
    let (metrics, registry) = metrics::Metrics::new();
    let vault = Arc::new(Vault::new(storage, security, config.retention, metrics)?);
    let (admission, reads) = (Arc::new(Admission::new()), ReadLog::start(vault.clone()));
    let snapshots = Snapshots::new(vault.clone(), admission.clone(), &snapshot_dir, config.reserve_bytes)
        .with_context(|| format!("cannot use {} for snapshots", snapshot_dir.display()))?;
    let feed = Arc::new(
        Feed::new(vault.clone(), admission.clone(), reads.clone()).map_err(|refusal| anyhow!("{}", refusal.0))?,
    );

    if let Some(address) = config.telemetry {
        let readiness = vault.clone();
        let ready = Arc::new(move || readiness.healthy().map_err(|e| e.to_string()));
        telemetry::start(address, registry, ready, shutdown.clone()).await?;
    }
    let sweeper = tokio::spawn(domain::sweep::run(vault.clone(), config.audit_files, shutdown.clone()));
    let follower = tokio::spawn(feed.clone().run(shutdown.clone()));
    let rates = Arc::new(Rates::new(config.requests_per_second));
    let bodies = Bodies::new(BodyLimits::new(MAX_RESTORE));
    let lookups = Arc::new(Lookups::new(vault.clone()));
    let service = Service { vault, feed, snapshots: Arc::new(snapshots), admission, lookups, reads, rates, bodies };
    let app = http::router(service, shutdown.clone());
    let limits = Limits { connections: config.max_connections, ..Limits::default() };
    let server = tokio::spawn(server::serve_mtls(listener, tls, config.trust_domain, app, limits, shutdown));
    tracing::info!(%address, "certstore is listening");
    Ok(Running { address, server, sweeper, follower })
}
