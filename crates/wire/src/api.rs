//! Requests and answers of certstore's and certman's HTTP interfaces.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Base64, Digest, DnsName, KeyType, Kind, NameSet, NamesReport, ParseError, PoolName, ProfileName, Readiness,
    Upstream, ValidationMethod,
};

/// A place in the feed: `EPOCH:SEQUENCE`, the epoch as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    /// The feed's epoch: a restored store begins a new one.
    pub epoch: [u8; 16],
    /// The sequence number of the last event seen.
    pub seq: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}:{}", u128::from_be_bytes(self.epoch), self.seq)
    }
}

impl FromStr for Cursor {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new("a cursor EPOCH:SEQUENCE from an earlier page", text);
        let (epoch, seq) = text.split_once(':').ok_or_else(error)?;
        if epoch.len() != 32 {
            return Err(error());
        }
        Ok(Self {
            epoch: u128::from_str_radix(epoch, 16).map_err(|_| error())?.to_be_bytes(),
            seq: seq.parse().map_err(|_| error())?,
        })
    }
}

impl TryFrom<String> for Cursor {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

/// The query of `GET /v1/feed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FeedQuery {
    /// Answer what came after this. Without it the request is refused: a reader begins with a [`Snapshot`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Cursor>,
    /// At most this many events; the server has its own limit too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Seconds to wait for news when there are none; the server has its own limit too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
}

/// The answer of `GET /v1/feed`: the newest event of each record, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FeedPage {
    /// Where the next page begins.
    pub cursor: Cursor,
    /// What this caller may see between the two cursors.
    pub events: Vec<Event>,
    /// Whether the feed's end was reached.
    pub end: bool,
}

/// The answer of `GET /v1/snapshot`: what a reader without a cursor begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snapshot {
    /// Where the feed goes on once all segments are read.
    pub cursor: Cursor,
    /// The parts, to be read in any order from `GET /v1/snapshot/DIGEST`; each is a JSON array of [`Event`].
    pub segments: Vec<Segment>,
}

/// One immutable part of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Segment {
    /// SHA-256 of its bytes: its name.
    pub digest: Digest,
    /// Its size in octets.
    pub octets: u64,
    /// The events in it.
    pub events: u64,
}

/// One change in the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// What changed.
    pub kind: Kind,
    /// The site, or the pool of a checkpoint; empty for the ring and the account list, of which there is one.
    pub name: String,
    /// The new version.
    pub version: u64,
    /// SHA-256 of the record's bytes.
    pub digest: Digest,
    /// The pools that it concerns; empty for all.
    pub pools: Vec<PoolName>,
    /// The record itself, where it is small enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Base64>,
    /// Whether the record is gone: it expired, or its site left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// The answer to an accepted write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PutOutcome {
    /// The stored version.
    pub version: u64,
    /// Whether the write changed something: false when the same bytes were there already.
    pub changed: bool,
}

/// The body of `PUT /v1/sites/NAME` at certman.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteRequest {
    /// The names that lead to the site, its own among them.
    pub names: NameSet,
    /// The server behind the edge.
    pub upstream: Upstream,
    /// The pools that may serve it.
    pub pools: Vec<PoolName>,
    /// Whose site it is, in the platform's own words: sites of one owner may lie under each other's wildcards, others may
    /// not. At most 200 octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The certificate profile to ask the CA for, from the next order on; certman's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// The type of its certificates' keys, from the next order on.
    #[serde(default, skip_serializing_if = "KeyType::is_usual")]
    pub key_type: KeyType,
    /// How its names are validated, from the next order on, the first first; after a rejection the next one. Certman's own ways
    /// when empty. Wildcards take those of the DNS that are listed, or dns-01.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub challenges: Vec<ValidationMethod>,
}

impl SiteRequest {
    /// A site of nobody in particular, whose certificate is what certman makes of it.
    pub fn new(names: NameSet, upstream: Upstream, pools: Vec<PoolName>) -> Self {
        let (owner, profile, key_type, challenges) = (None, None, KeyType::default(), Vec::new());
        Self { names, upstream, pools, owner, profile, key_type, challenges }
    }
}

