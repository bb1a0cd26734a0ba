//! The actions that a site asks for, and their outcomes.

use certseal_wire::{Base64, DnsName, NamesReport, ProfileName};
use jiff::{SignedDuration, Timestamp};

use crate::{
    AccountRef, Answer, AuthorityId, Lineage, OrderRef, OrderReport, Revocation, SealedKey, Stage,
    budget::{Delay, OrderKind, Reserved, Settlement},
    lane::Lane,
    renewal::Window,
};

/// The next thing to do for a site.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Perform this, and tell the site what came of it.
    Do(Action),
    /// Enter this in the books of the CA's limits, in one transaction with what becomes of the site.
    Book(Booking),
    /// Nothing before this instant.
    WakeAt(Timestamp),
    /// Nothing before somebody changes the site.
    Rest,
}

/// An entry in the books of a CA's limits.
#[derive(Debug, Clone, PartialEq)]
pub enum Booking {
    /// Reserve room for an order.
    Reserve {
        /// The account that is to place it.
        account: AccountRef,
        /// The order, as the CA counts it.
        kind: OrderKind,
        /// The priority.
        lane: Lane,
        /// The room for the certificate is reserved already: an order of which nobody knows whether the CA got it is placed
        /// again.
        again: bool,
    },
    /// Enter what became of an order.
    Settle {
        /// The account that placed it.
        account: AccountRef,
        /// What became of it.
        settlement: Settlement,
    },
}

/// The outcome of a booking.
#[derive(Debug, Clone, PartialEq)]
pub enum Booked {
    /// There is room.
    Reserved(Reserved),
    /// There is none yet.
    Delayed(Delay),
    /// It is entered.
    Settled,
}

/// One effect on the world.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Put the route into certstore.
    StoreRoute,
    /// Have the CA revoke a certificate.
    Revoke(Revocation),
    /// Deactivate what is pending in an order that was given up (RFC 8555, 7.5.2).
    Deactivate(OrderRef),
    /// Delete challenges from certstore that have served.
    RetractChallenges(Vec<Answer>),
    /// Look which version of the bundle certstore has.
    Confirm,
    /// Look at the site's names in the DNS, as a CA would.
    LookAtNames,
    /// Ask the CA when it wants a certificate to be renewed (RFC 9773, 4).
    AskAdvice(Lineage),
    /// Fetch the OCSP answer for the stored certificate, verify it, and put it into certstore under this version.
    FetchStaple {
        /// The version.
        version: u64,
    },
    /// Take room from the budget for certificates that certstore lost.
    TakeReorder,
    /// Have an account at the CA. Whether the site's pools can be sealed to is looked at first: a CA is asked for nothing that
    /// would then be left behind.
    OpenAccount(AuthorityId),
    /// Put the account into the signed list by which edges answer challenges.
    VouchForAccount(AccountRef),
    /// Create an order (RFC 8555, 7.4). It cannot be repeated: each time makes another one.
    OpenOrder {
        /// The account that places it.
        account: AccountRef,
        /// The certificate that it replaces, by its id (RFC 9773, 5).
        replaces: Option<String>,
        /// The certificate profile to ask for; the CA's default when absent.
        profile: Option<ProfileName>,
    },
    /// Read the order's authorizations and their challenges (RFC 8555, 7.5).
    FetchChallenges(OrderRef),
    /// Put the answers to challenges into certstore.
    PublishChallenges(Vec<Answer>),
    /// Tell the CA that the challenges are answered (RFC 8555, 7.5.1).
    BeginValidation(OrderRef),
    /// Read the order's state (RFC 8555, 7.1.6).
    LookAtOrder(OrderRef),
    /// Generate a key, make the request for it and seal it; nothing of the key is kept.
    SealKey,
    /// Hand the request over (RFC 8555, 7.4).
    Finalize(OrderRef, SealedKey),
    /// Download the chain (RFC 8555, 7.4.2).
    FetchCertificate(OrderRef, SealedKey),
    /// Put the bundle of key and chain into certstore.
    StoreBundle {
        /// The key.
        sealed: SealedKey,
        /// The chain as DER, leaf first.
        chain: Vec<Base64>,
    },
}

impl Action {
    /// The kind of work that the action belongs to.
    pub fn work(&self) -> Work {
        match self {
            Self::StoreRoute => Work::Route,
            Self::Revoke(_) => Work::Revocation,
            Self::Deactivate(_) | Self::RetractChallenges(_) => Work::Cleanup,
            Self::Confirm | Self::TakeReorder => Work::Confirmation,
            Self::AskAdvice(_) => Work::Advice,
            Self::LookAtNames => Work::Names,
            Self::FetchStaple { .. } => Work::Staple,
            Self::OpenAccount(_)
            | Self::VouchForAccount(_)
            | Self::OpenOrder { .. }
            | Self::FetchChallenges(_)
            | Self::PublishChallenges(_)
            | Self::BeginValidation(_)
            | Self::LookAtOrder(_)
            | Self::SealKey
            | Self::Finalize(..)
            | Self::FetchCertificate(..)
            | Self::StoreBundle { .. } => Work::Order,
        }
    }

    /// The stage whose workers perform it: a CA that is slow at one holds up no other.
    pub fn stage(&self) -> Stage {
        match self {
            Self::LookAtOrder(_) => Stage::Challenge,
            Self::SealKey | Self::Finalize(..) | Self::FetchCertificate(..) | Self::StoreBundle { .. } => {
                Stage::Retrieval
            }
            _ => Stage::Authorize,
        }
    }

