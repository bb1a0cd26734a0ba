//! Why one item of the feed is refused.

use certseal_seal::{BundleError, RingError, SignatureError};
use certseal_wire::{DnsName, Epoch, ParseError, PoolName};

use crate::key_holder::Unopened;

/// Why one item of the feed is refused. It harms only its name.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("certstore did not hand it out")]
    Missing,
    #[error(transparent)]
    Name(#[from] ParseError),
    #[error("expected a signed document as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("it is about site {0}: it was put in the place of another")]
    OtherSite(DnsName),
    #[error("pool {0} may not serve it")]
    OtherPool(PoolName),
    #[error("its key is not sealed to pool {0}")]
    NotSealedToPool(PoolName),
    #[error("its key cannot be used: {0}")]
    Unusable(String),
    #[error(
        "its key is sealed as before certseal, but the one that is here is not: nothing goes back to legacy formats"
    )]
    BackToLegacy,
    #[error(
        "it is sealed to {}, but the same bundle sealed to epoch {seen} was seen before: the store rolled it back",
        .found.map_or("no listed epoch".to_owned(), |found| format!("epoch {found}"))
    )]
    StanzaRolledBack { found: Option<Epoch>, seen: Epoch },
    #[error("a stanza gives the unseal key of epoch {listed} epoch {found}: it is forged")]
    ForgedEpoch { found: Epoch, listed: Epoch },
    #[error("it has an upstream over TLS, which takes a later release: it is read again by that")]
    UpstreamOverTls,
    #[error("it is the checkpoint of pool {0}: it was put in the place of another")]
    OtherCheckpoint(PoolName),
    #[error("it is of version {found}, but version {seen} was seen before: the store rolled it back")]
    RolledBack { found: u64, seen: u64 },
    #[error("it is of version {0} like the one seen before, but it is not the same: versions are not used twice")]
    Rewritten(u64),
}

/// The end of the handling of one item: its refusal, or of the whole page: the database, and an unseal key that cannot
/// be reached, since no item is to blame then.
pub(super) enum Failure {
    Refused(Refusal),
    Database(redb::Error),
    Unavailable(String),
}

impl Failure {
    /// The failure that follows when a bundle's key cannot be used.
    pub(super) fn unopened(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Unavailable(reason) => Self::Unavailable(reason),
            Unopened::Unusable(reason) => Self::Refused(Refusal::Unusable(reason)),
        }
    }
}

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Self {
        Self::Database(error)
    }
}

impl<E: Into<Refusal>> From<E> for Failure {
    fn from(refusal: E) -> Self {
        Self::Refused(refusal.into())
    }
}