/// The step of an order that waits since certstore says that it lost the site's bundle.
pub const LOST: &str = "lost";

/// The body of `POST /v1/sites/NAME/renew` at certman.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renewal {
    /// When to renew, if that is earlier than planned; now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// The body of `POST /v1/sites/NAME/replacement` at certman: others may have the key of a stored certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replacement {
    /// The version of the bundle with that key. Once a later one is stored, its certificate is revoked.
    pub version: u64,
}

/// The body of `POST /v1/sites/NAME/import` at certman: a site with a certificate that a platform has already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Import {
    /// The site.
    pub site: SiteRequest,
    /// The certificates, leaf first, as DER.
    pub chain: Vec<Base64>,
    /// The key as the platform sealed it: the bytes of a legacy key.
    pub sealed: Base64,
}

/// The body of `POST /v1/sites/NAME/envelope` at certman: the key of the stored certificate, sealed anew by whoever can
/// open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reseal {
    /// An envelope that certman has not signed yet, for the version after the stored one.
    pub draft: Base64,
}

/// Where a site is on its way to HTTPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SiteState {
    /// Its first certificate is on its way.
    Pending,
    /// Its certificate is stored, and nothing is wrong.
    Active,
    /// The last attempt failed; another follows by itself. A certificate from before goes on being served.
    Waiting,
    /// No further attempt follows without a change: see the diagnosis.
    Failed,
}

impl fmt::Display for SiteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        })
    }
}

/// How the certificate is that a site is served with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CertificateState {
    /// There is none yet.
    #[default]
    Missing,
    /// It is good.
    Valid,
    /// It is near its end, and no other one has come.
    Expiring,
    /// Its time is over.
    Expired,
    /// Others may have its key; another one is on its way.
    Compromised,
}

impl fmt::Display for CertificateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Missing => "missing",
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Compromised => "compromised",
        })
    }
}

/// The state of one site, as certman knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteStatus {
    /// The site.
    pub site: DnsName,
    /// The names that lead to it.
    pub names: NameSet,
    /// The server behind the edge.
    pub upstream: Upstream,
    /// The pools that may serve it.
    pub pools: Vec<PoolName>,
    /// Whose site it is, if the platform says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The certificate profile that it asks the CA for, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// The type of its certificates' keys. A site with one of each has a companion, which has the RSA certificate.
    #[serde(default, skip_serializing_if = "KeyType::is_usual")]
    pub key_type: KeyType,
    /// How its names are validated, if it has ways of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub challenges: Vec<ValidationMethod>,
    /// The site whose companion it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub companion_of: Option<DnsName>,
    /// Where it is on its way.
    pub state: SiteState,
    /// Whether its names could be validated when they were looked at last: unknown before the first look, and of a certman
    /// that looks at none.
    #[serde(default)]
    pub names_state: Readiness,
    /// How its certificate is, whatever becomes of the order for the next one.
    #[serde(default)]
    pub certificate_state: CertificateState,
    /// The version of the stored bundle; 0 before the first.
    pub version: u64,
    /// The CA of the stored certificate.
    pub authority: Option<String>,
    /// When the stored certificate expires.
    pub not_after: Option<Timestamp>,
    /// When its renewal begins.
    pub renew_at: Option<Timestamp>,
    /// From when on it is urgent that another certificate comes: half of the time between the usual renewal and the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiring_at: Option<Timestamp>,
    /// When the CA wants it to be renewed, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<RenewalAdvice>,
    /// The OCSP answer that goes with the certificate, where that names a responder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staple: Option<StapleStatus>,
    /// What the last look at its names found: the first of those that are not ready, each with what is wrong. None before the
    /// first look, and of a certman that looks at none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<NamesReport>,
    /// The order under way.
    pub order: Option<OrderSummary>,
}

