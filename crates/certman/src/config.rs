//! The configuration file.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
};

use anyhow::Context;
use certseal_issuance::budget::{Limit, LimitName, Limits};
use certseal_service::{
    networks::Network,
    tls::{Peer, TlsFiles},
};
use certseal_store::PostgresSettings;
use certseal_wire::{DnsName, PoolName, ProfileName, TrustDomain, Upstream, ValidationMethod};
use jiff::SignedDuration;
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
    /// A PostgreSQL database for sites and orders, which several processes share; in `data_dir` when absent.
    pub postgres: Option<PostgresSettings>,
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
    /// The CAs that orders go to when that one is away, or a name's CAA records allow one of these only; the first first.
    #[serde(default)]
    pub further_authorities: Vec<Authority>,
    /// Actions at one time in each of the three stages of orders: on the way to the challenge, at it, and after it.
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
    /// How names are looked at in the DNS before the CA is asked for anything; they are not when absent.
    pub dns: Option<Dns>,
    /// Where the platform hears of its sites; nowhere when absent.
    pub webhooks: Option<Webhooks>,
    /// Sites that edges ask for when visitors do; there are none when absent.
    pub on_demand: Option<OnDemand>,
    /// Edges that open the key of a site's first certificate before a visitor comes; none when absent.
    pub warm_up: Option<WarmUp>,
}

/// Edges that open the key of a site's first certificate before a visitor comes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// Where each of them serves HTTPS, such as `10.0.0.1:443`.
    pub edges: Vec<SocketAddr>,
}

/// Sites that edges ask for when visitors do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnDemand {
    /// The server behind such a site.
    pub upstream: Upstream,
    /// The pools that serve it. Edges of other pools may not ask.
    pub pools: Vec<PoolName>,
    /// Whose site it is, as in a platform's request.
    pub owner: Option<String>,
    /// What permits a name, tried in this order: one is enough.
    pub permit: Vec<Permit>,
    /// New sites in an hour for each registered domain (by the public suffix list).
    #[serde(default = "default_per_domain")]
    pub per_domain: NonZeroU32,
    /// New sites in an hour in all.
    #[serde(default = "default_in_all")]
    pub in_all: NonZeroU32,
    /// Questions in a minute of each edge.
    #[serde(default = "default_questions")]
    pub questions_per_minute: NonZeroU32,
    /// How long a name that no rule permits is not asked about again, in seconds; 1 to 86,400.
    #[serde(default = "default_remember")]
    pub remember_seconds: u64,
}

/// What permits a name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase", tag = "kind")]
pub enum Permit {
    /// It leads to the platform: what `[dns]` looks at is as it should be.
    Dns,
    /// A server says so: `GET URL?domain=NAME`, 200 for yes, 4xx for no.
    Ask {
        /// `https`, or `http` on this machine.
        url: String,
        /// The CAs that may certify the server, PEM.
        #[serde(default = "default_roots")]
        roots: PathBuf,
    },
}

/// Where the platform hears of its sites.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// The receiver: `https`, or `http` on this machine.
    pub url: String,
    /// The secrets that sign, a line each, `whsec_` and 24 to 64 octets in base64; readable by its owner only. With several,
    /// there are as many signatures, so that receivers can change from one to the next.
    pub secret_file: PathBuf,
    /// The CAs that may certify the receiver, PEM.
    #[serde(default = "default_roots")]
    pub roots: PathBuf,
    /// Events under way at one time, 1 to 64. With 1 all come in their order; with more, those of each site do.
    #[serde(default = "default_at_once")]
    pub at_once: usize,
}

