//! Copies of the whole store, independent of its engine.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{AuditMark, Base64, Cursor};

/// The query of `GET /v1/backup/TABLE`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackupQuery {
    /// Go on after this key, in lower-case hex; from the first when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Only the record with this key, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
}

/// The answer of `GET /v1/backup`: what a backup has to copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackupPlan {
    /// The tables, in the order in which they are to be copied.
    pub tables: Vec<BackupTable>,
    /// Where the feed is. What it tells after this has to be copied again at the end.
    pub feed: Cursor,
    /// The newest entry of the audit log.
    pub audit: AuditMark,
    /// When, by certstore's clock.
    pub at: Timestamp,
}

/// A table of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackupTable {
    /// Its name.
    pub name: String,
    /// The kind of event that tells of its changes; none for tables that are not in the feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<crate::Kind>,
}

/// The answer of `GET /v1/backup/TABLE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackupPage {
    /// Records in the order of their keys.
    pub records: Vec<BackupRecord>,
    /// Ask again with `after` this key for more; none at the end.
    pub next: Option<String>,
}

/// One record, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackupRecord {
    /// The table.
    pub table: String,
    /// The key, in lower-case hex.
    pub key: String,
    /// Counts the writes of the record.
    pub revision: u64,
    /// The value.
    pub value: Base64,
    /// When it is deleted, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// The body of `POST /v1/restore`: some records of a backup. Only a store that holds nothing takes them; until the end is
/// said, it serves nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RestoreRequest {
    /// The records, at most [`RestoreRequest::MAX_RECORDS`].
    pub records: Vec<BackupRecord>,
}

impl RestoreRequest {
    /// The most records in one request.
    pub const MAX_RECORDS: usize = 500;
}

/// The body of `POST /v1/restore/end`: the backup is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RestoreEnd {
    /// How many records the store must hold now, by table.
    pub records: std::collections::BTreeMap<String, u64>,
    /// Where the feed was when the backup was made.
    pub feed: Cursor,
    /// The newest entry of the audit log then.
    pub audit: AuditMark,
}
