//! Other processes do not get to see this one's memory.

use std::{io, sync::Once};

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};

/// From here on the process leaves no core dump, and no process without CAP_SYS_PTRACE can attach to it or read its
/// memory, not even one of the same user (prctl(2), PR_SET_DUMPABLE).
///
/// Call it before the first secret is read.
///
/// # Errors
/// When the kernel does not grant it: then secrets should not be read.
pub fn keep_memory_private() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Gets the memory for secrets from the kernel, and warns in the log, once, when it could not be locked: it can then get
/// into swap. For daemons that handle secrets, at their start.
pub fn lock_memory_of_secrets() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        certseal_guarded::reserve();
        if !certseal_guarded::is_locked() {
            tracing::warn!(
                "memory for secrets could not be locked and may be swapped out: raise the limit on locked memory to \
                 8 MiB (LimitMEMLOCK= of systemd, ulimit -l, --ulimit memlock= of containers), or turn swap off"
            );
        }
    });
}

/// Keeps all memory of this process out of swap, now and later, and warns in the log when that is not allowed. For a
/// process that does nothing but hold secrets: it takes as much memory from the machine as it uses.
///
/// A limit on locked memory would have allocations fail once it is reached, so only a process without one does this.
pub fn lock_all_memory() {
    let is_unlimited = getrlimit(Resource::Memlock).current.is_none()
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    // Pages that are never touched, such as most of each thread's stack, are not brought in for it.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if !is_unlimited || mlockall(flags).is_err() {
        tracing::warn!(
            "this process's memory is not locked as a whole, and parts of opened keys may be swapped out: allow it to \
             lock all of its memory (LimitMEMLOCK=infinity of systemd, CAP_IPC_LOCK), or turn swap off"
        );
    }
}
