//! The newest key ring that was seen on this machine, in a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use certseal_seal::RingMark;
use certseal_wire::Digest;
use serde::{Deserialize, Serialize};

use crate::{error::KeyRingError, files::parent};

/// The file, locked against other certctls until it is dropped.
pub(crate) struct RingMemory {
    file: File,
    path: PathBuf,
    mark: RingMark,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    version: u64,
    digest: Digest,
}

impl RingMemory {
    /// Opens the file, which is made when it is not there, and waits until nobody else has it.
    pub(crate) fn open(path: &Path) -> Result<Self, KeyRingError> {
        let read = || -> io::Result<(File, String)> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent(path))?;
            let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).to_owned();
            let file = options.open(path)?;
            file.lock()?;
            let mut text = String::new();
            Read::take(&file, MAX_OCTETS).read_to_string(&mut text)?;
            Ok((file, text))
        };
        let (file, text) = read().map_err(|source| KeyRingError::NoMemory { path: path.to_owned(), source })?;
        let mark = if text.is_empty() {
            RingMark::default()
        } else {
            let Remembered { version, digest } = serde_json::from_str(&text)
                .map_err(|source| KeyRingError::Forgotten { path: path.to_owned(), source })?;
            RingMark { version, digest: Some(digest) }
        };
        Ok(Self { file, path: path.to_owned(), mark })
    }

    /// The newest ring that was seen.
    pub(crate) fn mark(&self) -> RingMark {
        self.mark
    }

    /// Remembers a ring, if it is newer.
    pub(crate) fn raise(&mut self, to: RingMark) -> Result<(), KeyRingError> {
        let Some(digest) = to.digest.filter(|_| to.version > self.mark.version) else { return Ok(()) };
        let text = serde_json::to_string(&Remembered { version: to.version, digest })
            .map_err(|source| KeyRingError::Forgotten { path: self.path.clone(), source })?;
        // In place, since the lock is on this file. The text never gets shorter, and what a crash leaves of it is noticed.
        let mut write = || {
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())?;
            self.file.set_len(text.len() as u64)?;
            self.file.sync_all()
        };
        write().map_err(|source| KeyRingError::NotRemembered { path: self.path.clone(), source })?;
        self.mark = to;
        Ok(())
    }
}

/// The newer mark; of two of one version, the one that says more.
pub(crate) fn newest(ours: RingMark, given: RingMark) -> Result<RingMark, KeyRingError> {
    if ours.version == given.version
        && let (Some(seen), Some(expected)) = (ours.digest, given.digest)
        && seen != expected
    {
        return Err(KeyRingError::Two { version: ours.version, seen, expected });
    }
    Ok(match ours.version.cmp(&given.version) {
        std::cmp::Ordering::Less => given,
        std::cmp::Ordering::Greater => ours,
        std::cmp::Ordering::Equal => RingMark { digest: ours.digest.or(given.digest), ..ours },
    })
}

/// A version, a digest, and what stands around them.
const MAX_OCTETS: u64 = 1024;
