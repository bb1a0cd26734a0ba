//! The vocabulary that every part of certseal shares: names, ids, signed documents, and the requests and answers of
//! the HTTP interfaces.
//!
//! This crate does no I/O and no cryptography. Values from outside are parsed into types that cannot hold a bad value:
//!
//! ```
//! use certseal_wire::DnsName;
//!
//! let name: DnsName = "Shop.Example.com".parse()?;
//! assert_eq!(name.as_str(), "shop.example.com");
//! assert!("not a name".parse::<DnsName>().is_err());
//! # Ok::<(), certseal_wire::ParseError>(())
//! ```

mod accounts;
mod api;
mod audit;
mod backup;
mod bulk;
mod bytes;
mod caller;
mod causes;
mod documents;
mod fleet;
mod ids;
mod key_type;
mod kind;
mod names;
mod on_demand;
#[cfg(feature = "openapi")]
mod openapi;
mod origin;
mod preflight;
mod problem;
mod revocation;
mod rotation;
mod route;
mod site_event;
mod staple;
mod validation;

pub use accounts::{AccountDeactivation, AccountList, AccountReport, AccountRollover, AccountState, FormerKey};
pub use api::{
    AuthorityReport, BucketReport, BudgetReport, CertificateState, Cursor, Event, FeedPage, FeedQuery, Import, LOST,
    LaneReport, LimitReport, OrderList, OrderStatus, OrderSummary, PutOutcome, Renewal, RenewalAdvice, Replacement,
    Reseal, Segment, SiteList, SiteRequest, SiteState, SiteStatus, Snapshot, StapleStatus,
};
pub use audit::{AuditAction, AuditCheckpoint, AuditLine, AuditMark, AuditOutcome, AuditPage, AuditQuery, AuditRecord};
pub use backup::{BackupPage, BackupPlan, BackupQuery, BackupRecord, BackupTable, RestoreEnd, RestoreRequest};
pub use bulk::{ChangeKind, ChangeResult, ChangesReport, MaybeChange, Misfit, SiteChange, SiteChanges, Wanted};
pub use bytes::Base64;
pub use caller::{Caller, Role, TrustDomain};
pub use causes::causes;
pub use documents::{
    AcmeAccounts, BundleInfo, Challenge, ChallengeMethod, Change, Checkpoint, Document, DocumentError, IssuerEntry,
    KeyRing, KeyState, Signed, UnsealEntry,
};
pub use fleet::{
    Deletion, DeletionList, DeletionQuery, DrillClass, DrillFailure, DrillOrder, DrillReport, EdgeList, EdgeOrders,
    EdgeReport, EdgeStatus,
};
pub use ids::{Digest, EnvelopeId, Epoch, GroupId, KeyId, RotationId, SignerId};
pub use key_type::KeyType;
pub use kind::{Kind, UnknownKind};
pub use names::{DnsName, NameSet, ParseError, PoolName, ProfileName};
pub use on_demand::{OnDemandAnswer, OnDemandOutcome};
pub use origin::{Origin, Scheme, Upstream};
pub use preflight::{DnsPlan, DnsRecord, Edit, Finding, FindingCode, NameReport, NamesReport, Readiness, RecordEdit};
pub use problem::{Problem, ProblemKind};
pub use revocation::{RevocationReason, RevocationRequest};
pub use rotation::{
    Approval, EpochCount, Inventory, IssuerCount, Retirement, Rewrap, RewrapOutcome, RewrapRequest, RewrapTarget,
    Rotation, RotationList, RotationPlan, RotationReason, RotationState, RotationStep, SealedEntry, SealedPage,
    SealedQuery, Verification,
};
pub use route::{Endpoint, HttpsMode, Route};
pub use site_event::{EventList, ListedEvent, Replay, Replayed, SiteEvent, SiteEventData, SiteEventKind};
pub use staple::Staple;
pub use validation::ValidationMethod;
