//! certstore, certman and certedge in one process, on loopback, with a private PKI of their own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use anyhow::Context;
use certman::{AuthorityConfig, DnsConfig};
use certseal_ceremonies::{
    keys::{self, KeyPlace, NewPool},
    pki::{self, PkiOptions},
    ring_client::RingClient,
};
use certseal_client::{CertmanClient, Connection, StoreClient};
use certseal_seal::{RingMark, SigningKey, Suite, VerifyingKey};
use certseal_service::{
    Shutdown, config as files,
    tls::{CERTMAN, CERTSTORE, Peer},
};
use certseal_wire::PoolName;

/// The options of the platform to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where keys, certificates and databases go; it must not hold a PKI yet.
    pub dir: PathBuf,
    /// An ACME directory and the file of CAs that may certify it. None: a local CA.
    pub acme: Option<(String, PathBuf)>,
    /// How certman looks at names before it orders. None: it does not.
    pub dns: Option<DnsConfig>,
    /// The edge's HTTPS port on loopback; 0 for any.
    pub https_port: u16,
    /// The edge's HTTP port on loopback; 0 for any.
    pub http_port: u16,
}

/// A started platform.
#[derive(Debug)]
pub struct Platform {
    /// For adding sites.
    pub certman: CertmanClient,
    /// The pool that the edge belongs to.
    pub pool: PoolName,
    /// Where the edge serves HTTPS.
    pub https: SocketAddr,
    /// The root of the local CA, when that is the issuer.
    pub local_root: Option<PathBuf>,
    running: (certstore::Running, certman::Running, certedge::Running),
}

/// Makes the PKI, starts certstore, gives the pool its unseal key, and starts certman and certedge.
///
/// # Errors
/// When the directory cannot be written, a port is taken, or a daemon does not start.
pub async fn start(options: &Options, shutdown: &Shutdown) -> anyhow::Result<Platform> {
    let dir = &options.dir;
    let pki_dir = dir.join("pki");
    let pool: PoolName = "local".parse()?;
    let pki_options = PkiOptions { pools: vec![pool.clone()], ..PkiOptions::default() };
    pki::init(&pki_dir, &pki_options).context("cannot make the private PKI")?;
    let trust_domain = pki_options.trust_domain;

    let certstore = certstore::start(
        certstore::Config {
            listen: loopback(0),
            telemetry: None,
            data_dir: Some(dir.join("certstore")),
            postgres: None,
            trust_domain: trust_domain.clone(),
            security_key: pki_dir.join("security.pub"),
            tls: pki::tls_files(&pki_dir, "certstore"),
            reserve_bytes: 64 * 1024 * 1024,
            retention: Default::default(),
            audit_files: None,
            requests_per_second: const { NonZeroU32::new(1000).unwrap() },
            snapshot_dir: None,
            max_connections: 1000,
        },
        shutdown.clone(),
    )
    .await
    .context("certstore does not start")?;
    let store_url = format!("https://{}", certstore.address);
    let unseal_key = make_unseal_key(&pki_dir, &pool, &store_url).await.context("cannot make the unseal key")?;

    let (authority, local_root) = authority(options, &pki_dir)?;
    let certman = certman::start(
        certman::Config {
            listen: loopback(0),
            telemetry: None,
            data_dir: dir.join("certman"),
            postgres: None,
            trust_domain,
            security_key: pki_dir.join("security.pub"),
            issuer_key: pki_dir.join("issuer.key"),
            tls: pki::tls_files(&pki_dir, "certman-server"),
            store: Peer::new(store_url.clone(), pki::tls_files(&pki_dir, "certman")),
            authority,
            workers: 16,
            retry_seconds: 60,
            checkpoint_seconds: 30,
            reorders_per_day: 0,
            requests_per_second: const { NonZeroU32::new(1_000).unwrap() },
            groups: certman::GroupsConfig::default(),
            dns: options.dns.clone(),
            further_authorities: Vec::new(),
            webhooks: None,
            on_demand: None,
            warm_up: None,
        },
        shutdown.clone(),
    )
    .await
    .context("certman does not start")?;

    let config = edge_config(options, &pki_dir, &pool, store_url, unseal_key)?;
    let certedge = certedge::start(config, shutdown.clone()).await.context("certedge does not start")?;
    let platform_tls = pki::tls_files(&pki_dir, "platform").client_config(&[CERTMAN])?;
    let client = CertmanClient::new(Connection::new(format!("https://{}", certman.address).parse()?, platform_tls));
    Ok(Platform { certman: client, pool, https: certedge.https, local_root, running: (certstore, certman, certedge) })
}

