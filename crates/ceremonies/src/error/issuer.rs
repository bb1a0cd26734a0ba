//! Why the issuers of the key ring are not changed.

use certseal_client::ClientError;
use certseal_seal::EnvelopeError;
use certseal_wire::{DnsName, SignerId};

/// Why the issuers of the key ring are not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
    /// The ring does not list the issuer.
    #[error("the key ring lists no issuer {0}")]
    NotListed(SignerId),
    /// certman or edges take too long.
    #[error("waited in vain for {0}. The old issuers go on counting; run this again")]
    TimedOut(String),
    /// A sealed key in certstore is damaged.
    #[error("the sealed key of {site}")]
    Sealed {
        /// Whose it is.
        site: DnsName,
        /// The damage.
        source: EnvelopeError,
    },
    /// certman does not order a certificate.
    #[error("certman does not renew {site}")]
    NotRenewed {
        /// For this site.
        site: DnsName,
        /// certman's answer.
        source: Box<ClientError>,
    },
}