/// What a CA says of a certificate's renewal (ACME Renewal Information, RFC 9773).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewalAdvice {
    /// Start of the suggested window.
    pub start: Timestamp,
    /// End of the suggested window.
    pub end: Timestamp,
    /// A page about why, for operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// When the CA is asked again.
    pub ask_at: Option<Timestamp>,
}

/// How it is going with the OCSP answers for a certificate (RFC 6960).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StapleStatus {
    /// The version of the newest one that is stored; 0 before the first.
    pub version: u64,
    /// When the responder is asked next; none for now.
    pub fetch_at: Option<Timestamp>,
    /// Questions in a row without an answer that can be sent to visitors.
    #[serde(default)]
    pub failures: u32,
    /// The last failure, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
}

/// An order under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OrderSummary {
    /// The step that it is at.
    pub step: String,
    /// How many attempts failed in a row.
    pub failures: u32,
    /// How many of them the CA rejected. The others could not be made, and are made again soon.
    #[serde(default)]
    pub rejections: u32,
    /// When the next attempt begins, after a failed one.
    pub retry_at: Option<Timestamp>,
    /// The last failure, and the remedy.
    pub diagnosis: Option<String>,
}

/// An order, as operators see it: `GET /v1/orders` and `/v1/sites/NAME/order` at certman.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OrderStatus {
    /// The site.
    pub site: DnsName,
    /// Its names.
    pub names: NameSet,
    /// authorize, challenge, retrieval or dead-letter.
    pub stage: String,
    /// Its priority.
    pub lane: String,
    /// The CA that has it, once one does.
    pub authority: Option<String>,
    /// Its address there.
    pub order_url: Option<String>,
    /// How often the CA rejected it in a row.
    pub rejections: u32,
    /// When it is tried again; none if nobody does before somebody asks for it.
    pub retry_at: Option<Timestamp>,
    /// The last failure, and the remedy.
    pub diagnosis: Option<String>,
}

/// A page of `GET /v1/orders` at certman.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OrderList {
    /// The orders, by their sites' names.
    pub orders: Vec<OrderStatus>,
    /// The name after which the next page begins, if there is one.
    pub next: Option<DnsName>,
}

/// The CA's limits and what of them is used, as certman keeps it: `GET /v1/budget`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BudgetReport {
    /// The CA.
    pub authority: String,
    /// Its limits; none for a CA without.
    pub limits: Vec<LimitReport>,
    /// The lanes, the most urgent first.
    pub lanes: Vec<LaneReport>,
    /// All CAs that are configured, the preferred one first.
    #[serde(default)]
    pub authorities: Vec<AuthorityReport>,
}

/// A limit of a CA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LimitReport {
    /// Its name, as in certman's configuration.
    pub limit: String,
    /// How often a bucket can be taken from at once.
    pub burst: u32,
    /// Seconds after which it can be taken from once more.
    pub interval_seconds: f64,
    /// Those of its buckets that are fullest, among the first ten thousand.
    pub buckets: Vec<BucketReport>,
}

/// A bucket from which something was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BucketReport {
    /// The name, registered domain or set of names that it is for; empty for the whole account.
    pub subject: String,
    /// How often it can be taken from now.
    pub left: u32,
}

/// A CA that is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityReport {
    /// The CA, by its directory.
    pub authority: String,
    /// It did not answer several times in a row, and gets no new orders for a while if another one may have them.
    pub is_away: bool,
}

/// A lane in its queue for new orders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LaneReport {
    /// Its name.
    pub lane: String,
    /// When the last of those that wait for room asks again; none when nobody waits.
    pub waits_until: Option<Timestamp>,
}

/// A page of `GET /v1/sites` at certman.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteList {
    /// Sites in the order of their names.
    pub sites: Vec<SiteStatus>,
    /// Ask again with `after` this name for more.
    pub next: Option<DnsName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        let cursor = Cursor { epoch: [1; 16], seq: 42 };
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        for bad in ["", "1:2", "01010101010101010101010101010101", "01010101010101010101010101010101:-1"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
