//! Why a rotation does not go on.

use certseal_client::ClientError;
use certseal_seal::{RingError, SignatureError, SuiteError};
use certseal_wire::{Digest, DnsName, Epoch, KeyId, PoolName, RotationId, RotationState};
use jiff::Timestamp;
use tokio::task::JoinError;

/// Why a rotation does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// certstore does not know it.
    #[error("certstore knows no rotation {0}")]
    Unknown(RotationId),
    /// The security team did not sign its plan.
    #[error("the plan does not count")]
    Signature(#[source] SignatureError),
    /// Its plan is another one than certstore says.
    #[error("certstore says that the plan's digest is {said}, but it is {found}")]
    Digest {
        /// The digest that certstore names.
        said: Digest,
        /// The digest of the plan.
        found: Digest,
    },
    /// certstore answers with another one.
    #[error("certstore answers with rotation {0}: it swapped them")]
    Swapped(RotationId),
    /// Its plan is another one than somebody looked at.
    #[error(
        "expected the plan with digest {expected}, but rotation {id} has {found}: look at it with `certctl keys rotate show`"
    )]
    OtherPlan {
        /// The rotation.
        id: RotationId,
        /// The digest that somebody looked at.
        expected: Digest,
        /// The digest of its plan.
        found: Digest,
    },
    /// Nobody has approved it.
    #[error(
        "rotation {id} waits for the approval of another admin: certctl keys rotate approve {id} --digest {digest}"
    )]
    NotApproved {
        /// The rotation.
        id: RotationId,
        /// The digest of its plan.
        digest: Digest,
    },
    /// Its time is over.
    #[error("the plan expired at {0}: make a new one")]
    Expired(Timestamp),
    /// It was given up.
    #[error("rotation {0} was aborted: make a new plan")]
    Aborted(RotationId),
    /// It is not verified.
    #[error("rotation {id} is {state}: run and verify it first")]
    NotVerified {
        /// The rotation.
        id: RotationId,
        /// Its state.
        state: RotationState,
    },
    /// Pages of bundles would not end.
    #[error("certstore goes back to {0}: removing old stanzas would not end")]
    GoesBack(DnsName),
    /// Its plan is for an earlier key ring.
    #[error("the plan is for key ring {planned}, and certstore has version {found}: make a new plan")]
    OtherRing {
        /// The version that the plan is for.
        planned: u64,
        /// The version in certstore.
        found: u64,
    },
    /// The key ring is not the one that the step before left.
    #[error(
        "key ring {version} does not have epoch {epoch} of pool {pool} as this rotation left it: certstore shows another \
         ring than the one that was signed"
    )]
    RingWithoutStep {
        /// The ring's version.
        version: u64,
        /// The epoch that is looked for.
        epoch: Epoch,
        /// The pool.
        pool: PoolName,
    },
    /// Edges take too long.
    #[error("waited in vain for {0}; what is gone for good, `certctl edges forget` removes. Then run this again")]
    EdgesLate(String),
    /// certman takes too long.
    #[error("{0} certificates are still to be issued again; certman goes on with them. Run this again later")]
    CertificatesLeft(u64),
    /// Bundles cannot be sealed to the new key.
    #[error(
        "{failed} of {looked_at} bundles could not be sealed to epoch {epoch}, among them {site}: {reason}. Have them \
         issued again with `certctl site renew`, and run this again"
    )]
    NotSealed {
        /// How many cannot.
        failed: usize,
        /// Of how many.
        looked_at: u64,
        /// The new key's epoch.
        epoch: Epoch,
        /// One of them.
        site: DnsName,
        /// Why it cannot.
        reason: String,
    },
    /// New bundles are sealed to the old key all the time.
    #[error("bundles keep coming that are not sealed to epoch {0}: run this again later")]
    Endless(Epoch),
    /// Nobody issues certificates again.
    #[error("certman has to issue the certificates again: give --certman")]
    NoCertman,
    /// certman does not issue a certificate again.
    #[error("certman does not replace {site}")]
    NotReplaced {
        /// For this site.
        site: DnsName,
        /// certman's answer.
        source: Box<ClientError>,
    },
    /// The pool has no key to replace.
    #[error("pool {0} has no active key: run `certctl keys generate` first")]
    NoActiveKey(PoolName),
    /// There is no next epoch.
    #[error("the pool's epochs cannot count further")]
    EpochsSpent,
    /// The active key's suite is unknown.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// No bundle would be verified.
    #[error("expected to verify one bundle in 1 or more, got 0")]
    NothingVerified,
    /// The end of the plan's time cannot be written.
    #[error("the plan would be valid for too long")]
    ValidTooLong(#[source] jiff::Error),
    /// The new key is not active in the signed ring.
    #[error("the signed key ring does not have epoch {epoch} of pool {pool} as active")]
    NotActive {
        /// The new key's epoch.
        epoch: Epoch,
        /// The pool.
        pool: PoolName,
    },
    /// The new key is none to seal to.
    #[error(transparent)]
    Recipient(RingError),
    /// Verification has other keys at hand than the new one.
    #[error(
        "expected only the private half of epoch {epoch} of pool {pool}, key {key_id}: with the old one at hand nothing is \
         proved"
    )]
    OtherKeys {
        /// The new key's epoch.
        epoch: Epoch,
        /// The pool.
        pool: PoolName,
        /// The new key.
        key_id: KeyId,
    },
    /// A task was stopped.
    #[error("a request was stopped")]
    Stopped(#[source] JoinError),
}
