//! The configuration file.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use certseal_service::tls::TlsFiles;
use certseal_store::{PostgresOptions, PostgresSettings};
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
    /// The directory of the embedded database; made when it is missing. Either this or `postgres`.
    pub data_dir: Option<PathBuf>,
    /// The PostgreSQL database, which several certstores can share. Either this or `data_dir`.
    pub postgres: Option<PostgresSettings>,
    /// The trust domain of callers' SPIFFE IDs.
    pub trust_domain: TrustDomain,
    /// The security team's public key, PEM, which the key ring is checked with.
    pub security_key: PathBuf,
    /// Our identity and the private CA.
    pub tls: TlsFiles,
    /// Free space below which writes are refused, and snapshots that would need it, in octets.
    #[serde(default = "default_reserve")]
    pub reserve_bytes: u64,
    /// How long records are kept that nobody needs any more.
    #[serde(default)]
    pub retention: Retention,
    /// Where older entries of the audit log go; all stay in the database when absent.
    pub audit_files: Option<AuditFiles>,
    /// Requests a second that each caller may make.
    #[serde(default = "default_rate")]
    pub requests_per_second: NonZeroU32,
    /// Where snapshots for readers are kept, which can be made anew; with the data, or where temporary files are, when absent.
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

/// How long records are kept that nobody needs any more, in seconds.
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

/// Where the data is.
#[derive(Debug, Clone)]
pub(crate) enum Engine {
    Sled(PathBuf),
    Postgres(Box<PostgresOptions>),
}

impl Config {
    /// Where snapshots for readers are kept.
    pub(crate) fn snapshot_dir(&self) -> PathBuf {
        let beside = |directory: &PathBuf| directory.join("snapshots");
        let nowhere = || std::env::temp_dir().join(format!("certstore-snapshots-{}", std::process::id()));
        self.snapshot_dir.clone().unwrap_or_else(|| self.data_dir.as_ref().map_or_else(nowhere, beside))
    }

    pub(crate) fn engine(&self) -> anyhow::Result<Engine> {
        match (&self.data_dir, &self.postgres) {
            (Some(directory), None) => Ok(Engine::Sled(directory.clone())),
            (None, Some(postgres)) => Ok(Engine::Postgres(Box::new(postgres.options()?))),
            (Some(_), Some(_)) => {
                anyhow::bail!("expected either data_dir or [postgres], came both: leave out the one that has no data")
            }
            (None, None) => {
                anyhow::bail!("expected data_dir or [postgres], came neither: say where the data is to be kept")
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_in_exactly_one_place() {
        let config = |place: &str| {
            let text = format!(
                "listen = \"127.0.0.1:0\"\n{place}\ntrust_domain = \"certseal.internal\"\nsecurity_key = \"k\"\n\
                 tls = {{ ca = \"a\", certificate = \"b\", key = \"c\" }}\n"
            );
            toml::from_str::<Config>(&text).unwrap().engine()
        };
        let (directory, database) = ("data_dir = \"d\"", "postgres = { url = \"host=127.0.0.1\" }");
        assert!(matches!(config(directory), Ok(Engine::Sled(_))));
        assert!(matches!(config(database), Ok(Engine::Postgres(_))));
        assert!(config("").is_err());
        assert!(config(&format!("{directory}\n{database}")).is_err());
        assert!(config("postgres = { url = \"host=127.0.0.1\", certificate = \"c\" }").is_err());
    }
}
