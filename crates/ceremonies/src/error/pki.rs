//! Why the private PKI is not made or changed.

use std::{error::Error as StdError, path::PathBuf};

use certseal_seal::SignatureError;
use certseal_service::config::ConfigError;
use certseal_wire::{Caller, ParseError, Role};

use crate::files::FileError;

/// Why the private PKI is not made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// Files cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A signing key cannot be made.
    #[error(transparent)]
    SigningKey(#[from] SignatureError),
    /// A name is none.
    #[error(transparent)]
    Name(#[from] ParseError),
    /// Something cannot be generated, encoded or signed.
    #[error("{what}")]
    Unmade {
        /// Which step failed.
        what: String,
        /// Why.
        source: rcgen::Error,
    },
    /// Something has no PEM, or is no name in a certificate.
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    /// A CA's name has the wrong length.
    #[error("expected a CA name of 1 to 64 characters, got {0:?}")]
    CaName(String),
    /// Clients have no server names.
    #[error("only role service has server names: a client with role {role} is known by its SPIFFE ID alone", role = .0)]
    ServerNames(Role),
    /// A directory has no PKI.
    #[error("{} holds no PKI: `certctl pki init` makes one", dir.display())]
    NoPki {
        /// The directory.
        dir: PathBuf,
        /// Which file is not usable.
        source: ConfigError,
    },
    /// A file has several certificates, or none.
    #[error("expected one certificate in {}, got {found}", path.display())]
    Chain {
        /// The file.
        path: PathBuf,
        /// How many it has.
        found: usize,
    },
    /// A file does not parse.
    #[error("{}", path.display())]
    Unparsable {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A file is no private key.
    #[error("{} is no private key", .0.display())]
    NoKey(PathBuf),
    /// A file is no private key that can sign.
    #[error("{} is no private key", path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rcgen::Error,
    },
    /// The CA's certificate and key do not belong together.
    #[error("{} is not the key of {}: the files are of different PKIs", key.display(), certificate.display())]
    OtherKey {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
    /// An identity reads back as another one.
    #[error("{caller} is ambiguous: it would be taken for {read_back}")]
    Ambiguous {
        /// The identity.
        caller: Caller,
        /// The other one.
        read_back: Caller,
    },
    /// A server's name is none.
    #[error("expected a DNS name as a server's name, got {0:?}")]
    ServerName(String),
    /// A server's further name is of a kind that certificates do not have.
    #[error("expected a DNS name or an IP address as a server's name")]
    ServerNameKind,
    /// A certificate is not that of a CA made here.
    #[error("expected a CA certificate with the URI name spiffe://TRUST-DOMAIN")]
    NoTrustDomain,
    /// There is no identity of this name.
    #[error("expected an identity of {}, got {name:?}", dir.display())]
    NoIdentity {
        /// The directory of the PKI.
        dir: PathBuf,
        /// The name.
        name: String,
        /// Why its certificate is not usable.
        source: ConfigError,
    },
}

impl PkiError {
    /// A step that failed.
    pub(crate) fn unmade(what: impl ToString) -> impl FnOnce(rcgen::Error) -> Self {
        move |source| Self::Unmade { what: what.to_string(), source }
    }
}
