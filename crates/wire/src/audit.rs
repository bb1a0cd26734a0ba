//! The audit log of certstore: its entries, its pages, and the checkpoints that certman signs.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Cursor, Digest, Document};

/// One entry of the audit log, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditRecord {
    /// When, by certstore's clock.
    pub at: Timestamp,
    /// Who, as `ROLE/NAME`.
    pub by: String,
    /// From which address; none for what certstore did by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub from: Option<IpAddr>,
    /// What was done.
    pub action: AuditAction,
    /// What it was done to: sites, a pool, a rotation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// The version that was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// SHA-256 of what was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// More, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What came of it.
    pub outcome: AuditOutcome,
}

/// What an entry of the audit log tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AuditAction {
    /// A bundle was stored.
    PutBundle,
    /// A route was stored; with it a site came, changed or left.
    PutRoute,
    /// The key ring was stored.
    PutRing,
    /// The list of ACME accounts was stored.
    PutAccounts,
    /// A checkpoint of the feed was stored.
    PutCheckpoint,
    /// An OCSP answer was stored.
    PutStaple,
    /// A checkpoint of this log was stored.
    PutAuditCheckpoint,
    /// A challenge was stored.
    PutChallenge,
    /// Challenges were deleted.
    DeleteChallenges,
    /// A rotation was proposed.
    ProposeRotation,
    /// A rotation was approved.
    ApproveRotation,
    /// A rotation was given up.
    AbortRotation,
    /// Stanzas were added to bundles.
    AddStanzas,
    /// A rotation was verified.
    VerifyRotation,
    /// Old stanzas were removed from bundles.
    RemoveStanzas,
    /// An edge said for the first time, or anew, which unseal keys it has.
    ReportEdge,
    /// An edge was forgotten.
    ForgetEdge,
    /// A forgotten edge was admitted again.
    AdmitEdge,
    /// Edges that had not reported for long were dropped.
    DropEdges,
    /// A drill was ordered.
    OrderDrill,
    /// Sealed keys were handed out.
    ReadSealed,
    /// Bundles were deleted, because they had expired or their site had left.
    DeleteBundles,
    /// OCSP answers were deleted, because they had run out.
    DeleteStaples,
    /// Tombstones were removed.
    Purge,
    /// The whole store was handed out.
    Backup,
    /// Records came back from a backup.
    Restore,
    /// Older entries of this log were moved into a file.
    RotateAudit,
    /// Something else was tried.
    #[serde(other)]
    Other,
}

/// What came of what an entry tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was refused; nothing changed, and nothing was handed out.
    Refused,
}

/// A place in the audit log: the number of an entry, and the hash over it and all entries before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditMark {
    /// The entry's number; the first is 1, and 0 stands for the empty log.
    pub number: u64,
    /// `SHA-256("certseal audit v1" || hash before || number as u64 big-endian || entry)`; zeros for number 0.
    pub hash: Digest,
}

/// The query of `GET /v1/audit`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditQuery {
    /// Answer the entries after this number; from the first that is kept when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most this many entries; the server has its own limit too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// The answer of `GET /v1/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditPage {
    /// The mark before the first entry that is kept: older entries were moved into files.
    pub start: AuditMark,
    /// The mark of the newest entry.
    pub head: AuditMark,
    /// Where the feed is: with a new epoch, the store came back from a backup, and so did this log.
    pub feed: Cursor,
    /// Entries in their order.
    pub entries: Vec<AuditLine>,
}

/// One entry as it was stored. In a file each stands on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditLine {
    /// Its place in the log.
    #[serde(flatten)]
    pub mark: AuditMark,
    /// The exact text that the hash covers: an [`AuditRecord`] as JSON.
    pub entry: String,
}

/// The end of the audit log that certman saw, signed: a log that has less, or something else there, was tampered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditCheckpoint {
    /// The newest entry then.
    pub head: AuditMark,
    /// When, by certman's clock.
    pub at: Timestamp,
}

impl Document for AuditCheckpoint {
    const LABEL: &'static str = "certseal audit checkpoint v1";
}
