//! Memory for small secrets, and their texts ([`pem`]).
//!
//! ```text
//!   Locked<N> --holds--> slot of 64 octets --taken from--> shard of the thread --grows by--> region
//!
//!   region = | guard page | 4 pages of slots: locked, not dumped, wiped on fork | guard page |
//! ```
//!
//! A slot is wiped when its secret is dropped, and used again. Regions are never given back, and there are at most 16 MiB
//! of them. A secret that finds no room there is put on the heap, where it is wiped as well but not locked;
//! [`is_locked`] then says so. Nothing here fails, and no input makes it panic.
//!
//! ```
//! use certseal_guarded::Locked;
//!
//! let secret = Locked::<32>::fill(|octets| {
//!     octets.fill(7);
//!     Ok::<_, std::convert::Infallible>(())
//! })?;
//! assert_eq!(secret.expose(), &[7; 32]);
//! # Ok::<_, std::convert::Infallible>(())
//! ```
//!
//! A forked child reads zeros in place of its parent's secrets, or nothing at all on kernels before 4.14, where the pages
//! are missing from it: do not use secrets across a fork without exec.

mod pages;
pub mod pem;
mod slots;

pub use slots::{is_locked, reserve};

use slots::{SLOT, Slot};
use zeroize::Zeroize;

/// `N` secret octets, at most 64, at one place in locked memory: moving the value leaves no copy behind.
///
/// ```compile_fail
/// let too_long = certseal_guarded::Locked::copy_of(&[0; 65]);
/// ```
pub struct Locked<const N: usize>(Slot);

impl<const N: usize> Locked<N> {
    const FITS: () = assert!(N <= SLOT, "a secret has at most 64 octets");

    /// A secret that `fill` writes in place. It begins as zeros.
    ///
    /// # Errors
    /// The error of `fill`; the octets that it had written are wiped.
    pub fn fill<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let () = Self::FITS;
        let mut secret = Self(Slot::take());
        let octets = secret.0.octets_mut().first_chunk_mut().expect("N is at most a slot's length: see FITS");
        fill(octets)?;
        Ok(secret)
    }

    /// A secret with a copy of `octets`, which stay with the caller to be wiped.
    pub fn copy_of(octets: &[u8; N]) -> Self {
        let () = Self::FITS;
        let mut secret = Self(Slot::take());
        secret.0.octets_mut()[..N].copy_from_slice(octets);
        secret
    }

    /// The octets. Do not copy them into anything that is not wiped.
    pub fn expose(&self) -> &[u8; N] {
        self.0.octets().first_chunk().expect("N is at most a slot's length: see FITS")
    }
}

impl<const N: usize> Drop for Locked<N> {
    fn drop(&mut self) {
        // Before the slot goes back to its shard.
        self.0.octets_mut()[..N].zeroize();
    }
}
