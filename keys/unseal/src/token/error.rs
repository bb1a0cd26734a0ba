//! Why a key in a token cannot be used.

use std::path::PathBuf;

use cryptoki::error::Error;

use super::uri::KeyLabel;

/// Why a key in a token cannot be used. No text shows a PIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The vendor's library.
    #[error("cannot use the PKCS#11 module {}: {reason}", path.display())]
    Module {
        /// Where it was looked for.
        path: PathBuf,
        /// The fault of the module.
        reason: String,
    },
    /// No token, or more than one, has the label.
    #[error("expected one token with the label {token:?} in the PKCS#11 module {}, got {count} (tokens there: {found:?})",
        module.display())]
    Token {
        /// The label.
        token: String,
        /// Where it was looked for.
        module: PathBuf,
        /// How many have it.
        count: usize,
        /// The labels of the tokens that are there.
        found: Vec<String>,
    },
    /// The file with the PIN.
    #[error("cannot use the PIN file {}: {reason}", path.display())]
    PinFile {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        reason: String,
    },
    /// The token does not take the PIN.
    #[error("token {token:?} refused the PIN in {} ({reason}): put the right one there; this one is not tried again, since \
        tokens lock themselves after a few wrong ones", path.display())]
    PinRefused {
        /// The token.
        token: String,
        /// The file that holds the PIN.
        path: PathBuf,
        /// The token's answer.
        reason: String,
    },
    /// The URI names no key.
    #[error("the PKCS#11 URI names no key: add ;object=certseal%2FPOOL%2FEPOCH to token={token}")]
    Unnamed {
        /// The token.
        token: String,
    },
    /// No key, or more than one, has the label.
    #[error("expected one {what} with the label {label} in token {token:?}, got {count}: {advice}")]
    Key {
        /// A private key, or a public key.
        what: &'static str,
        /// The label.
        label: String,
        /// The token.
        token: String,
        /// How many there are.
        count: usize,
        /// The remedy.
        advice: &'static str,
    },
    /// The label is taken.
    #[error(
        "token {token:?} has an object with the label {label} already: an unseal key is never replaced, so remove it if \
        no key ring names it, or choose another token"
    )]
    Exists {
        /// The label.
        label: String,
        /// The token.
        token: String,
    },
    /// The key is there, and is not one that can be used.
    #[error("the key {label} in token {token:?} cannot be used: {reason}")]
    Unsuited {
        /// The label.
        label: String,
        /// The token.
        token: String,
        /// The expected property, and the one that came.
        reason: String,
    },
    /// A call failed, which may pass.
    #[error("token {token:?} failed: {reason}")]
    Failed {
        /// The token.
        token: String,
        /// The call, and what the token said.
        reason: String,
    },
    /// It failed a moment ago with this text, and is left alone for a while.
    #[error("{0}")]
    Away(String),
    /// All sessions are in use, or somebody is still trying to reach the token.
    #[error("token {token:?} is busy: no session came free within {seconds} s")]
    Busy {
        /// The token.
        token: String,
        /// How long that was.
        seconds: u64,
    },
}

impl TokenError {
    pub(super) fn failed(token: &str, error: &Error) -> Self {
        Self::Failed { token: token.to_owned(), reason: said(error) }
    }

    pub(super) fn unsuited(token: &str, label: &KeyLabel, reason: impl Into<String>) -> Self {
        Self::Unsuited { label: label.to_string(), token: token.to_owned(), reason: reason.into() }
    }
}

/// An error of the module by its names in PKCS#11, which its documentation can be searched for.
pub(super) fn said(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("C_{function:?} answered {code:?}"),
        other => other.to_string(),
    }
}
