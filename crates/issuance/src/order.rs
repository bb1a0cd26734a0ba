//! An order: where it is at which CA, and how far it has come.

use std::{fmt, sync::Arc};

use certseal_wire::{Base64, DnsName, RevocationReason, ValidationMethod};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Which CA: the URL of its ACME directory, or `local` for the one in certman's process.
/// Every step of every order names it, so that a copy is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct AuthorityId(pub Arc<str>);

impl From<String> for AuthorityId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<AuthorityId> for String {
    fn from(id: AuthorityId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An account at a CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRef {
    /// The CA.
    pub authority: AuthorityId,
    /// The thumbprint of the account's first key (RFC 7638), by which it is known here whatever key it has by now; none where a CA
    /// has no accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thumbprint: Option<String>,
}

/// An order at a CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRef {
    /// Whose order it is. None of orders that a journal of the first format holds: of the CA that is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountRef>,
    /// The order's URL.
    pub url: String,
}

impl OrderRef {
    /// The CA, if that is known.
    pub fn authority(&self) -> Option<&AuthorityId> {
        self.account.as_ref().map(|account| &account.authority)
    }
}

/// The state of an order at a CA (RFC 8555, 7.1.6). One that is invalid is a failure, with the CA's reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderState {
    /// Some name is not authorized yet.
    Pending,
    /// It waits for the request.
    Ready,
    /// The request is there, and the certificate is not.
    Processing,
    /// The certificate can be downloaded.
    Valid,
}

/// What a CA says of an order, and how long it asks not to be asked again (Retry-After; RFC 8555, 7.4 and 7.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderReport {
    /// The state.
    pub state: OrderState,
    /// The wait, if it names one.
    pub retry_after: Option<SignedDuration>,
}

/// A challenge and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The name under validation.
    pub host: DnsName,
    /// The CA's token.
    pub token: String,
    /// The answer.
    pub key_authorization: String,
    /// Where it is given.
    #[serde(default, skip_serializing_if = "ValidationMethod::is_http")]
    pub method: ValidationMethod,
}

/// A key after its sealing: all that is left of it here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedKey {
    /// The certificate signing request, DER; none for a key whose certificate was not ordered by us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<Base64>,
    /// The envelope, or the key as a platform sealed it before.
    pub bytes: Base64,
    /// Whether it is in an envelope, which an issuer signed.
    pub enveloped: bool,
}

/// Where an order is, as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// On its way to challenges that are answered.
    Authorize,
    /// The CA validates.
    Challenge,
    /// Its key is sealed, or its certificate on the way.
    Retrieval,
    /// Rejected again and again, or for good: somebody should look at it.
    DeadLetter,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Authorize, Self::Challenge, Self::Retrieval, Self::DeadLetter];

    /// The name as in addresses and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Challenge => "challenge",
            Self::Retrieval => "retrieval",
            Self::DeadLetter => "dead-letter",
        }
    }
}

/// How far an order has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// No CA knows of it yet.
    Requested,
    /// There is an account to order with.
    AccountReady {
        /// The account.
        account: AccountRef,
    },
    /// Edges answer for the account. The CA does not know of the order yet, or its answer was lost.
    Vouched {
        /// The account.
        account: AccountRef,
    },
    /// The CA has an order; its challenges are not known yet.
    Authorizing {
        /// The order at the CA.
        order: OrderRef,
    },
    /// The challenges are known.
    ChallengesKnown {
        /// The order at the CA.
        order: OrderRef,
        /// The answers to give, for names that are not authorized yet.
        answers: Vec<Answer>,
    },
    /// certstore has the answers. The CA may or may not have been told.
    Published {
        /// The order at the CA.
        order: OrderRef,
        /// The answers that are given.
        answers: Vec<Answer>,
    },
    /// The CA validates.
    ChallengePending {
        /// The order at the CA.
        order: OrderRef,
        /// The answers that are given.
        answers: Vec<Answer>,
        /// The next look at it.
        look: Look,
    },
    /// The CA is ready to issue.
    Authorized {
        /// The order at the CA.
        order: OrderRef,
    },
    /// The key is sealed. The CA may or may not have got the request.
    KeySealed {
        /// The order at the CA.
        order: OrderRef,
        /// The key and the request for it.
        sealed: SealedKey,
    },
    /// The key is sealed, and the CA waits for the request.
    Finalizing {
        /// The order at the CA.
        order: OrderRef,
        /// The key and the request for it.
        sealed: SealedKey,
    },
    /// The CA has the request.
    Retrieving {
        /// The order at the CA.
        order: OrderRef,
        /// The key and the request for it.
        sealed: SealedKey,
        /// The next look at it.
        look: Look,
    },
    /// The certificate can be downloaded.
    Downloading {
        /// The order at the CA.
        order: OrderRef,
        /// The key and the request for it.
        sealed: SealedKey,
    },
    /// The certificate is here: from the CA, or with a site that a platform brought. certstore may or may not have it.
    Issued {
        /// Its key.
        sealed: SealedKey,
        /// The chain as DER, leaf first.
        chain: Vec<Base64>,
        /// The CA that it was ordered from, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        authority: Option<AuthorityId>,
    },
}

