//! A disk that runs full in the middle of a write, on a small file system of its own.

use std::{path::Path, process::Command};

use crate::workload::{Writer, check, noted, places};

#[test]
fn a_full_disk_ends_writing_and_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let small = directory.path().join("small");
    std::fs::create_dir(&small).unwrap();
    if !mount(&small, "-osize=40m") {
        let excused = std::env::var_os("CERTSEAL_WITHOUT_MOUNTS").is_some();
        assert!(excused, "cannot mount a tmpfs: run as root, or set CERTSEAL_WITHOUT_MOUNTS=1: NOT TESTED then");
        eprintln!("NOT TESTED: a full disk, since no file system can be mounted here");
        return;
    }
    let _unmounted = Unmounted(&small);
    let notes = directory.path().join("notes");
    let (store, _) = places(&small);
    // The reserve is switched off: the engine itself meets the end of the disk.
    let mut writer = Writer::start(&store, &notes);
    writer.ended();
    let acknowledged = noted(&notes);
    assert!(acknowledged.lines().count() > 100, "it ran full too soon: {}", acknowledged.lines().count());

    assert!(mount(&small, "-oremount,size=400m"), "cannot enlarge the file system");
    check(&store, &acknowledged);
    let before = acknowledged.lines().count();
    let mut writer = Writer::start(&store, &notes);
    writer.progress(&notes, before, 50);
    writer.kill();
    check(&store, &noted(&notes));
}

fn mount(at: &Path, options: &str) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", options, "tmpfs"]).arg(at);
    mount.output().is_ok_and(|output| output.status.success())
}

struct Unmounted<'a>(&'a Path);

impl Drop for Unmounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}