/// How names are looked at in the DNS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// At least two resolvers, `10.0.0.53` or `[fd00::53]:5353`, that validate DNSSEC and see names from different places.
    pub resolvers: Vec<String>,
    /// The host that customers' names should be aliases of (CNAME).
    pub target: Option<DnsName>,
    /// The addresses of the platform's edges, which names that can be no alias have themselves.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Names for which no certificate is ordered, with all names below them.
    #[serde(default)]
    pub denied: Vec<DnsName>,
    /// Networks that are not public, and whose name servers may be asked all the same, and whose servers fetched from.
    #[serde(default)]
    pub private_networks: Vec<Network>,
    /// Whether a challenge of our own is fetched over the addresses of a name that only http-01 validates.
    #[serde(default = "default_fetch")]
    pub fetch: bool,
    /// The port at which CAs fetch answers: 80, but for CAs in tests.
    #[serde(default = "default_fetch_port")]
    pub fetch_port: u16,
    /// Other places from which it is fetched, too, as CAs do.
    #[serde(default)]
    pub vantage_points: Vec<VantagePoint>,
    /// How answers to dns-01 challenges come into the DNS; there are none when absent.
    pub challenges: Option<DnsChallenges>,
    /// A server that knows names of bad repute; none is asked when absent.
    pub reputation: Option<Reputation>,
}

/// A server that knows names of bad repute.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reputation {
    /// The question, in which `{name}` stands for the name: `https`, or `http` on this machine. The answer is 200 and JSON,
    /// `{"listed": true, "why": "phishing"}`.
    pub url: String,
    /// What follows while it does not answer.
    #[serde(default)]
    pub unavailable: WhileUnavailable,
    /// How long an answer counts, in seconds; 1 to 86,400.
    #[serde(default = "default_reputation")]
    pub remember_seconds: u64,
    /// The CAs that may certify the server, PEM.
    #[serde(default = "default_roots")]
    pub roots: PathBuf,
}

/// What follows for a name while nobody says whether it is listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhileUnavailable {
    /// It is taken for one that is not.
    #[default]
    Allow,
    /// It is unknown: it is not permitted on demand, and a site's first certificate waits.
    Refuse,
}

/// Another place from which names are looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VantagePoint {
    /// Its name in findings.
    pub name: String,
    /// The HTTP proxy there, `http://10.1.2.3:3128`, which connects to the addresses that it is told (CONNECT).
    pub proxy: String,
}

/// A zone of the platform for answers to dns-01 challenges: customers delegate `_acme-challenge` to it by a CNAME.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsChallenges {
    /// The zone.
    pub zone: DnsName,
    /// Its primary server, which takes dynamic updates (RFC 2136).
    pub server: Option<String>,
    /// The name of the key that signs updates (TSIG).
    pub key_name: Option<String>,
    /// The key in base64; readable by its owner only.
    pub key_file: Option<PathBuf>,
    /// `hmac-sha256`, `hmac-sha384` or `hmac-sha512`.
    #[serde(default = "default_algorithm")]
    pub algorithm: String,
    /// In place of a server: a program and its first arguments, called with `add` or `remove`, the record's owner and its text. It
    /// must do nothing when it is called with the same again.
    pub command: Option<Vec<String>>,
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
#[expect(clippy::large_enum_variant, reason = "a process has a few of them")]
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
    /// An ACME CA (RFC 8555).
    Acme {
        /// The directory's URL.
        directory: String,
        /// The CAs that may certify the ACME server, PEM.
        #[serde(default = "default_roots")]
        roots: PathBuf,
        /// The certificate profile of sites that name none; the CA's default when absent.
        profile: Option<ProfileName>,
        /// The common name of the issuer that chains should lead to, where the CA offers several for a certificate: of the default
        /// one and its alternates the first is taken whose topmost certificate that issuer issued; the default one when there is none.
        preferred_chain: Option<String>,
        /// The private key of the account, PEM, readable by its owner only; made when it is missing. Processes that share a
        /// database need the same one. In `data_dir` when absent, with the directory in its name. `FILE.directory` beside it notes
        /// the CA that it is of: another one is refused.
        account_key: Option<PathBuf>,
        /// An account that the CA knows its customers by, where it takes no others (RFC 8555, 7.3.4).
        external_account: Option<ExternalAccount>,
        /// What the CA allows: `letsencrypt`, `letsencrypt-staging` or `unlimited`. When absent, what is known of the directory's
        /// host: Let's Encrypt's two have their limits, others none.
        limits: Option<String>,
        /// Single limits that are other ones for this account or at this CA.
        #[serde(default)]
        overrides: BTreeMap<LimitName, LimitOverride>,
        /// The names that stand for the CA in CAA records. When absent, what is known of the directory's host: CAA is not looked
        /// at for CAs that are not known.
        caa_identities: Option<Vec<String>>,
        /// How names are validated, `http-01`, `tls-alpn-01`, `dns-01` or `dns-persist-01`, the first first; after a rejection the
        /// next one. Wildcards take those of the latter two that are listed, or dns-01.
        #[serde(default = "default_methods")]
        challenges: Vec<ValidationMethod>,
        /// The list of publicsuffix.org, by which registered domains are told; the one that this release carries when absent.
        public_suffix_list: Option<PathBuf>,
    },
}

