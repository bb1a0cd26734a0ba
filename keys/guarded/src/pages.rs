//! Regions of memory from the kernel: the only place of the workspace with unsafe code.
#![allow(unsafe_code)]

use std::{ffi::c_void, ptr, slice};

use rustix::{
    io,
    mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mlock, mmap_anonymous, mprotect, munmap},
    param::page_size,
};

/// Memory for slots, between two guard pages.
pub(crate) struct Region {
    /// All of it, zeros.
    pub(crate) octets: &'static mut [u8],
    /// Whether it is locked and left out of core dumps.
    pub(crate) protected: bool,
}

/// Octets in the slots of a region.
pub(crate) fn region_size() -> usize {
    PAGES * page_size()
}

/// Maps a region. None when the kernel gives no memory.
pub(crate) fn map() -> Option<Region> {
    let (guard, size) = (page_size(), region_size());
    let whole = guard + size + guard;
    // SAFETY: without MAP_FIXED the kernel picks addresses that nothing else uses.
    let begin = unsafe { mmap_anonymous(ptr::null_mut(), whole, ProtFlags::empty(), MapFlags::PRIVATE) }.ok()?;
    let inside = begin.wrapping_byte_add(guard);
    // SAFETY: `inside` and `size` are whole pages of the new mapping, to which no reference exists yet.
    let opened = unsafe { mprotect(inside, size, MprotectFlags::READ | MprotectFlags::WRITE) };
    if opened.is_err() {
        // SAFETY: the mapping was made above, and no reference into it exists. If it stays, it is never used.
        let _ = unsafe { munmap(begin, whole) };
        return None;
    }
    let protected = protect(inside, size).is_ok();
    // SAFETY: the pages are readable, writable, aligned for u8 and filled with zeros by the kernel; nobody else knows
    // them, and they are never unmapped, so this is the only reference to them for as long as the process lives.
    let octets = unsafe { slice::from_raw_parts_mut(inside.cast(), size) };
    Some(Region { octets, protected })
}

/// Keeps the pages out of swap, core dumps and forked children. Where one of these fails, the others are still done.
fn protect(begin: *mut c_void, size: usize) -> io::Result<()> {
    // SAFETY: the caller's pages are mapped, and locking changes nothing in them.
    let locked = unsafe { mlock(begin, size) };
    // SAFETY: as above; this changes only what a core dump contains.
    let not_dumped = unsafe { madvise(begin, size, Advice::LinuxDontDump) };
    // SAFETY: this process sees no change. A forked child finds zeros, which every octet may be; it runs a copy of the
    // program whose secrets are then zeros.
    let wiped_on_fork = unsafe { madvise(begin, size, Advice::LinuxWipeOnFork) };
    let not_forked = match wiped_on_fork {
        // Before Linux 4.14.
        // SAFETY: this process sees no change. In a forked child the pages are missing, so that a secret's use ends it.
        Err(io::Errno::INVAL) => unsafe { madvise(begin, size, Advice::LinuxDontFork) },
        done => done,
    };
    locked.and(not_dumped).and(not_forked)
}

/// A region's pages of slots: few, so that even a low limit on locked memory has room for some.
const PAGES: usize = 4;
