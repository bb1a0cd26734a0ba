//! Rotation of a pool's unseal key: the plan that two people agree on, and how far it has come.
//!
//! ```text
//! proposed --a second admin--> approved --ring: new key pending--> announced --every edge has it; ring: active--> active
//!    active --every bundle sealed to it, and opened--> verified --old stanzas removed; ring: retired--> retired
//! proposed, approved, announced --abort--> aborted
//! ```

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Base64, Cursor, Digest, DnsName, Document, EdgeReport, Epoch, PoolName, RotationId, Signed, UnsealEntry};

/// The plan of a rotation, in every detail that matters. It never changes: its digest is what the second person
/// approves.
///
/// Signed by the security team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotationPlan {
    /// Random, unique.
    pub id: RotationId,
    /// The pool whose key is replaced.
    pub pool: PoolName,
    /// Why, which decides how.
    pub reason: RotationReason,
    /// The version of the key ring that the plan starts from. Under another one it does not count.
    pub ring_version: u64,
    /// SHA-256 of that ring as it was signed; none in plans of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_digest: Option<Digest>,
    /// The generations to leave: those that are neither pending nor retired.
    pub from: Vec<Epoch>,
    /// The new key, as it is to enter the ring: pending.
    pub to: UnsealEntry,
    /// Of how many bundles one is opened before old stanzas are removed; 1 for every bundle.
    pub verify_one_in: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it can be approved and begun.
    pub expires_at: Timestamp,
    /// The note of the security team about it.
    pub note: String,
}

impl RotationPlan {
    /// Whether `edge` has loaded the new key under key ring `ring` or a newer one, so that it opens what is sealed to it.
    pub fn is_loaded_by(&self, edge: &EdgeReport, ring: u64) -> bool {
        edge.ring >= ring && edge.keys.contains(&self.to.key_id)
    }

    /// Whether `edge` can do without the old keys: it has taken everything up to `verified_at`, where the feed was when all
    /// was sealed to the new key, and it has that key.
    pub fn is_done_with_old_keys(&self, edge: &EdgeReport, verified_at: Option<Cursor>) -> bool {
        edge.has_taken(verified_at) && edge.keys.contains(&self.to.key_id)
    }
}

impl Document for RotationPlan {
    const LABEL: &'static str = "certseal rotation plan v1";
}

/// Why a key is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RotationReason {
    /// Its time has come: content keys are sealed to the new key, TLS keys stay.
    Routine,
    /// Somebody else may have it. A holder of the old key and old ciphertext has the TLS keys, so that sealing them
    /// anew does not help: certificates are issued again with new keys, and the old ones revoked.
    Compromised,
}

impl fmt::Display for RotationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Routine => "routine",
            Self::Compromised => "compromised",
        })
    }
}

/// Where a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RotationState {
    /// Waits for a second person.
    Proposed,
    /// May begin.
    Approved,
    /// The new key is in the ring, and edges load it.
    Announced,
    /// New envelopes are sealed to the new key, existing ones are sealed to it as well.
    Active,
    /// Every bundle is sealed to the new key, and was opened with it.
    Verified,
    /// Over: nothing is sealed to the old keys, which can be destroyed.
    Retired,
    /// Given up before the new key was active.
    Aborted,
}

impl RotationState {
    /// Whether it is neither over nor given up.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Retired | Self::Aborted)
    }
}

impl fmt::Display for RotationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Proposed => "proposed",
            Self::Approved => "approved",
            Self::Announced => "announced",
            Self::Active => "active",
            Self::Verified => "verified",
            Self::Retired => "retired",
            Self::Aborted => "aborted",
        })
    }
}

/// A rotation as certstore keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rotation {
    /// The signed [`RotationPlan`].
    pub plan: Signed,
    /// SHA-256 of the plan's payload: what is approved.
    pub digest: Digest,
    /// Where it is.
    pub state: RotationState,
    /// Who proposed it.
    pub proposed_by: String,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// Where the feed was when it was verified: an edge that has read this far needs the old keys no more.
    pub verified_at: Option<Cursor>,
    /// Everything that was done, oldest first.
    pub steps: Vec<RotationStep>,
}