impl Step {
    /// The step as people and metrics call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Requested | Self::AccountReady { .. } | Self::Vouched { .. } => "requested",
            Self::Authorizing { .. } => "authorizing",
            Self::ChallengesKnown { .. } | Self::Published { .. } | Self::ChallengePending { .. } => {
                "challenge pending"
            }
            Self::Authorized { .. } => "authorized",
            Self::KeySealed { .. } | Self::Finalizing { .. } => "key sealed",
            Self::Retrieving { .. } | Self::Downloading { .. } => "retrieving",
            Self::Issued { .. } => "issued",
        }
    }

    /// Where an order is that has come so far, if it is not a dead letter.
    pub(crate) fn stage(&self) -> Stage {
        match self {
            Self::Requested
            | Self::AccountReady { .. }
            | Self::Vouched { .. }
            | Self::Authorizing { .. }
            | Self::ChallengesKnown { .. }
            | Self::Published { .. } => Stage::Authorize,
            Self::ChallengePending { .. } => Stage::Challenge,
            _ => Stage::Retrieval,
        }
    }

    /// The order at the CA, while the CA has work left in it.
    pub fn order(&self) -> Option<&OrderRef> {
        match self {
            Self::Authorizing { order }
            | Self::ChallengesKnown { order, .. }
            | Self::Published { order, .. }
            | Self::ChallengePending { order, .. }
            | Self::Authorized { order }
            | Self::KeySealed { order, .. }
            | Self::Finalizing { order, .. }
            | Self::Retrieving { order, .. }
            | Self::Downloading { order, .. } => Some(order),
            Self::Requested | Self::AccountReady { .. } | Self::Vouched { .. } | Self::Issued { .. } => None,
        }
    }

    /// The challenges that certstore, or the DNS, may have.
    pub fn published(&self) -> &[Answer] {
        match self {
            Self::ChallengesKnown { answers, .. }
            | Self::Published { answers, .. }
            | Self::ChallengePending { answers, .. } => answers,
            _ => &[],
        }
    }

    /// Its key, once there is one.
    pub(crate) fn sealed(&self) -> Option<&SealedKey> {
        match self {
            Self::KeySealed { sealed, .. }
            | Self::Finalizing { sealed, .. }
            | Self::Retrieving { sealed, .. }
            | Self::Downloading { sealed, .. }
            | Self::Issued { sealed, .. } => Some(sealed),
            _ => None,
        }
    }

    /// The step from which a process goes on that knows it from the journal only: the action may have been performed.
    pub(crate) fn resumed(self) -> Self {
        match self {
            Self::Finalizing { order, sealed } => Self::KeySealed { order, sealed },
            other => other,
        }
    }
}

/// The next of several looks at an order that the CA works on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// When.
    pub at: Timestamp,
    /// How many there were before.
    pub count: u32,
}

impl Look {
    /// A look at this instant.
    pub(crate) fn first(at: Timestamp) -> Self {
        Self { at, count: 0 }
    }

    /// The first look after the CA began to work.
    pub(crate) fn soon(now: Timestamp, retry_after: Option<SignedDuration>) -> Self {
        Self::first(now).again(now, retry_after).unwrap_or(Self::first(now))
    }

    /// The look after this one, not before the CA wants it; none when the CA had its time.
    pub(crate) fn again(self, now: Timestamp, retry_after: Option<SignedDuration>) -> Option<Self> {
        let pause = SignedDuration::from_millis(*PAUSES_MS.get(self.count as usize)?);
        let wait = pause.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
        Some(Self { at: now.checked_add(wait).ok()?, count: self.count + 1 })
    }
}

/// Milliseconds between looks at an order where the CA does not say when: 26 s in all. After that the work is tried again
/// later. The first one is longer than a validation usually takes, so that one look is enough.
pub(crate) const PAUSES_MS: [i64; 7] = [250, 750, 2000, 4000, 6000, 6000, 7000];

/// The longest wait that a CA is granted: an order may be over by then.
const MAX_RETRY_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// A certificate in the eyes of the CA that issued it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The account that ordered it.
    pub account: AccountRef,
    /// Its id (RFC 9773, 4.1).
    pub id: String,
    /// The CA says that another order replaces it already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_replaced: bool,
}

/// A certificate that is to be revoked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revocation {
    /// The CA that it was ordered from; none when that is not known: then the one that is configured is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<AuthorityId>,
    /// The certificate, DER.
    pub leaf: Base64,
    /// The reason that the CA is told. Records of earlier releases have none: then it is a compromised key.
    #[serde(default, skip_serializing_if = "RevocationReason::is_key_compromise")]
    pub reason: RevocationReason,
}
