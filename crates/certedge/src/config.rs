//! The configuration file.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use certseal_seal::LegacySuite;
use certseal_service::{
    networks::Network,
    server,
    tls::{CERTMAN, Peer},
};
use certseal_wire::PoolName;
use serde::Deserialize;

use crate::upstream::networks::DENIED;

/// certedge's configuration; `deploy/certedge.toml` is an example with comments.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The pool that this edge is in.
    pub pool: PoolName,
    /// Where visitors reach it over TLS.
    pub https: SocketAddr,
    /// Where it answers ACME challenges, and sends visitors to `https`.
    pub http: SocketAddr,
    /// Where health and metrics are served in the clear; nowhere when absent.
    pub telemetry: Option<SocketAddr>,
    /// The port of `https` as visitors know it.
    #[serde(default = "default_https_port")]
    pub public_https_port: u16,
    /// The directory of the mirror; made when it is missing.
    pub mirror: PathBuf,
    /// The pool's unseal keys: files, each readable by its owner only, PKCS#11 URIs, and directories. Of a directory,
    /// every file `*.key` is a key and every file `*.uri` holds a PKCS#11 URI. Looked at again every few seconds: a key
    /// that comes is loaded, one that goes is forgotten, the last one too.
    pub unseal_keys: Vec<PathBuf>,
    /// Key pairs of formats from before certseal. Their files are looked at like those of `unseal_keys`.
    #[serde(default)]
    pub legacy_keys: Vec<LegacyKeyFile>,
    /// The public key, PEM, of the security team, which signs the key ring.
    pub security_key: PathBuf,
    /// Memory for certificate chains and unsealed keys, in octets.
    #[serde(default = "default_cache_bytes")]
    pub cache_bytes: u64,
    /// How to reach certstore.
    pub store: Peer,
    /// The process that signs, where it is not this one.
    #[serde(default)]
    pub signer: Signer,
    /// The edge's reports of itself, and its drills.
    #[serde(default)]
    pub reports: Reports,
    /// The limits of visitors and upstreams.
    #[serde(default)]
    pub limits: Limits,
    /// Names that visitors want and no site has are asked for; they are not when absent.
    pub on_demand: Option<OnDemand>,
}

/// How names that visitors want and no site has are asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnDemand {
    /// How to reach certman, which decides.
    pub certman: Certman,
    /// Names that are asked for in a minute for each visitor's address, with IPv6 each /64.
    #[serde(default = "default_per_address")]
    pub per_address: NonZeroU32,
    /// For each domain: the last two labels.
    #[serde(default = "default_per_domain")]
    pub per_domain: NonZeroU32,
    /// In all.
    #[serde(default = "default_in_all")]
    pub in_all: NonZeroU32,
    /// How long a name that may have no certificate is not asked for again, in seconds; 1 to 86,400.
    #[serde(default = "default_remember")]
    pub remember_seconds: u64,
    /// A certificate chain, PEM, for names that have none; their handshakes fail without it.
    pub fallback_certificate: Option<PathBuf>,
    /// Its private key, PEM; readable by its owner only.
    pub fallback_key: Option<PathBuf>,
}

/// Where certman is, and our identity there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certman {
    /// Such as `https://certman.internal:7444`; several, separated by commas.
    pub url: String,
    /// The private CA that certman must be certified by, PEM.
    pub ca: PathBuf,
    /// Our certificate chain, PEM.
    pub certificate: PathBuf,
    /// Our private key, PEM; readable by its owner only.
    pub key: PathBuf,
    /// The revocation list of the private CA, PEM or DER.
    pub crl: Option<PathBuf>,
    /// The names that certman may have in its SPIFFE ID, `service/NAME`.
    #[serde(default = "certman_names")]
    pub names: Vec<String>,
}

impl Certman {
    pub(crate) fn peer(&self) -> Peer {
        let Self { url, ca, certificate, key, crl, names } = self.clone();
        Peer { url, ca, certificate, key, crl, names }
    }
}

/// The process that signs: `certedge signer`. Both processes read this.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signer {
    /// Its Unix socket. A signer that the edge starts itself has one of its own without this.
    pub socket: Option<PathBuf>,
    /// The user id that the signer has to run as, for the edge to talk to it; the edge's own when absent.
    pub uid: Option<u32>,
    /// The user id that an edge has to run as, for the signer to talk to it; the signer's own when absent.
    pub allow_uid: Option<u32>,
    /// The signer's memory for opened keys, in octets.
    pub cache_bytes: u64,
}

impl Default for Signer {
    fn default() -> Self {
        Self { socket: None, uid: None, allow_uid: None, cache_bytes: 128 * 1024 * 1024 }
    }
}

/// The edge's reports of itself, and its drills, which open sealed keys at random. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reports {
    /// Between two reports to certstore.
    pub every: u64,
    /// Between two drills; 0 for none but those that are asked for.
    pub drill_every: u64,
    /// How many keys of each epoch and suite a drill opens.
    pub drill_sample: u32,
}