/// One step of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotationStep {
    /// When, by certstore's clock.
    pub at: Timestamp,
    /// Who did it.
    pub by: String,
    /// What was done.
    pub what: String,
}

/// The rotations that certstore knows, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotationList {
    /// The rotations.
    pub rotations: Vec<Rotation>,
}

/// The body of `POST /v1/rotations/ID/approval`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Approval {
    /// The digest of the plan that was looked at.
    pub plan: Digest,
}

/// The body of `POST /v1/rotations/ID/rewraps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RewrapRequest {
    /// Stanzas for the rotation's new key, and where they belong.
    pub rewraps: Vec<Rewrap>,
}

impl RewrapRequest {
    /// The most sites in one request.
    pub const MAX_SITES: usize = 500;
}

/// One content key, sealed to the rotation's new key. Pool, epoch and key id are those of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rewrap {
    /// HPKE's encapsulated key.
    pub enc: Base64,
    /// The content key under HPKE.
    pub sealed_key: Base64,
    /// The bundles whose content key it is: one, or several of one group.
    pub sites: Vec<RewrapTarget>,
}

/// A bundle that gets a stanza.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RewrapTarget {
    /// The site.
    pub site: DnsName,
    /// The hash of the envelope's header: a bundle that was renewed meanwhile is left alone.
    pub envelope: Digest,
}

/// The answer to `POST /v1/rotations/ID/rewraps` and `POST /v1/rotations/ID/retirements`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RewrapOutcome {
    /// Bundles that were changed.
    pub changed: u64,
    /// Bundles that were as asked already, or have been renewed or deleted meanwhile.
    pub unchanged: u64,
    /// Where the next request goes on; none at the end. Of retirements only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DnsName>,
}

/// The body of `POST /v1/rotations/ID/verification`: what whoever holds the new key has opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Verification {
    /// Bundles that were opened with the new key, and whose key is the certificate's.
    pub opened: u64,
    /// Bundles that were looked at.
    pub bundles: u64,
}

/// The body of `POST /v1/rotations/ID/retirements`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retirement {
    /// Go on after this site; from the first one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<DnsName>,
}

/// The query of `GET /v1/sealed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SealedQuery {
    /// Go on after this site; from the first one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<DnsName>,
    /// At most this many; the server has its own limit too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only keys for this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Only envelopes that have no stanza for this epoch of `pool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacking: Option<Epoch>,
    /// Only keys as platforms sealed them before.
    #[serde(default)]
    pub legacy: bool,
}

/// The answer of `GET /v1/sealed`: sealed keys, in the order of their sites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SealedPage {
    /// The sealed keys.
    pub keys: Vec<SealedEntry>,
    /// Ask again with `after` this site for more; none at the end.
    pub next: Option<DnsName>,
}

/// The sealed key of one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SealedEntry {
    /// The site.
    pub site: DnsName,
    /// The version of its bundle.
    pub version: u64,
    /// The envelope, or the legacy key.
    pub sealed: Base64,
    /// The SubjectPublicKeyInfo of a legacy key's certificate, DER: an envelope states its digest itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spki: Option<Base64>,
}

/// What one issuer signed, of what certstore has now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IssuerCount {
    /// Bundles.
    pub bundles: u64,
    /// Routes, checkpoints and account lists.
    pub documents: u64,
}

/// What certstore keeps, in numbers: the answer of `GET /v1/inventory`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Inventory {
    /// All bundles.
    pub bundles: u64,
    /// Bundles by the suite of their sealed key.
    pub suites: std::collections::BTreeMap<String, u64>,
    /// Envelopes that share a content key.
    pub grouped: u64,
    /// What each issuer signed, by its id.
    #[serde(default)]
    pub issuers: std::collections::BTreeMap<String, IssuerCount>,
    /// Stanzas by pool and epoch.
    pub epochs: Vec<EpochCount>,
}

/// How many envelopes are sealed to one unseal key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EpochCount {
    /// The pool.
    pub pool: PoolName,
    /// The generation.
    pub epoch: Epoch,
    /// Envelopes with a stanza for it.
    pub sealed: u64,
    /// Envelopes that no other epoch of the pool can open.
    pub only: u64,
}
