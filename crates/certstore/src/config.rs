//! The configuration file.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

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
    /// How long what nobody needs any more is kept.
    #[serde(default)]
    pub retention: Retention,
    /// Where older entries of the audit log go; all stay in the database when absent.
    pub audit_files: Option<AuditFiles>,
    /// Requests a second that each caller may make.
    #[serde(default = "default_rate")]
    pub requests_per_second: NonZeroU32,
    /// Where snapshots for readers are kept, which can be made anew; in the directory of the database when absent.
    pub snapshot_dir: Option<PathBuf>,
    /// Connections at one time.
    #[serde(default = "default_connections")]
    pub max_connections: usize,
}

/// Files for older entries of the audit log, one JSON document on a line.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditFiles {
    /// Where they are made; the directory too, when it is missing. Nothing here is ever removed.
    pub directory: PathBuf,
    /// How many entries stay in the database at least.
    #[serde(default = "default_kept_entries")]
    pub keep_entries: u64,
    /// How many entries go into one file.
    #[serde(default = "default_file_entries")]
    pub entries_per_file: u64,
}

fn default_kept_entries() -> u64 {
    1_000_000
}

fn default_file_entries() -> u64 {
    100_000
}

/// How long what nobody needs any more is kept, in seconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// A bundle after its certificate expired.
    pub expired_seconds: u64,
    /// A bundle, with its sealed key, after its site left: the time to take that back.
    pub departed_seconds: u64,
    /// The tombstone of a bundle. An edge that was away for longer reads everything anew.
    pub tombstone_seconds: u64,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self { expired_seconds: 30 * DAY, departed_seconds: 7 * DAY, tombstone_seconds: 30 * DAY }
    }
}

fn default_reserve() -> u64 {
    certseal_store::SledOptions::default().reserve_bytes
}

fn default_rate() -> NonZeroU32 {
    const { NonZeroU32::new(20_000).unwrap() }
}

fn default_connections() -> usize {
    10_000
}
