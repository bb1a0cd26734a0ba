//! Why an unseal key is not made or loaded.

use std::path::PathBuf;

use certseal_client::ClientError;
use certseal_unseal::{
    KeyFileError,
    token::{TokenError, UriError},
};
use certseal_wire::{Epoch, KeyId, PoolName};

use crate::files::FileError;

/// Why an unseal key is not made or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It cannot be generated.
    #[error(transparent)]
    Generate(KeyFileError),
    /// A key that was generated here lacks its private half.
    #[error("a key that was generated here has no private half")]
    NoPrivateHalf,
    /// It cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The token does not make it, or does not have it.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token's URI is none.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// Tokens have keys of one suite only.
    #[error("expected suite p256 for a key in a token, got x25519: give --suite p256")]
    TokenSuite,
    /// Its file would take the place of another one.
    #[error("{} is there already: choose another file for the new key", .0.display())]
    Taken(PathBuf),
    /// A file is no unseal key.
    #[error("{place}")]
    NoKey {
        /// The file.
        place: String,
        /// The cause.
        source: KeyFileError,
    },
    /// Keys of several pools were given, where they have to be of one.
    #[error("expected keys of one pool, got one of pool {0} too")]
    SeveralPools(PoolName),
    /// Nothing was made, and the ring is as it was.
    #[error("the key ring was not changed")]
    NotMade(#[source] Box<KeyError>),
    /// It is not a pool's first one.
    #[error("expected a pool's first key, of epoch {expected}, got epoch {found}")]
    Epoch {
        /// The epoch of first keys.
        expected: Epoch,
        /// The epoch of this one.
        found: Epoch,
    },
    /// Another pool has it.
    #[error("key {key_id} is pool {pool}'s already: each pool needs a key of its own")]
    OtherPools {
        /// The key.
        key_id: KeyId,
        /// The pool that has it.
        pool: PoolName,
    },
    /// The pool has one.
    #[error("pool {pool} has an unseal key already, {key_id} of epoch {epoch}: `certctl keys rotate plan` replaces it")]
    Second {
        /// The pool.
        pool: PoolName,
        /// Its key.
        key_id: KeyId,
        /// The key's epoch.
        epoch: Epoch,
    },
    /// The ring that lists it may not be in certstore.
    #[error("{advice}")]
    NotListed {
        /// The fate of the ring, and advice on the key.
        advice: String,
        /// certstore's answer.
        source: Box<ClientError>,
    },
}
