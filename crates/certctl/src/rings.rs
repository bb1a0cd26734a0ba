//! The key ring in certstore, as somebody reads and changes it who remembers the newest one.
//!
//! certstore hands out what it likes: an older ring is genuine as well. Signed anew with the next version it would list
//! again what was removed since. So the version and digest of the newest ring that was read or signed here are kept on the
//! operator's disk, in a file for each security key, and every ring is compared with them before it is used.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use certseal_client::{ClientError, StoreClient};
use certseal_seal::{RingMark, SigningKey, VerifyingKey, accept_ring};
use certseal_wire::{Digest, KeyRing};
use serde::{Deserialize, Serialize};

/// The ring of one cluster, which is one security key.
pub struct Rings<'a> {
    store: &'a StoreClient,
    security: VerifyingKey,
    memory: PathBuf,
}

impl<'a> Rings<'a> {
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
    pub async fn current(&self, seen: RingMark) -> anyhow::Result<KeyRing> {
        let signed = self.store.ring().await.context("cannot read the key ring")?;
        let mut memory = Memory::open(&self.memory)?;
        let newest = newest(memory.mark, seen)?;
        let Some(signed) = signed else {
            ensure!(
                newest.version == 0,
                "certstore has no key ring, but version {} was seen before: the store lost it, or hides it",
                newest.version
            );
            return Ok(KeyRing::default());
        };
        let ring = accept_ring(&signed, &self.security, newest)?;
        memory.raise(RingMark::of(&ring, &signed))?;
        Ok(ring)
    }

    /// The newest ring that was seen here.
    ///
    /// # Errors
    /// When the memory of it cannot be read.
    pub fn newest(&self) -> anyhow::Result<RingMark> {
        Ok(Memory::open(&self.memory)?.mark)
    }

    /// Like [`Rings::current`], where there has to be one.
    ///
    /// # Errors
    /// As there, and when there is none.
    pub async fn existing(&self, seen: RingMark) -> anyhow::Result<KeyRing> {
        let ring = self.current(seen).await?;
        ensure!(ring.version > 0, "certstore has no key ring yet: `certctl keys generate` makes the first one");
        Ok(ring)
    }

    /// Changes the ring, against whoever else does at the same time. Answers the new one.
    ///
    /// # Errors
    /// As of [`Rings::existing`], when `change` refuses, or certstore does.
    pub async fn change(
        &self,
        signer: &SigningKey,
        seen: RingMark,
        change: impl FnOnce(&mut KeyRing) -> anyhow::Result<()>,
    ) -> anyhow::Result<KeyRing> {
        let mut ring = self.existing(seen).await?;
        change(&mut ring)?;
        ring.version = ring.version.checked_add(1).context("the key ring's version cannot count further")?;
        self.put(signer, &ring).await?.context("certstore does not take the key ring")?;
        Ok(ring)
    }

    /// Signs `ring` and gives it to certstore. That it is remembered is an error of its own, apart from certstore's.
    ///
    /// # Errors
    /// When it cannot be remembered. What certstore answers is inside.
    pub async fn put(&self, signer: &SigningKey, ring: &KeyRing) -> anyhow::Result<Result<(), ClientError>> {
        let signed = signer.sign(ring);
        let outcome = self.store.put_ring(&signed).await;
        // Not before: certstore may refuse it, and the next one is of the same version then.
        if outcome.is_ok() {
            Memory::open(&self.memory)?.raise(RingMark::of(ring, &signed))?;
        }
        Ok(outcome.map(drop))
    }
}

/// Whichever is newer; of one version, whichever says more.
fn newest(ours: RingMark, given: RingMark) -> anyhow::Result<RingMark> {
    if ours.version == given.version
        && let (Some(seen), Some(expected)) = (ours.digest, given.digest)
        && seen != expected
    {
        let version = ours.version;
        bail!(
            "two key rings of version {version} are known, with digests {seen} and {expected}: find out who signed both"
        );
    }
    Ok(match ours.version.cmp(&given.version) {
        std::cmp::Ordering::Less => given,
        std::cmp::Ordering::Greater => ours,
        std::cmp::Ordering::Equal => RingMark { digest: ours.digest.or(given.digest), ..ours },
    })
}

/// The file, locked against other certctls until it is dropped.
struct Memory {
    file: File,
    path: PathBuf,
    mark: RingMark,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    version: u64,
    digest: Digest,
}

impl Memory {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let read = || -> io::Result<(File, String)> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(crate::files::parent(path))?;
            let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).to_owned();
            let file = options.open(path)?;
            file.lock()?;
            let mut text = String::new();
            Read::take(&file, MAX_OCTETS).read_to_string(&mut text)?;
            Ok((file, text))
        };
        let (file, text) = read().with_context(|| {
            format!("cannot remember the key ring in {}: give another directory with --state", path.display())
        })?;
        let mark = match text.is_empty() {
            true => RingMark::default(),
            false => {
                let Remembered { version, digest } = serde_json::from_str(&text).with_context(|| {
                    format!("{} does not say which key ring was seen last: look at it, or remove it", path.display())
                })?;
                RingMark { version, digest: Some(digest) }
            }
        };
        Ok(Self { file, path: path.to_owned(), mark })
    }

    fn raise(&mut self, to: RingMark) -> anyhow::Result<()> {
        let Some(digest) = to.digest.filter(|_| to.version > self.mark.version) else { return Ok(()) };
        let text = serde_json::to_string(&Remembered { version: to.version, digest })?;
        // In place, since the lock is on this file. The text never gets shorter, and what a crash leaves of it is noticed.
        let mut write = || {
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())?;
            self.file.set_len(text.len() as u64)?;
            self.file.sync_all()
        };
        write().with_context(|| format!("cannot remember the key ring in {}", self.path.display()))?;
        self.mark = to;
        Ok(())
    }
}

/// A version, a digest, and what stands around them.
const MAX_OCTETS: u64 = 1024;
