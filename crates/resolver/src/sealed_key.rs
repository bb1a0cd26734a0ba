//! A TLS signing key that stays sealed until something has to be signed.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use certseal_seal::Sealed;
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    sign::{Signer, SigningKey},
};
use rustls_pki_types::SubjectPublicKeyInfoDer;

use crate::{
    counts::Counters,
    key_holder::{KeyHolder, Unopened},
    leaf_key::LeafKey,
};

/// The signing key of one site's certificate.
///
/// The facts that a handshake needs before it signs come from the certificate. The envelope is opened by the first
/// signature, at most once, whether that succeeds or not. While the unseal key cannot be reached, each signature tries.
pub(crate) struct SealedKey(Arc<Inner>);

struct Inner {
    site: String,
    sealed: Sealed,
    leaf: LeafKey,
    holder: Arc<dyn KeyHolder>,
    counters: Arc<Counters>,
    /// The opened key; none when it could not be opened, which the log says once.
    opened: OnceLock<Option<Arc<dyn SigningKey>>>,
    /// Held while the envelope is opened; true once the log says that the unseal key cannot be reached.
    opening: Mutex<bool>,
}

impl SealedKey {
    pub(crate) fn new(
        site: &str,
        sealed: Sealed,
        leaf: LeafKey,
        holder: Arc<dyn KeyHolder>,
        counters: Arc<Counters>,
    ) -> Self {
        let (site, opened, opening) = (site.to_owned(), OnceLock::new(), Mutex::new(false));
        Self(Arc::new(Inner { site, sealed, leaf, holder, counters, opened, opening }))
    }
}

impl SigningKey for SealedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = *self.0.leaf.schemes().iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(SealedSigner { key: self.0.clone(), scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.0.leaf.spki().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.leaf.algorithm()
    }
}

impl std::fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug)]
struct SealedSigner {
    key: Arc<Inner>,
    scheme: SignatureScheme,
}

impl Signer for SealedSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = || Error::General("the key of this site cannot be used".to_owned());
        let key = self.key.opened().ok_or_else(failed)?;
        key.choose_scheme(&[self.scheme]).ok_or_else(failed)?.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl Inner {
    fn opened(&self) -> Option<&Arc<dyn SigningKey>> {
        if let Some(outcome) = self.opened.get() {
            return outcome.as_ref();
        }
        let mut said = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.opened.get().is_none() {
            let outcome = match self.open() {
                Ok(key) => {
                    Counters::add(&self.counters.unsealed);
                    Some(key)
                }
                Err(Unopened::Unusable(reason)) => {
                    Counters::add(&self.counters.unseal_failures);
                    tracing::error!(site = self.site, reason, "cannot use a sealed key");
                    None
                }
                Err(Unopened::Unavailable(error)) => {
                    Counters::add(&self.counters.unseal_failures);
                    if !std::mem::replace(&mut *said, true) {
                        tracing::error!(site = self.site, %error, "cannot use a sealed key for now");
                    }
                    return None;
                }
            };
            let _ = self.opened.set(outcome);
        }
        self.opened.get()?.as_ref()
    }

    fn open(&self) -> Result<Arc<dyn SigningKey>, Unopened> {
        self.holder.signing_key(&self.sealed, &self.leaf)
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedKey").field("site", &self.site).finish_non_exhaustive()
    }
}
