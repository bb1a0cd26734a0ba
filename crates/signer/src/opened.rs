//! Keys that were opened, bounded in bytes. aws-lc wipes a key when the last one lets go of it.

use std::sync::Arc;

use certseal_resolver::Unopened;
use quick_cache::{
    Weighter,
    sync::{Cache, GuardResult},
};
use rustls::{SignatureAlgorithm, sign::SigningKey};
use sha2::{Digest, Sha256};

use crate::protocol::SealedFor;

pub(crate) struct OpenedKeys(Cache<Id, Arc<dyn SigningKey>, ByBytes>);

/// SHA-256 over the sealed key and its certificate's public half.
type Id = [u8; 32];

impl OpenedKeys {
    pub(crate) fn new(budget: u64) -> Self {
        let items = usize::try_from(budget / ECDSA_BYTES).unwrap_or(usize::MAX).clamp(1, MAX_ITEMS);
        Self(Cache::with_weighter(items, budget, ByBytes))
    }

    /// The opened key. One caller opens it, others for the same one wait. A key that does not open is not remembered.
    pub(crate) fn get_or_open(
        &self,
        key: &SealedFor<'_>,
        open: impl FnOnce() -> Result<Arc<dyn SigningKey>, Unopened>,
    ) -> Result<Arc<dyn SigningKey>, Unopened> {
        let mut hash = Sha256::new_with_prefix((key.sealed.len() as u64).to_be_bytes());
        hash.update(key.sealed);
        hash.update(key.spki);
        match self.0.get_value_or_guard(&Id::from(hash.finalize()), None) {
            GuardResult::Value(opened) => Ok(opened),
            GuardResult::Guard(place) => {
                let opened = open()?;
                // The place is gone when everything was forgotten meanwhile. This one caller still gets the key.
                let _ = place.insert(opened.clone());
                Ok(opened)
            }
            // Without a limit to the waiting, this does not come.
            GuardResult::Timeout => open(),
        }
    }

    pub(crate) fn forget(&self) {
        self.0.clear();
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Id, Arc<dyn SigningKey>> for ByBytes {
    fn weight(&self, _: &Id, key: &Arc<dyn SigningKey>) -> u64 {
        match key.algorithm() {
            SignatureAlgorithm::RSA => RSA_BYTES,
            _ => ECDSA_BYTES,
        }
    }
}

/// The octets that aws-lc keeps of a P-256 key, and the cache's own, about.
const ECDSA_BYTES: u64 = 2 * 1024;

/// The same for RSA, with the numbers that it computes ahead.
const RSA_BYTES: u64 = 11 * 1024;

/// Room is made for no more than this at first, however large the budget.
const MAX_ITEMS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;
    use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    #[test]
    fn the_budget_bounds_what_stays_open_and_a_forgotten_key_is_opened_again() {
        let der = KeyPair::generate().unwrap().serialize_der();
        let key = any_ecdsa_type(&PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der))).unwrap();
        let cache = OpenedKeys::new(200 * ECDSA_BYTES);
        let is_opened = |number: u32| {
            let (sealed, mut opened) = (number.to_be_bytes(), false);
            let sealed = SealedFor { sealed: &sealed, spki: b"spki" };
            let open = || {
                opened = true;
                Ok(key.clone())
            };
            cache.get_or_open(&sealed, open).unwrap();
            opened
        };
        for number in 0..1000 {
            assert!(is_opened(number));
        }
        assert!((50..=200).contains(&cache.count()), "{}", cache.count());
        assert!(is_opened(5000) && !is_opened(5000));
        cache.forget();
        assert!(is_opened(5000));
        let failed = SealedFor { sealed: b"x", spki: b"" };
        for _ in 0..2 {
            assert!(cache.get_or_open(&failed, || Err(Unopened::Unavailable("away".to_owned()))).is_err());
        }
    }
}
