//! The configuration file.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use certseal_service::tls::{Peer, TlsFiles};
use certseal_wire::TrustDomain;
use serde::Deserialize;

/// certman's configuration; `deploy/certman.toml` is an example with comments.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the platform and certctl reach it.
    pub listen: SocketAddr,
    /// Where health and metrics are served in the clear; nowhere when absent.
    pub telemetry: Option<SocketAddr>,
    /// The directory of sites, orders and ACME account keys; made when it is missing.
    pub data_dir: PathBuf,
    /// The trust domain of callers' SPIFFE IDs.
    pub trust_domain: TrustDomain,
    /// The public key, PEM, of the security team, which signs the key ring.
    pub security_key: PathBuf,
    /// Our signing key, PEM; readable by its owner only.
    pub issuer_key: PathBuf,
    /// Our identity as a server, and the private CA.
    pub tls: TlsFiles,
    /// Where certstore is, and our identity there.
    pub store: Peer,
    /// The signer of the certificates.
    pub authority: Authority,
    /// Orders at one time.
    #[serde(default = "default_workers")]
    pub workers: usize,
    /// The wait after a first rejected order, in seconds; 10 times longer after each further one, a day at most.
    #[serde(default = "default_retry")]
    pub retry_seconds: u64,
    /// Between two checkpoints of a pool, in seconds; 1 to 300.
    #[serde(default = "default_checkpoint")]
    pub checkpoint_seconds: u64,
    /// Certificates that are ordered again in a day because certstore says that it lost them. Those beyond wait, or are
    /// ordered by an operator with `certctl site lost --order`; with 0 all do.
    #[serde(default = "default_reorders")]
    pub reorders_per_day: u32,
    /// Requests a second that each caller may make.
    #[serde(default = "default_rate")]
    pub requests_per_second: NonZeroU32,
    /// Envelopes that share a content key.
    #[serde(default)]
    pub groups: Groups,
}

/// Envelopes that share a content key, which is in memory as long as their group is open. `SECURITY.md` says what that
/// costs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Groups {
    /// Envelopes in one group; 1 to 10,000. With 1 each has a content key of its own, which is wiped at once.
    pub size: u32,
    /// How long a group may be open, in seconds; 1 to 86,400.
    pub max_age_seconds: u32,
}

impl Default for Groups {
    fn default() -> Self {
        Self { size: 1, max_age_seconds: 3600 }
    }
}

/// The signer of the certificates.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase", tag = "kind")]
pub enum Authority {
    /// A CA in this process, for development and private networks.
    Local {
        /// The CA's certificate, PEM.
        certificate: PathBuf,
        /// The CA's private key, PEM; readable by its owner only.
        key: PathBuf,
        /// How long certificates are valid, in seconds.
        #[serde(default = "default_lifetime")]
        lifetime_seconds: i64,
    },
    /// An ACME CA (RFC 8555), with http-01.
    Acme {
        /// The directory's URL.
        directory: String,
        /// The CAs that may certify the ACME server, PEM.
        #[serde(default = "default_roots")]
        roots: PathBuf,
        /// The certificate profile to ask for; the CA's default when absent.
        profile: Option<String>,
    },
}

fn default_workers() -> usize {
    16
}

fn default_retry() -> u64 {
    60
}

fn default_rate() -> NonZeroU32 {
    const { NonZeroU32::new(1_000).unwrap() }
}

fn default_checkpoint() -> u64 {
    30
}

fn default_reorders() -> u32 {
    100
}

fn default_lifetime() -> i64 {
    90 * 24 * 3600
}

fn default_roots() -> PathBuf {
    "/etc/ssl/certs/ca-certificates.crt".into()
}
