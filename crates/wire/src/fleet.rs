//! The reports of edges, and the requests to them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Cursor, DnsName, EnvelopeId, Epoch, KeyId, PoolName};

/// What an edge says of itself: the body of `PUT /v1/edges/POOL/NAME`. A newer edge may say more than an older certstore
/// knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EdgeReport {
    /// The edge's pool.
    pub pool: PoolName,
    /// The edge's name, as in its certificate.
    pub name: String,
    /// When, by its clock.
    pub at: Timestamp,
    /// The version of its program.
    pub program: String,
    /// The version of the key ring that it goes by; 0 before the first.
    pub ring: u64,
    /// The unseal keys that it has loaded.
    pub keys: Vec<KeyId>,
    /// Whether it has read the feed to its end.
    pub caught_up: bool,
    /// How far it has read the feed.
    pub cursor: Option<Cursor>,
    /// Bundles in its mirror.
    pub bundles: u64,
    /// Items of the feed that it refuses.
    pub refused: u64,
    /// What went wrong in its last drill, and what did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillReport>,
}

impl EdgeReport {
    /// Whether it has read the feed up to `cursor`, and refuses nothing of it.
    pub fn has_taken(&self, cursor: Option<Cursor>) -> bool {
        self.has_read(cursor) && self.refused == 0
    }

    /// Whether it has read the feed up to `cursor`.
    pub fn has_read(&self, cursor: Option<Cursor>) -> bool {
        let Some(wanted) = cursor else { return true };
        self.cursor.is_some_and(|read| read.epoch == wanted.epoch && read.seq >= wanted.seq)
    }
}

/// The answer to an edge's report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EdgeOrders {
    /// A drill that somebody asks for. The edge bounds its size and how often it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillOrder>,
}

/// An edge's last report, as certstore has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EdgeStatus {
    /// What it said.
    #[serde(flatten)]
    pub report: EdgeReport,
    /// When that came, by certstore's clock.
    pub received_at: Timestamp,
}

/// The answer of `GET /v1/edges`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EdgeList {
    /// The edges that have reported lately, by pool and name.
    pub edges: Vec<EdgeStatus>,
}

/// Asks the edges of a pool to open sealed keys at random: the body of `PUT /v1/drills/POOL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrillOrder {
    /// Random; the report repeats it.
    pub id: EnvelopeId,
    /// How many keys to open of each epoch and suite.
    pub sample: u32,
}

impl DrillOrder {
    /// The most keys that a drill opens of each epoch and suite.
    pub const MAX_SAMPLE: u32 = 10_000;
}

/// What came of opening sealed keys at random.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrillReport {
    /// The order that it follows; none when it was on schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<EnvelopeId>,
    /// When it ended, by the edge's clock.
    pub at: Timestamp,
    /// How it went for each epoch and suite that the mirror holds.
    pub classes: Vec<DrillClass>,
    /// The first few sites whose key could not be used, with the reason.
    pub failed: Vec<DrillFailure>,
}

/// Sealed keys of one suite that the same unseal key opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrillClass {
    /// The suite's name.
    pub suite: String,
    /// The newest epoch that they are sealed to; none for legacy keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How many there are.
    pub held: u64,
    /// How many were opened and are their certificate's.
    pub opened: u64,
    /// How many could not be used.
    pub failed: u64,
}

/// A site whose key could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrillFailure {
    /// The site.
    pub site: DnsName,
    /// Why.
    pub reason: String,
}

/// The query of `GET /v1/deletions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeletionQuery {
    /// List what is deleted within so many seconds from now; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<u64>,
    /// At most so many; the server has its own limit too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Bundles that will be deleted by themselves, the earliest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeletionList {
    /// The bundles.
    pub deletions: Vec<Deletion>,
}

/// A bundle that will be deleted by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deletion {
    /// The bundle's site.
    pub site: DnsName,
    /// When.
    pub at: Timestamp,
    /// Whether its site has left; its certificate expires otherwise.
    pub departed: bool,
}