impl Default for Reports {
    fn default() -> Self {
        Self { every: 15, drill_every: 60 * 60, drill_sample: 50 }
    }
}

/// A key pair that a platform sealed its keys to before.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LegacyKeyFile {
    /// How keys are sealed to it: rsa-oaep-sha256, rsa-oaep-sha1 or ecies-secp256k1.
    #[serde(deserialize_with = "legacy_suite")]
    pub suite: LegacySuite,
    /// The private half, readable by its owner only: PEM of an RSA key, or a secp256k1 scalar in hexadecimal digits.
    pub file: PathBuf,
}

fn legacy_suite<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<LegacySuite, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = LegacySuite::ALL.map(LegacySuite::name).join(", ");
    let unknown = || serde::de::Error::custom(format!("expected one of {known}, got {name:?}"));
    LegacySuite::ALL.into_iter().find(|suite| suite.name() == name).ok_or_else(unknown)
}

/// The limits of visitors and upstreams. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of visitors at one time, to each of the two ports.
    pub connections: usize,
    /// Connections from one address (with IPv6: one /64) at one time, to each of the two ports.
    pub per_address: usize,
    /// After so long a connection ends with its request under way, and an upgraded one within a minute.
    pub lifetime: u64,
    /// Requests to upstreams that are under way at one time, from their header to the end of their response.
    pub requests: usize,
    /// Of them, from one address (with IPv6: one /64). Its share of `memory` is the same part.
    pub requests_per_address: usize,
    /// Of them, for one site. Its shares of `memory` and of `upgrades` are the same part.
    pub requests_per_site: usize,
    /// Memory for the requests under way, in octets: so much is kept free for what each could need, by the length of its
    /// bodies.
    pub memory: u64,
    /// Connections that were upgraded, to WebSocket, at one time.
    pub upgrades: usize,
    /// From accepting a connection to the end of its TLS handshake.
    pub handshake: u64,
    /// From there to the first octet, and from one request to the end of the next one's header.
    pub header: u64,
    /// On a connection where no octet moves in either direction.
    pub idle: u64,
    /// For the next 16 KiB of a response to be read.
    pub unread: u64,
    /// How long open requests may go on after the shutdown has begun.
    pub drain: u64,
    /// Connecting to an upstream.
    pub connect: u64,
    /// From the last octet of a request to the header of its response.
    pub response: u64,
    /// Where no upstream may be, whether a route states the address or a name leads there; an IPv6 address that stands for an
    /// IPv4 address counts as both. A list in the configuration takes the place of the whole default.
    pub denied_upstreams: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Self {
        let server::Limits { connections, per_address, lifetime, handshake, header, idle, unread, drain, .. } =
            server::Limits::default();
        Self {
            connections,
            per_address,
            lifetime: lifetime.as_secs(),
            requests: 10_000,
            requests_per_address: 500,
            requests_per_site: 2_500,
            memory: 1024 * 1024 * 1024,
            upgrades: connections,
            handshake: handshake.as_secs(),
            header: header.as_secs(),
            idle: idle.as_secs(),
            unread: unread.as_secs(),
            drain: drain.as_secs(),
            connect: 5,
            response: 60,
            denied_upstreams: DENIED.to_vec(),
        }
    }
}

impl Limits {
    /// The limits of the listeners.
    pub(crate) fn server(&self) -> server::Limits {
        server::Limits {
            connections: self.connections,
            per_address: self.per_address,
            lifetime: Duration::from_secs(self.lifetime),
            handshake: Duration::from_secs(self.handshake),
            header: Duration::from_secs(self.header),
            idle: Duration::from_secs(self.idle),
            unread: Duration::from_secs(self.unread),
            http2: true,
            drain: Duration::from_secs(self.drain),
        }
    }
}

fn certman_names() -> Vec<String> {
    vec![CERTMAN.to_owned()]
}

fn default_per_address() -> NonZeroU32 {
    const { NonZeroU32::new(10).unwrap() }
}

fn default_per_domain() -> NonZeroU32 {
    const { NonZeroU32::new(60).unwrap() }
}

fn default_in_all() -> NonZeroU32 {
    const { NonZeroU32::new(600).unwrap() }
}

fn default_remember() -> u64 {
    300
}

fn default_https_port() -> u16 {
    443
}

fn default_cache_bytes() -> u64 {
    256 * 1024 * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_parses_and_states_the_defaults() {
        let config: Config = toml::from_str(include_str!("../../../deploy/certedge.toml")).unwrap();
        assert_eq!((config.limits, config.signer), (Limits::default(), Signer::default()));
        assert_eq!((config.public_https_port, config.cache_bytes), (default_https_port(), default_cache_bytes()));
        assert_eq!((config.reports, config.legacy_keys), (Reports::default(), Vec::new()));
        assert!(config.on_demand.is_none());
    }
}
