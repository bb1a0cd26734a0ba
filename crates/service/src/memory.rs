//! Other processes do not get to see this one's memory.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// From here on the process leaves no core dump, and no process without CAP_SYS_PTRACE can attach to it or read its
/// memory, not even one of the same user (prctl(2), PR_SET_DUMPABLE).
///
/// Call it before the first secret is read. What swaps memory out, or hibernates, still sees it.
///
/// # Errors
/// When the kernel does not grant it: then secrets should not be read.
pub fn keep_memory_private() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
