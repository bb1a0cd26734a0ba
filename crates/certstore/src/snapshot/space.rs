//! Free space for snapshots: they can be made anew, the other files of that file system cannot.

use std::{
    io,
    path::{Path, PathBuf},
};

use certseal_service::problem::Refusal;
use certseal_wire::ProblemKind;

pub(super) struct Space {
    directory: PathBuf,
    /// Octets that stay free.
    reserve: u64,
    free: Free,
}

type Free = Box<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

impl Space {
    pub(super) fn new(directory: &Path, reserve: u64) -> Self {
        Self { directory: directory.to_owned(), reserve, free: Box::new(free_octets) }
    }

    /// Refuses when so many octets more would not leave the reserve free.
    pub(super) fn check(&self, octets: u64) -> Result<(), Refusal> {
        let Self { directory, reserve, free } = self;
        let free = free(directory).map_err(|error| Refusal::internal(format!("{}: {error}", directory.display())))?;
        if free >= reserve.saturating_add(octets) {
            return Ok(());
        }
        let directory = directory.display();
        tracing::error!(%directory, free, reserve, octets, "too little space for a snapshot: free some, or set snapshot_dir");
        Err(full())
    }
}

/// The answer when a file could not be written.
pub(super) fn write_refusal(path: &Path, error: &io::Error) -> Refusal {
    let failure = Refusal::internal(format!("{}: {error}", path.display()));
    if error.kind() == io::ErrorKind::StorageFull { full() } else { failure }
}

fn full() -> Refusal {
    Refusal::new(
        ProblemKind::Full,
        "certstore has too little free disk space to make a snapshot; its log says where, and nothing was kept",
    )
}

fn free_octets(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
impl Space {
    pub(super) fn of(reserve: u64, free: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { directory: PathBuf::new(), reserve, free: Box::new(move |_| Ok(free())) }
    }
}