    /// Whether the site must be durable as it is before the action is performed: its contents cannot be had again, or a
    /// request that somebody made meanwhile must come before it reaches the edges.
    pub fn needs_durable_state(&self) -> bool {
        matches!(self, Self::Finalize(..) | Self::StoreBundle { .. })
    }

    /// Whether the site must be durable right after the action: it cannot be repeated, or others wait for its effect.
    pub fn makes_state_that_must_last(&self) -> bool {
        matches!(self, Self::OpenOrder { .. } | Self::StoreBundle { .. } | Self::StoreRoute | Self::Revoke(_))
    }
}

/// The outcome of an action.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// certstore has the route.
    RouteStored,
    /// The CA has revoked the certificate, or never will.
    Revoked(Revocation),
    /// Nothing is pending in that order any more.
    Deactivated(OrderRef),
    /// The challenges are deleted, or left to expire.
    Retracted,
    /// certstore has this version of the bundle; 0 for none.
    Confirmed(u64),
    /// Whether the site's names are ready.
    NamesAre(NamesReport),
    /// There is room to order what certstore lost.
    ReorderTaken,
    /// The CA suggests when to renew.
    Advised {
        /// The suggested window.
        window: Window,
        /// How long it asks to be left alone with that question.
        retry_after: SignedDuration,
        /// A page about why.
        explanation: Option<String>,
    },
    /// The CA gives no advice.
    NotAdvised,
    /// certstore has an OCSP answer for the certificate.
    Stapled {
        /// Its version.
        version: u64,
        /// From when on it holds.
        this_update: Timestamp,
        /// When it has run out.
        next_update: Timestamp,
    },
    /// The stored certificate names no responder that can be asked.
    NoResponder,
    /// There is an account.
    AccountReady(AccountRef),
    /// Edges answer for the account.
    Vouched,
    /// The CA has an order.
    OrderOpened(OrderRef),
    /// The answers to give, for names that are not authorized yet.
    ChallengesKnown(Vec<Answer>),
    /// certstore has the answers.
    Published,
    /// The CA knows that it can validate.
    ValidationBegun {
        /// How long it asks to be left alone with it.
        retry_after: Option<SignedDuration>,
    },
    /// What the CA says of the order.
    OrderIs(OrderReport),
    /// A key is sealed.
    KeySealed(SealedKey),
    /// The chain as DER, leaf first; none while the CA is still at work.
    Certificate(Option<Vec<Base64>>),
    /// certstore has the bundle.
    Stored {
        /// The CA's name.
        authority: String,
        /// The certificate's id at its CA (RFC 9773, 4.1), where it has one.
        id: Option<String>,
        /// Start of validity.
        not_before: Timestamp,
        /// End of validity.
        not_after: Timestamp,
        /// Whether the certificate names an OCSP responder that can be asked.
        responder: bool,
    },
    /// It did not work.
    Failed(Failure),
}

/// Why an action did not work.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Its consequence.
    pub kind: FailureKind,
    /// The event, described for people.
    pub detail: String,
    /// Names whose validation the CA says failed.
    pub names: Vec<DnsName>,
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: FailureKind, detail: impl ToString) -> Self {
        // The words of others are kept in the journal, shown and logged: they must not grow without bound.
        Self { kind, detail: detail.to_string().chars().take(Self::MAX_DETAIL).collect(), names: Vec::new() }
    }

    /// Whether the same action may work later.
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, FailureKind::Unavailable | FailureKind::Unanswered | FailureKind::Throttled(_))
    }

    /// The most characters of a detail.
    pub const MAX_DETAIL: usize = 1000;
}

/// The consequence of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Somebody could not be reached or is not ready: the same action again soon.
    Unavailable,
    /// The question went out and no answer came, so that nobody knows what was done: the same action again soon.
    Unanswered,
    /// The party that was asked wants to be left alone for at least this many seconds: then the same action again.
    Throttled(u64),
    /// certstore has this version already, put there by us: the next one goes above it.
    Outrun(u64),
    /// The CA says that another order replaces the certificate already (RFC 9773, 5): at once again, without saying that this
    /// one does.
    AlreadyReplaced,
    /// The CA gave up on this order: a new one begins later.
    Rejected,
    /// No order for this site can succeed.
    Hopeless,
}

/// The kinds of work on a site. Each has its own retries, so that none waits for another's failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The route on its way to certstore.
    Route,
    /// A certificate on its way to the edges.
    Order,
    /// Compromised certificates on their way to the CA.
    Revocation,
    /// The remains of orders, at the CA and in certstore.
    Cleanup,
    /// Doubt about what certstore has.
    Confirmation,
    /// The question when to renew.
    Advice,
    /// Looks at the names of an order that the CA rejected.
    Names,
    /// The OCSP answer for the certificate.
    Staple,
}

impl Work {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Route,
        Self::Order,
        Self::Revocation,
        Self::Cleanup,
        Self::Confirmation,
        Self::Advice,
        Self::Names,
        Self::Staple,
    ];
}

/// When work is due, and before which other sites' work it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The priority.
    pub lane: Lane,
    /// The instant; none for at once.
    pub at: Option<Timestamp>,
}
