//! Why a ceremony does not go on.

mod export;
mod import;
mod issuer;
mod key;
mod legacy;
mod migration;
mod onboarding;
mod pki;
mod ring;
mod rotation;

use certseal_client::ClientError;
use certseal_seal::RingError;
use certseal_service::config::ConfigError;

pub use self::{
    export::ExportError,
    import::{FolderError, ImportError},
    issuer::IssuerError,
    key::KeyError,
    legacy::LegacyError,
    migration::MigrationError,
    onboarding::OnboardingError,
    pki::PkiError,
    ring::KeyRingError,
    rotation::RotationError,
};
use crate::{files::FileError, sealed_pages::PagesError};

/// Why a ceremony does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A daemon cannot be reached, or refuses.
    #[error(transparent)]
    Client(Box<ClientError>),
    /// Sealed keys cannot be read from certstore.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// A file is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key ring does not count.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The key ring is not used or changed.
    #[error(transparent)]
    KeyRing(#[from] KeyRingError),
    /// An unseal key is not made or loaded.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The issuers are not changed.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// Sites are not onboarded.
    #[error(transparent)]
    Onboarding(#[from] OnboardingError),
    /// A rotation does not go on.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// A migration does not go on.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// Nothing more is imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The system has no randomness.
    #[error("no randomness: {0}")]
    NoRandomness(getrandom::Error),
    /// A value has no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// The answer of a daemon, or its silence, if that is the cause.
    pub fn client(&self) -> Option<&ClientError> {
        match self {
            Self::Client(error)
            | Self::Pages(PagesError::Client(error))
            | Self::KeyRing(KeyRingError::Unread(error) | KeyRingError::NotTaken(error))
            | Self::Key(KeyError::NotListed { source: error, .. })
            | Self::Issuer(IssuerError::NotRenewed { source: error, .. })
            | Self::Rotation(RotationError::NotReplaced { source: error, .. }) => Some(error),
            _ => None,
        }
    }

    /// Whether somebody was waited for in vain: the same may succeed later.
    pub fn is_time_out(&self) -> bool {
        matches!(
            self,
            Self::Issuer(IssuerError::TimedOut(_))
                | Self::Rotation(RotationError::EdgesLate(_) | RotationError::CertificatesLeft(_))
        )
    }

    /// Whether what was named is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Issuer(IssuerError::NotListed(_)))
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}