impl Platform {
    /// Waits until all daemons have stopped.
    ///
    /// # Errors
    /// When one of them panicked.
    pub async fn finished(self) -> anyhow::Result<()> {
        let (certstore, certman, certedge) = self.running;
        certedge.finished().await?;
        certman.finished().await?;
        certstore.finished().await
    }
}

async fn make_unseal_key(pki_dir: &Path, pool: &PoolName, store_url: &str) -> anyhow::Result<PathBuf> {
    let admin = pki::tls_files(pki_dir, "admin").client_config(&[CERTSTORE])?;
    let store = StoreClient::new(Connection::new(store_url.parse()?, admin));
    let security = SigningKey::from_pem(&files::read_private(&pki_dir.join("security.key"))?)?;
    let issuer = VerifyingKey::from_pem(&files::read(&pki_dir.join("issuer.pub"))?)?;
    let out = pki_dir.join(format!("{pool}-1.unseal.pem"));
    let new = NewPool {
        pool: pool.clone(),
        suite: Suite::P256,
        out: KeyPlace::File(out.clone()),
        issuers: &[issuer],
        seen: RingMark::default(),
    };
    let rings = RingClient::new(&store, security.verifying_key(), &pki_dir.join("state"));
    keys::generate(&rings, &security, &new).await?;
    Ok(out)
}

fn authority(options: &Options, pki_dir: &Path) -> anyhow::Result<(AuthorityConfig, Option<PathBuf>)> {
    if let Some((directory, roots)) = options.acme.clone() {
        let authority = AuthorityConfig::Acme {
            directory,
            roots,
            profile: None,
            preferred_chain: None,
            account_key: None,
            external_account: None,
            limits: None,
            overrides: Default::default(),
            caa_identities: None,
            challenges: Vec::new(),
            public_suffix_list: None,
        };
        return Ok((authority, None));
    }
    pki::local_ca(pki_dir, "certseal development CA")?;
    let (certificate, key) = (pki_dir.join("local-ca.pem"), pki_dir.join("local-ca.key"));
    let lifetime_seconds = 90 * 24 * 3600;
    Ok((AuthorityConfig::Local { certificate: certificate.clone(), key, lifetime_seconds }, Some(certificate)))
}

fn edge_config(
    options: &Options,
    pki_dir: &Path,
    pool: &PoolName,
    store_url: String,
    unseal_key: PathBuf,
) -> anyhow::Result<certedge::Config> {
    // Redirects name the port, so it must be known before the edge listens.
    let https = match options.https_port {
        0 => std::net::TcpListener::bind(loopback(0))?.local_addr()?,
        port => loopback(port),
    };
    Ok(certedge::Config {
        pool: pool.clone(),
        https,
        http: loopback(options.http_port),
        telemetry: None,
        public_https_port: https.port(),
        mirror: options.dir.join("mirror"),
        unseal_keys: vec![unseal_key],
        security_key: pki_dir.join("security.pub"),
        cache_bytes: 256 * 1024 * 1024,
        store: Peer::new(store_url, pki::tls_files(pki_dir, &format!("edge-{pool}"))),
        signer: certedge::SignerConfig::default(),
        reports: certedge::Reports::default(),
        legacy_keys: Vec::new(),
        on_demand: None,
        // One machine, often with few files to open, and all visitors from one address.
        limits: certedge::Limits {
            connections: 1000,
            per_address: 1000,
            requests: 1000,
            requests_per_address: 1000,
            requests_per_site: 1000,
            upgrades: 1000,
            ..Default::default()
        },
    })
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
