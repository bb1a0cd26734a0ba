//! A site in the journal: its formats.
//!
//! The first format has no member `format`. This release writes the second and the third, and takes over the first. A record of a
//! later format is left to the release that wrote it.

use certseal_wire::{Base64, DnsName, KeyType, NameSet, PoolName, RevocationReason, Upstream};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    Advice, Answer, Attempt, Attempts, Compromised, Format, Issued, Look, OrderRef, Revocation, SealedKey, Site, Step,
    budget::Settlement,
};

/// Why a record is no site to this release.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A later release wrote it: that one works on the site.
    #[error("it is of format {0:?}, which a later release wrote: ask a certman of that release")]
    Later(String),
    /// It is damaged.
    #[error("it cannot be read: {0}")]
    Malformed(String),
}

impl From<serde_json::Error> for RecordError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Reads a site. `is_envelope` says of a key of the first format whether it is in an envelope.
///
/// # Errors
/// [`RecordError`].
pub fn read(record: &[u8], is_envelope: impl Fn(&[u8]) -> bool) -> Result<Site, RecordError> {
    let Peek { format } = serde_json::from_slice(record)?;
    let site = match format.as_deref() {
        None => serde_json::from_slice::<FirstSite>(record)?.into_site(is_envelope),
        Some(format) if Format::ALL.iter().any(|known| known.as_str() == format) => serde_json::from_slice(record)?,
        Some(later) => return Err(RecordError::Later(later.chars().take(32).collect())),
    };
    if site.route_version == 0 {
        return Err(RecordError::Malformed("a site without a route".to_owned()));
    }
    Ok(site)
}

#[derive(Deserialize)]
struct Peek {
    format: Option<String>,
}

/// A site in the first format.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstSite {
    site: DnsName,
    names: NameSet,
    upstream: Upstream,
    pools: Vec<PoolName>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    left: Vec<PoolName>,
    departed: bool,
    route_version: u64,
    route_stored: bool,
    certificate: Option<FirstIssued>,
    bundle_version: u64,
    order: Option<FirstStep>,
    abandoned: Vec<String>,
    #[serde(default)]
    compromised: Option<FirstCompromised>,
    #[serde(default)]
    unconfirmed: bool,
    #[serde(default)]
    issuer_left: bool,
    #[serde(default)]
    lost: bool,
    #[serde(default)]
    enveloped: bool,
    #[serde(default)]
    revoke: Vec<Base64>,
    attempt: FirstAttempt,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstIssued {
    authority: String,
    not_after: Timestamp,
    renew_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstCompromised {
    version: u64,
    leaf: Base64,
}

/// One for all kinds of work.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstAttempt {
    failures: u32,
    retry_at: Option<Timestamp>,
    diagnosis: Option<String>,
    dead: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum FirstStep {
    Requested,
    Authorizing { order_url: String },
    ChallengePending { order_url: String, answers: Vec<Answer> },
    Authorized { order_url: String },
    KeySealed { order_url: String, sealed: FirstSealedKey },
    Retrieving { order_url: String, sealed: FirstSealedKey },
    Issued { sealed: FirstSealedKey, chain: Vec<Base64> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstSealedKey {
    /// Empty for a key whose certificate was not ordered by us.
    csr: Base64,
    #[serde(alias = "envelope")]
    bytes: Base64,
}

impl FirstSite {
    fn into_site(self, is_envelope: impl Fn(&[u8]) -> bool) -> Site {
        let FirstAttempt { failures, retry_at, diagnosis, dead } = self.attempt;
        // The record does not say what failed: the order waits longest.
        let order = Attempt { rejected: failures, retry_at, diagnosis, dead, ..Attempt::default() };
        let revocation = |leaf| Revocation { authority: None, leaf, reason: RevocationReason::KeyCompromise };
        Site {
            format: Format::Second,
            site: self.site,
            names: self.names,
            upstream: self.upstream,
            pools: self.pools,
            owner: self.owner,
            profile: None,
            key_type: KeyType::default(),
            challenges: Vec::new(),
            companion_of: None,
            left: self.left,
            departed: self.departed,
            route_version: self.route_version,
            route_stored: self.route_stored,
            certificate: self.certificate.map(|FirstIssued { authority, not_after, renew_at }| Issued {
                authority,
                ordered_from: None,
                names: None,
                not_before: None,
                not_after,
                renew_at,
                lineage: None,
                advice: Advice::default(),
                is_put_forward: false,
            }),
            bundle_version: self.bundle_version,
            order: self.order.map(|step| step.into_step(is_envelope)),
            abandoned: self.abandoned.into_iter().map(order_at).collect(),
            published: Vec::new(),
            compromised: self
                .compromised
                .map(|FirstCompromised { version, leaf }| Compromised { version, certificate: revocation(leaf) }),
            unconfirmed: self.unconfirmed,
            issuer_left: self.issuer_left,
            lost: self.lost,
            enveloped: self.enveloped,
            revoke: self.revoke.into_iter().map(revocation).collect(),
            reserved: None,
            owed: Settlement::default(),
            account: None,
            failing: Vec::new(),
            looked: None,
            on_demand: false,
            told_expiring: None,
            staple: None,
            attempts: Attempts { order, ..Attempts::default() },
            written_at: None,
        }
    }
}

impl FirstStep {
    fn into_step(self, is_envelope: impl Fn(&[u8]) -> bool) -> Step {
        let sealed = |FirstSealedKey { csr, bytes }| {
            let enveloped = is_envelope(&bytes.0);
            SealedKey { csr: (!csr.0.is_empty()).then_some(csr), bytes, enveloped }
        };
        // The first look is due at once.
        let look = Look::first(Timestamp::UNIX_EPOCH);
        match self {
            Self::Requested => Step::Requested,
            Self::Authorizing { order_url } => Step::Authorizing { order: order_at(order_url) },
            Self::ChallengePending { order_url, answers } => {
                Step::ChallengesKnown { order: order_at(order_url), answers }
            }
            Self::Authorized { order_url } => Step::Authorized { order: order_at(order_url) },
            Self::KeySealed { order_url, sealed: key } => {
                Step::KeySealed { order: order_at(order_url), sealed: sealed(key) }
            }
            Self::Retrieving { order_url, sealed: key } => {
                Step::Retrieving { order: order_at(order_url), sealed: sealed(key), look }
            }
            Self::Issued { sealed: key, chain } => Step::Issued { sealed: sealed(key), chain, authority: None },
        }
    }
}

/// An order of which the first format says where it is, and not at which CA.
fn order_at(url: String) -> OrderRef {
    OrderRef { account: None, url }
}
