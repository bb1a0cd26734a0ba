//! Slots of 64 octets, and the shards that keep the free ones.
//!
//! A slot in locked memory is a `&'static mut`: regions are never unmapped, and whoever holds the reference is the only
//! one who has the slot. So the borrow checker, not this code, sees to it that no two secrets share one.

use std::{
    cell::Cell,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::pages::{self, Region};

/// Octets in a slot.
pub(crate) const SLOT: usize = 64;

/// One slot, which its holder has alone. It goes back to its shard when dropped, as it is: wipe it before.
pub(crate) struct Slot(Place);

enum Place {
    /// In a region. None only while it is dropped.
    Region { octets: Option<&'static mut [u8; SLOT]>, shard: &'static Shard },
    /// There was no room in a region.
    Heap(Box<[u8; SLOT]>),
}

impl Slot {
    /// A slot of zeros.
    pub(crate) fn take() -> Self {
        let shard = &SHARDS[OWN_SHARD.with(Cell::get)];
        match shard.take() {
            Some(octets) => Self(Place::Region { octets: Some(octets), shard }),
            None => {
                UNLOCKED.store(true, Relaxed);
                Self(Place::Heap(Box::new([0; SLOT])))
            }
        }
    }

    pub(crate) fn octets(&self) -> &[u8; SLOT] {
        match &self.0 {
            Place::Region { octets, .. } => octets.as_deref().expect("it is not being dropped"),
            Place::Heap(octets) => octets,
        }
    }

    pub(crate) fn octets_mut(&mut self) -> &mut [u8; SLOT] {
        match &mut self.0 {
            Place::Region { octets, .. } => octets.as_deref_mut().expect("it is not being dropped"),
            Place::Heap(octets) => octets,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Place::Region { octets, shard } = &mut self.0
            && let Some(octets) = octets.take()
        {
            shard.free().push(octets);
        }
    }
}

/// Whether all memory for secrets so far is locked and left out of core dumps. If not, the limit on locked memory
/// (RLIMIT_MEMLOCK) is too low, or more secrets were alive at once than there is room for. It never becomes true again.
pub fn is_locked() -> bool {
    !UNLOCKED.load(Relaxed)
}

/// Gives every shard its first region, so that [`is_locked`] tells at the start of a program what it would else tell under
/// load. Takes 256 KiB with pages of 4 KiB.
pub fn reserve() {
    for shard in &SHARDS {
        if let Some(octets) = shard.take() {
            shard.free().push(octets);
        }
    }
}

/// Free slots. Threads are spread over the shards so that they do not wait for each other; a slot may be freed by any.
/// Aligned so that no two shards share a cache line, which would have their threads wait for it.
#[repr(align(128))]
struct Shard(Mutex<Vec<&'static mut [u8; SLOT]>>);

impl Shard {
    /// The slot that was freed last, or one of a new region. None when there may be no more regions.
    fn take(&self) -> Option<&'static mut [u8; SLOT]> {
        let mut free = self.free();
        if free.is_empty() {
            self.grow(&mut free);
        }
        free.pop()
    }

    fn grow(&self, free: &mut Vec<&'static mut [u8; SLOT]>) {
        let size = pages::region_size();
        let within_bound = |octets: usize| Some(octets + size).filter(|octets| *octets <= MAX_OCTETS);
        if OCTETS.fetch_update(Relaxed, Relaxed, within_bound).is_err() {
            return;
        }
        match pages::map() {
            Some(Region { octets, protected }) => {
                if !protected {
                    UNLOCKED.store(true, Relaxed);
                }
                let (slots, _) = octets.as_chunks_mut();
                // Room for all slots of the shard at once, so that freeing one never allocates. Only `grow` makes the
                // list's capacity, which therefore counts the slots that are in use, too.
                free.reserve_exact(free.capacity() + slots.len());
                free.extend(slots);
            }
            None => drop(OCTETS.fetch_sub(size, Relaxed)),
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<&'static mut [u8; SLOT]>> {
        // The code under the lock does not panic; a list of slots is right in any case.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many as threads run at once on most machines; more threads share them.
static SHARDS: [Shard; 16] = [const { Shard(Mutex::new(Vec::new())) }; 16];

/// Octets of all regions.
static OCTETS: AtomicUsize = AtomicUsize::new(0);

/// Room for a quarter of a million secrets at once.
const MAX_OCTETS: usize = 16 << 20;

/// Whether any secret was put into memory that is not locked.
static UNLOCKED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The shard of this thread, by the order in which threads first ask.
    static OWN_SHARD: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Cell::new(NEXT.fetch_add(1, Relaxed) % SHARDS.len())
    };
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt};

    use crate::Locked;

    /// The octets at `address` in this process, read by way of the kernel.
    fn memory_at(address: usize) -> [u8; 32] {
        let mut octets = [0; 32];
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut octets, address as u64).unwrap();
        octets
    }

    #[test]
    fn a_dropped_secret_leaves_zeros() {
        let secret = Locked::copy_of(&[0x5a; 32]);
        let address = secret.expose().as_ptr() as usize;
        // The control: while it is alive, it is found.
        assert_eq!(memory_at(address), [0x5a; 32]);
        drop(secret);
        assert_eq!(memory_at(address), [0; 32]);
    }

    #[test]
    fn a_secret_that_was_not_completed_leaves_zeros() {
        let mut address = 0;
        let failed = Locked::<32>::fill(|octets| {
            octets.fill(0x5a);
            address = octets.as_ptr() as usize;
            Err("no randomness")
        });
        assert_eq!(failed.err(), Some("no randomness"));
        assert_eq!(memory_at(address), [0; 32]);
    }

    #[test]
    fn it_can_be_sent_and_shared_between_threads() {
        fn check<T: Send + Sync>(_: &T) {}
        check(&Locked::copy_of(&[1; 64]));
    }
}
