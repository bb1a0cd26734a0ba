//! Leases: one holder of a name at a time, and a fence against holders that lost it without noticing.
//!
//! A lease is a record. Its version grows with each holder and each renewal, and is the fencing token: its holder puts
//! [`Lease::guard`] into each transaction of its work, which then ends in a conflict once somebody else took the lease
//! over, however late it arrives. Clocks decide only when a lease may be taken over, never whether a write counts: a
//! clock that is wrong costs work that is done twice in part, not the wrong result.

use crate::{Expect, Storage, StoreError, Table, Write};

/// A lease that was held when it was acquired or renewed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    name: String,
    owner: String,
    version: u64,
    expires_at: u64,
}

impl Lease {
    /// Takes the lease `name` for `owner` until `now + ttl`, in Unix seconds; none if somebody else holds it.
    ///
    /// An owner that holds it already, from before a restart for example, takes it over from itself: `owner` has to
    /// be different for each process that may run at the same time.
    pub fn acquire(
        storage: &dyn Storage,
        name: &str,
        owner: &str,
        ttl: u64,
        now: u64,
    ) -> Result<Option<Self>, StoreError> {
        let found = storage.get(LEASES, name.as_bytes())?;
        let (expect, before) = match &found {
            None => (Expect::Absent, 0),
            Some(record) => {
                let free = record.expires_at.is_none_or(|at| at <= now) || record.value == owner.as_bytes();
                if !free {
                    return Ok(None);
                }
                (Expect::Version(record.version), record.version)
            }
        };
        let lease = Self { name: name.to_owned(), owner: owner.to_owned(), version: before, expires_at: 0 };
        lease.written(storage, expect, now.saturating_add(ttl))
    }

    /// Holds it until `now + ttl`; none if it was taken over. A lease that has run out and was not taken over goes on.
    pub fn renew(self, storage: &dyn Storage, ttl: u64, now: u64) -> Result<Option<Self>, StoreError> {
        let expect = Expect::Version(self.version);
        self.written(storage, expect, now.saturating_add(ttl))
    }

    /// Lets others have it at once. Does nothing if it was taken over.
    ///
    /// The record stays, without an expiry: its version must go on growing, or a late write under an earlier lease
    /// could meet a new lease with the same version.
    pub fn release(self, storage: &dyn Storage) -> Result<(), StoreError> {
        let free = Write::put(LEASES, self.name.as_str(), self.version + 1, "").expect(Expect::Version(self.version));
        match storage.commit(free.into()) {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The condition that the lease is still held, for each transaction of the work that it covers.
    pub fn guard(&self) -> Write {
        Write::require(LEASES, self.name.as_str(), Expect::Version(self.version))
    }

    /// When others may take it, in Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }

    fn written(self, storage: &dyn Storage, expect: Expect, expires_at: u64) -> Result<Option<Self>, StoreError> {
        let version = self.version + 1;
        let write = Write::put(LEASES, self.name.as_str(), version, self.owner.as_str());
        match storage.commit(write.expires_at(expires_at).expect(expect).into()) {
            Ok(_) => Ok(Some(Self { version, expires_at, ..self })),
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The table of leases.
pub const LEASES: Table = Table::new("leases");
