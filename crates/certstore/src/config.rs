//! The configuration file.

use std::{net::SocketAddr, path::PathBuf};

use certseal_service::tls::TlsFiles;
use certseal_wire::TrustDomain;
use serde::Deserialize;

/// certstore's configuration; `deploy/certstore.toml` is an example with comments.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where edges, certman and certctl reach it.
    pub listen: SocketAddr,
    /// Where health and metrics are served in the clear; nowhere when absent.
    pub telemetry: Option<SocketAddr>,
    /// The directory of the database; made when it is missing.
    pub data_dir: PathBuf,
    /// The trust domain of callers' SPIFFE IDs.
    pub trust_domain: TrustDomain,
    /// The security team's public key, PEM: who signs the key ring.
    pub security_key: PathBuf,
    /// Our identity and the private CA.
    pub tls: TlsFiles,
    /// Free space below which writes are refused, in octets.
    #[serde(default = "default_reserve")]
    pub reserve_bytes: u64,
    /// Connections at one time.
    #[serde(default = "default_connections")]
    pub max_connections: usize,
}

fn default_reserve() -> u64 {
    certseal_store::SledOptions::default().reserve_bytes
}

fn default_connections() -> usize {
    10_000
}
