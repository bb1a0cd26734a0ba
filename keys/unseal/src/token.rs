//! Unseal keys that stay in a PKCS#11 token: an HSM, a smart card, or SoftHSM2.
//!
//! The token does raw ECDH (CKM_ECDH1_DERIVE with CKD_NULL), and never gives its private key out. The key schedule of HPKE
//! runs in this process, on the secret that the token derived. Only P-256: X25519 keys are made, named and used in
//! different ways by the tokens that have them.

mod error;
mod key;
mod login;
mod module;
mod sessions;
mod uri;

use certseal_seal::{Secret, hpke::Kem};
use certseal_wire::{Epoch, PoolName};

pub use error::TokenError;
pub use uri::{KeyLabel, TokenUri, UriError};

use self::{
    key::{Key, is_point},
    login::{log_in, slot_of},
    module::Module,
    sessions::Sessions,
};
use crate::{Agreement, AgreementFailed, UnsealKey};

/// A P-256 private key in a token.
///
/// It survives a token that goes away and comes back: [`Agreement::agree`] answers [`AgreementFailed::Unavailable`]
/// meanwhile, mostly at once.
pub struct TokenKey {
    public_key: Vec<u8>,
    sessions: Sessions,
}

impl TokenKey {
    /// Opens the key that `uri` names: it has to be there once, and is tried.
    ///
    /// # Errors
    /// [`TokenError`] says what was looked for and not found.
    pub fn open(uri: &TokenUri) -> Result<Self, TokenError> {
        let (sessions, key) = Sessions::open(uri.clone())?;
        Ok(Self { public_key: key.public().to_vec(), sessions })
    }
}

impl Agreement for TokenKey {
    fn kem(&self) -> Kem {
        Kem::P256
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn agree(&self, peer: &[u8]) -> Result<Secret<32>, AgreementFailed> {
        // Here, not in the token: not every token checks points, and its answer to a bad one looks like its failing.
        if !is_point(peer) {
            return Err(AgreementFailed::Invalid);
        }
        let agreed = self.sessions.with(&self.public_key, |session, key| key.derive(session, peer));
        agreed.map_err(|error| AgreementFailed::Unavailable(error.to_string()))
    }
}

impl UnsealKey {
    /// The unseal key that `uri` names; its label in the token says of which pool and epoch it is.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn in_token(uri: &TokenUri) -> Result<Self, TokenError> {
        let label = uri.key().ok_or_else(|| TokenError::Unnamed { token: uri.token().to_owned() })?;
        let key = TokenKey::open(uri)?;
        Self::with_agreement(label.pool.clone(), label.epoch, Box::new(key))
            .map_err(|error| TokenError::unsuited(uri.token(), label, error.to_string()))
    }
}

/// Makes a P-256 key for `pool` and `epoch` in the token of `uri`, and opens it. Its private half is sensitive and not
/// extractable; its CKA_ID is the key id. Answers also the URI that names it.
///
/// # Errors
/// [`TokenError::Exists`] when the token has an object of that label, or the URI names another key; nothing was made then.
pub fn generate(uri: &TokenUri, pool: PoolName, epoch: Epoch) -> Result<(UnsealKey, TokenUri), TokenError> {
    let label = KeyLabel { pool, epoch };
    if let Some(other) = uri.key().filter(|named| **named != label) {
        let reason = format!("the key to be made has the label {label}; leave object out of the PKCS#11 URI");
        return Err(TokenError::unsuited(uri.token(), other, reason));
    }
    let uri = uri.clone().with_key(label);
    let module = Module::at(uri.module())?;
    let calls = module.calls();
    let slot = slot_of(calls.context, module.path(), uri.token())?;
    let opened = calls.context.open_rw_session(slot);
    let session = opened.map_err(|error| TokenError::failed(uri.token(), &error))?;
    log_in(&session, &uri, &mut None)?;
    Key::generate(&session, &uri)?;
    drop((session, calls));
    Ok((UnsealKey::in_token(&uri)?, uri))
}
