//! The holder of the unseal key, which opens sealed keys for an edge: the process itself, or another one that gives out
//! signatures only.

use std::sync::{Arc, PoisonError, RwLock};

use certseal_seal::{Bundle, KeyKind, Sealed};
use certseal_unseal::{OpenError, UnsealKeys};
use certseal_wire::{KeyId, PoolName};
use rustls::{
    crypto::aws_lc_rs::sign::{any_ecdsa_type, any_supported_type},
    sign::SigningKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{MirrorError, leaf_key::LeafKey};

/// Makes sealed keys usable.
pub trait KeyHolder: Send + Sync + 'static {
    /// A signing key for the certificate with the public key `leaf`.
    ///
    /// # Errors
    /// [`Unopened`] when `sealed` does not open, or holds another key.
    fn signing_key(&self, sealed: &Sealed, leaf: &LeafKey) -> Result<Arc<dyn SigningKey>, Unopened>;

    /// Whether `sealed` opens, and holds the key of the certificate.
    ///
    /// # Errors
    /// [`Unopened`].
    fn check(&self, sealed: &Sealed, leaf: &LeafKey) -> Result<(), Unopened>;

    /// The ids of the keys that are loaded, newest epoch first, and those of legacy formats.
    fn loaded(&self) -> Vec<KeyId>;
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// It will not open later either, unless another unseal key is loaded. The text names nothing secret.
    #[error("{0}")]
    Unusable(String),
    /// The holder of the unseal key cannot be reached now.
    #[error("{0}")]
    Unavailable(String),
}

impl From<OpenError> for Unopened {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unavailable { .. } => Self::Unavailable(error.to_string()),
            error => Self::Unusable(error.to_string()),
        }
    }
}

/// Unseal keys in this process, which can be replaced while it runs.
pub struct LocalKeys {
    pool: PoolName,
    keys: RwLock<Arc<UnsealKeys>>,
}

impl LocalKeys {
    /// The unseal keys of an edge of `pool`.
    ///
    /// # Errors
    /// [`MirrorError::Pool`] when a key is of another pool.
    pub fn new(pool: &PoolName, keys: UnsealKeys) -> Result<Arc<Self>, MirrorError> {
        let holder = Self { pool: pool.clone(), keys: RwLock::default() };
        holder.replace(keys)?;
        Ok(Arc::new(holder))
    }

    /// Goes by these keys from now on. Call [`crate::SealedResolver::keys_changed`] after.
    ///
    /// # Errors
    /// [`MirrorError::Pool`] when a key is of another pool; nothing is changed then.
    pub fn replace(&self, keys: UnsealKeys) -> Result<(), MirrorError> {
        if let Some(stray) = keys.iter().find(|key| *key.pool() != self.pool) {
            return Err(MirrorError::Pool {
                what: "an unseal key",
                expected: self.pool.clone(),
                found: stray.pool().to_string(),
            });
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    fn current(&self) -> Arc<UnsealKeys> {
        // The lock is held for assignments only.
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl KeyHolder for LocalKeys {
    fn signing_key(&self, sealed: &Sealed, leaf: &LeafKey) -> Result<Arc<dyn SigningKey>, Unopened> {
        let private = self.current().open_sealed(sealed)?;
        let unusable = |reason: &str| Unopened::Unusable(reason.to_owned());
        if private.kind() != leaf.kind() {
            return Err(unusable("the sealed key is of another kind than the certificate's"));
        }
        // Borrowed, so that no copy outlives `private`, which is wiped.
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(private.expose_pkcs8()));
        let parsed = match private.kind() {
            KeyKind::EcdsaP256 => any_ecdsa_type(&der),
            // Tries RSA first; a key of another kind does not pass the check below.
            KeyKind::Rsa => any_supported_type(&der),
        };
        let key = parsed.map_err(|_| unusable("what was sealed is no private key"))?;
        let is_the_leafs = key.public_key().is_some_and(|spki| *spki == *leaf.spki());
        is_the_leafs.then_some(key).ok_or_else(|| unusable("the sealed key is not the certificate's"))
    }

    fn check(&self, sealed: &Sealed, leaf: &LeafKey) -> Result<(), Unopened> {
        self.signing_key(sealed, leaf).map(drop)
    }

    fn loaded(&self) -> Vec<KeyId> {
        let keys = self.current();
        keys.iter().map(|key| key.key_id()).chain(keys.legacy().iter().map(|key| key.id())).collect()
    }
}

/// Whether the key of a bundle opens and is its certificate's.
pub(crate) fn check_bundle(holder: &dyn KeyHolder, bundle: &Bundle) -> Result<(), Unopened> {
    holder.check(bundle.sealed(), &leaf_of(bundle)?)
}

fn leaf_of(bundle: &Bundle) -> Result<LeafKey, Unopened> {
    let no_leaf =
        || Unopened::Unusable("expected a certificate with an ECDSA P-256 or RSA key, got another".to_owned());
    bundle.leaf_spki().and_then(LeafKey::from_spki).ok_or_else(no_leaf)
}
