//! The sealed key of a bundle: an envelope, or what a platform brought along.

use certseal_wire::{Digest, PoolName};

use crate::{Envelope, EnvelopeError, LegacyKey};

/// A sealed TLS private key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are envelopes: a box would cost each of them an allocation")]
pub enum Sealed {
    /// As certseal seals.
    Envelope(Envelope),
    /// As a platform sealed it before: read, never written anew.
    Legacy(LegacyKey),
}

impl Sealed {
    /// Reads either, by its magic octets.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.starts_with(b"CSLG") {
            LegacyKey::parse(bytes).map(Self::Legacy)
        } else {
            Envelope::parse(bytes).map(Self::Envelope)
        }
    }

    /// The one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Envelope(envelope) => envelope.to_bytes(),
            Self::Legacy(legacy) => legacy.to_bytes(),
        }
    }

    /// The digest that certman's statement names: an envelope's header hash, or the digest of a legacy key.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Envelope(envelope) => envelope.header().hash(),
            Self::Legacy(legacy) => legacy.digest(),
        }
    }

    /// Whether edges of `pool` can be expected to open it. A legacy key names no pool.
    pub fn is_for(&self, pool: &PoolName) -> bool {
        match self {
            Self::Envelope(envelope) => envelope.stanzas().iter().any(|stanza| stanza.pool == *pool),
            Self::Legacy(_) => true,
        }
    }

    /// The envelope, if it is one.
    pub fn envelope(&self) -> Option<&Envelope> {
        match self {
            Self::Envelope(envelope) => Some(envelope),
            Self::Legacy(_) => None,
        }
    }

    /// The name of its suite on command lines and in reports.
    pub fn suite_name(&self) -> &'static str {
        match self {
            Self::Envelope(envelope) => envelope.header().suite.name(),
            Self::Legacy(legacy) => legacy.suite().name(),
        }
    }
}

impl From<Envelope> for Sealed {
    fn from(envelope: Envelope) -> Self {
        Self::Envelope(envelope)
    }
}

impl From<LegacyKey> for Sealed {
    fn from(legacy: LegacyKey) -> Self {
        Self::Legacy(legacy)
    }
}
