//! What platforms hear of their sites: the bodies of webhooks, and their list at certman.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{CertificateState, DnsName, NameSet, Readiness};

/// The body of a webhook, by the Standard Webhooks specification 1.0.0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: SiteEventKind,
    /// When.
    pub timestamp: Timestamp,
    /// To which site.
    pub data: SiteEventData,
}

/// What happened to a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SiteEventKind {
    /// It has its first certificate.
    #[serde(rename = "certificate.issued")]
    Issued,
    /// It has another one.
    #[serde(rename = "certificate.renewed")]
    Renewed,
    /// The CA rejected an order, or rejects it again and again.
    #[serde(rename = "certificate.failing")]
    Failing,
    /// Its certificate is near its end, and no other one has come.
    #[serde(rename = "certificate.expiring")]
    Expiring,
    /// Its names are not ready, and its owner has to do something about it.
    #[serde(rename = "names.not-ready")]
    NamesNotReady,
}

impl SiteEventKind {
    /// The name as in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "certificate.issued",
            Self::Renewed => "certificate.renewed",
            Self::Failing => "certificate.failing",
            Self::Expiring => "certificate.expiring",
            Self::NamesNotReady => "names.not-ready",
        }
    }
}

/// The site of an event, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteEventData {
    /// The site.
    pub site: DnsName,
    /// The site whose companion it is: it has the RSA certificate for that site's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub companion_of: Option<DnsName>,
    /// The names that lead to it.
    pub names: NameSet,
    /// Whose site it is, if the platform says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Counts the changes of the site: of two events, the one with the higher number came later.
    pub revision: u64,
    /// Whether its names could be validated when they were looked at last.
    pub names_state: Readiness,
    /// How its certificate is.
    pub certificate_state: CertificateState,
    /// When its certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// What is wrong, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
}

/// An event in the list at certman.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListedEvent {
    /// The id with which it is sent, each time the same.
    pub id: String,
    /// The event.
    pub event: SiteEvent,
    /// It is still to be sent.
    pub waits: bool,
    /// The receiver refused it for so long that it is sent again only when somebody asks for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub put_aside: bool,
}

/// A page of `GET /v1/events` at certman.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventList {
    /// Events, the oldest first.
    pub events: Vec<ListedEvent>,
    /// Ask again with `after` this for more.
    pub next: Option<String>,
}

/// The body of `POST /v1/events/replay` at certman: which events to send again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replay {
    /// Those from this instant on.
    pub from: Timestamp,
    /// Those before this instant; up to now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Those of this site; of all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<DnsName>,
}

/// The answer to a [`Replay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replayed {
    /// How many are sent again.
    pub events: u64,
}
