//! The key ring in certstore, as somebody reads and changes it who remembers the newest one.
//!
//! certstore hands out what it likes: an older ring is genuine as well. Signed anew with the next version it would list
//! again what was removed since. So the version and digest of the newest ring that was read or signed here are kept on the
//! operator's disk, in a file for each security key, and every ring is compared with them before it is used.

use std::path::{Path, PathBuf};

use certseal_client::{ClientError, StoreClient};
use certseal_seal::{RingMark, SigningKey, VerifyingKey, accept_ring};
use certseal_wire::KeyRing;

use crate::{
    error::{Error, KeyRingError},
    ring_memory::{RingMemory, newest},
};

/// The ring of one cluster, which is one security key.
pub struct RingClient<'a> {
    store: &'a StoreClient,
    security: VerifyingKey,
    memory: PathBuf,
}

impl<'a> RingClient<'a> {
    /// The ring in `store`, remembered in the directory `state`, which is made when it is needed.
    pub fn new(store: &'a StoreClient, security: VerifyingKey, state: &Path) -> Self {
        let memory = state.join(format!("ring-{}.json", security.id()));
        Self { store, security, memory }
    }

    /// Where it is.
    pub fn store(&self) -> &'a StoreClient {
        self.store
    }

    /// Whose signature counts.
    pub fn security(&self) -> &VerifyingKey {
        &self.security
    }

    /// The ring, if it is not behind the newest one that was seen here, nor behind `seen`, and no other one of the same
    /// version; an empty one of version 0 when there is none and none was seen.
    ///
    /// # Errors
    /// When it does not count, or the memory of the newest one cannot be read or written.
    pub async fn current(&self, seen: RingMark) -> Result<KeyRing, Error> {
        let signed = self.store.ring().await.map_err(|error| KeyRingError::Unread(Box::new(error)))?;
        let mut memory = RingMemory::open(&self.memory)?;
        let newest = newest(memory.mark(), seen)?;
        let Some(signed) = signed else {
            return match newest.version {
                0 => Ok(KeyRing::default()),
                version => Err(KeyRingError::Hidden(version).into()),
            };
        };
        let ring = accept_ring(&signed, &self.security, newest)?;
        memory.raise(RingMark::of(&ring, &signed))?;
        Ok(ring)
    }

    /// The newest ring that was seen here.
    ///
    /// # Errors
    /// When the memory of it cannot be read.
    pub fn newest(&self) -> Result<RingMark, Error> {
        Ok(RingMemory::open(&self.memory)?.mark())
    }

    /// Like [`RingClient::current`], where there has to be one.
    ///
    /// # Errors
    /// As there, and when there is none.
    pub async fn existing(&self, seen: RingMark) -> Result<KeyRing, Error> {
        let ring = self.current(seen).await?;
        if ring.version > 0 { Ok(ring) } else { Err(KeyRingError::Missing.into()) }
    }

    /// Changes the ring, against whoever else does at the same time. Answers the new one.
    ///
    /// # Errors
    /// As of [`RingClient::existing`], when `change` refuses, or certstore does.
    pub async fn change(
        &self,
        signer: &SigningKey,
        seen: RingMark,
        change: impl FnOnce(&mut KeyRing) -> Result<(), Error>,
    ) -> Result<KeyRing, Error> {
        let mut ring = self.existing(seen).await?;
        change(&mut ring)?;
        ring.version = ring.version.checked_add(1).ok_or(KeyRingError::VersionsSpent)?;
        self.put(signer, &ring).await?.map_err(|error| KeyRingError::NotTaken(Box::new(error)))?;
        Ok(ring)
    }

    /// Signs `ring` and gives it to certstore. That it is remembered is an error of its own, apart from certstore's.
    ///
    /// # Errors
    /// When it cannot be remembered. certstore's answer is inside.
    pub async fn put(&self, signer: &SigningKey, ring: &KeyRing) -> Result<Result<(), ClientError>, Error> {
        let signed = signer.sign(ring);
        let outcome = self.store.put_ring(&signed).await;
        // Not before: certstore may refuse it, and the next one is of the same version then.
        if outcome.is_ok() {
            RingMemory::open(&self.memory)?.raise(RingMark::of(ring, &signed))?;
        }
        Ok(outcome.map(drop))
    }
}
