//! The configuration file.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use certseal_service::{server, tls::Peer};
use certseal_wire::PoolName;
use serde::Deserialize;

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
    /// The pool's unseal keys: files, each readable by its owner only, and PKCS#11 URIs of keys in tokens. A URI is taken
    /// apart only when the key is opened: an error of the file's parser would show what it must not hold, a PIN.
    pub unseal_keys: Vec<PathBuf>,
    /// The security team's public key, PEM: who signs the key ring.
    pub security_key: PathBuf,
    /// Memory for certificate chains and unsealed keys, in octets.
    #[serde(default = "default_cache_bytes")]
    pub cache_bytes: u64,
    /// How to reach certstore.
    pub store: Peer,
    /// What visitors and upstreams are allowed.
    #[serde(default)]
    pub limits: Limits,
}

/// What visitors and upstreams are allowed. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of visitors at one time, to each of the two ports.
    pub connections: usize,
    /// Requests to upstreams that are under way at one time, from their header to the end of their response.
    pub requests: usize,
    /// Connections that were upgraded, to WebSocket, at one time.
    pub upgrades: usize,
    /// From accepting a connection to the end of its TLS handshake.
    pub handshake: u64,
    /// From there to the first octet, and from one request to the end of the next one's header.
    pub header: u64,
    /// On a connection where no octet moves in either direction.
    pub idle: u64,
    /// How long open requests may go on after the shutdown has begun.
    pub drain: u64,
    /// Connecting to an upstream.
    pub connect: u64,
    /// From the last octet of a request to the header of its response.
    pub response: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let server::Limits { connections, handshake, header, idle, drain } = server::Limits::default();
        Self {
            connections,
            requests: 10_000,
            upgrades: connections,
            handshake: handshake.as_secs(),
            header: header.as_secs(),
            idle: idle.as_secs(),
            drain: drain.as_secs(),
            connect: 5,
            response: 60,
        }
    }
}

impl Limits {
    pub(crate) fn server(&self) -> server::Limits {
        server::Limits {
            connections: self.connections,
            handshake: Duration::from_secs(self.handshake),
            header: Duration::from_secs(self.header),
            idle: Duration::from_secs(self.idle),
            drain: Duration::from_secs(self.drain),
        }
    }
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
        assert_eq!(config.limits, Limits::default());
        assert_eq!((config.public_https_port, config.cache_bytes), (default_https_port(), default_cache_bytes()));
    }
}
