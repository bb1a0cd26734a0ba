//! A device that fails to sync or to write: strace answers the system call with EIO.

use crate::workload::{Writer, check, noted, places};

#[test]
fn after_a_failed_sync_nothing_more_is_acknowledged_and_nothing_that_was_is_lost() {
    // The store may not believe a sync that comes after a failed one: the kernel forgets what it could not write.
    fail("fdatasync", 100);
}

#[test]
fn after_a_failed_write_nothing_more_is_acknowledged_and_nothing_that_was_is_lost() {
    fail("pwrite64", 300);
}

fn fail(call: &str, first: u32) {
    let directory = tempfile::tempdir().unwrap();
    let (store, notes) = places(directory.path());
    // Once only: later calls would succeed, and must not count.
    let inject = format!("--inject={call}:error=EIO:when={first}");
    let trace = format!("--trace={call}");
    let args = ["-f", "-qq", "-o", "/dev/null", &trace, &inject];
    let mut writer = Writer::start_under("strace", &args, &store, &notes);
    writer.ended();
    let acknowledged = noted(&notes);
    assert!(acknowledged.lines().count() > 10, "it failed too soon");

    check(&store, &acknowledged);
    let mut writer = Writer::start(&store, &notes);
    writer.progress(&notes, acknowledged.lines().count(), 50);
    writer.kill();
    check(&store, &noted(&notes));
}