/// An account that a CA knows its customers by.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    /// Its id at the CA.
    pub key_id: String,
    /// The key that the CA gives out with it, in base64url; readable by its owner only.
    pub key_file: PathBuf,
}

/// A limit of a CA.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitOverride {
    /// How often at once.
    pub burst: u32,
    /// How often in a period.
    pub count: u32,
    /// The period, in seconds.
    pub period_seconds: u32,
}

/// The address of a name server, on port 53 where it says none.
pub(crate) fn address(text: &str) -> anyhow::Result<SocketAddr> {
    let with_port = || text.parse().map(|address| SocketAddr::new(address, 53));
    text.parse().or_else(|_| with_port()).with_context(|| {
        format!("expected the address of a resolver such as 10.0.0.53 or [fd00::53]:5353, got {text:?}")
    })
}

/// The names that stand for the CA of a directory in CAA records (RFC 8659, 4.2).
pub(crate) fn caa_identities(directory: &str, stated: Option<&Vec<String>>) -> Vec<String> {
    let known = || match host(directory).as_deref() {
        Some("acme-v02.api.letsencrypt.org" | "acme-staging-v02.api.letsencrypt.org") => {
            vec!["letsencrypt.org".to_owned()]
        }
        _ => Vec::new(),
    };
    let lower = |names: &Vec<String>| names.iter().map(|name| name.to_ascii_lowercase()).collect();
    stated.map_or_else(known, lower)
}

pub(crate) fn host(directory: &str) -> Option<String> {
    directory.parse::<http::Uri>().ok()?.host().map(str::to_owned)
}

/// The limits that a CA has.
///
/// # Errors
/// When there is no such preset, or no bucket can hold an override.
pub(crate) fn limits(
    directory: &str,
    preset: Option<&str>,
    overrides: &BTreeMap<LimitName, LimitOverride>,
) -> anyhow::Result<Limits> {
    let known = match host(directory).as_deref() {
        Some("acme-v02.api.letsencrypt.org") => "letsencrypt",
        Some("acme-staging-v02.api.letsencrypt.org") => "letsencrypt-staging",
        _ => "unlimited",
    };
    let mut limits: Limits = preset.unwrap_or(known).parse().context("authority.limits")?;
    for (name, LimitOverride { burst, count, period_seconds }) in overrides {
        let limit = Limit::new(*burst, *count, SignedDuration::from_secs((*period_seconds).into()));
        let limit = limit.with_context(|| {
            format!(
                "authority.overrides.{name}: expected a burst and a count of at least 1, and a bucket that fills up within \
                 a century, got {burst} at once and {count} in {period_seconds} s"
            )
        })?;
        limits = limits.with(*name, limit);
    }
    Ok(limits)
}

fn default_methods() -> Vec<ValidationMethod> {
    vec![ValidationMethod::Http]
}

fn default_reputation() -> u64 {
    3600
}

fn default_fetch() -> bool {
    true
}

fn default_fetch_port() -> u16 {
    80
}

fn default_algorithm() -> String {
    "hmac-sha256".to_owned()
}

fn default_per_domain() -> NonZeroU32 {
    const { NonZeroU32::new(10).unwrap() }
}

fn default_in_all() -> NonZeroU32 {
    const { NonZeroU32::new(300).unwrap() }
}

fn default_questions() -> NonZeroU32 {
    const { NonZeroU32::new(600).unwrap() }
}

fn default_remember() -> u64 {
    300
}

fn default_at_once() -> usize {
    1
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
