//! Power cuts: the disk as it is at one instant, without anything that the operating system has only in memory.
//!
//! The store lies in an ext4 file system in a file. At the instant of the cut the writer is stopped and the file is
//! copied: the copy has what reached the device, and nothing of the page cache of the file system in it. The copy is then
//! mounted, which replays its journal, and the store in it is opened.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::{
    count,
    workload::{Writer, check, lost_by_control, noted},
};

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::new() else { return };
    let cuts = count("CERTSEAL_POWER_CUTS", 50);
    let (mut notes, mut acknowledged) = (disk.scratch.path().join("notes"), 0);
    for round in 0..cuts {
        if round % CUTS_OF_A_STORE == 0 {
            acknowledged += noted(&notes).lines().count();
            notes = disk.scratch.path().join(format!("notes-{round}"));
            disk.format();
        }
        disk.cut_power(&notes, round, Writer::start);
        disk.mount();
        check(&disk.mounted().join("store"), &noted(&notes));
        disk.unmount();
    }
    acknowledged += noted(&notes).lines().count();
    println!("{cuts} power cuts, {acknowledged} acknowledged changes, 0 lost");
}

/// Without the sync after the engine's own flush the same cuts do lose changes: the cuts are real ones.
#[test]
fn without_the_barrier_power_cuts_lose_changes() {
    let Some(disk) = Disk::new() else { return };
    let most = count("CERTSEAL_POWER_CUTS", 50);
    for round in 0..most {
        let notes = disk.scratch.path().join(format!("notes-{round}"));
        disk.format();
        disk.cut_power(&notes, round, Writer::start_unsynced);
        disk.mount();
        let lost = lost_by_control(&disk.mounted().join("store"), &noted(&notes));
        disk.unmount();
        if lost > 0 {
            println!("control: cut {} lost {lost} acknowledged changes", round + 1);
            return;
        }
    }
    panic!("{most} power cuts lost nothing although nothing was synced: they are no power cuts");
}

/// A disk in a file.
struct Disk {
    scratch: tempfile::TempDir,
}

impl Disk {
    /// None, and a loud word, where file systems cannot be mounted and the tester says that this is known.
    fn new() -> Option<Self> {
        let disk = Self { scratch: tempfile::tempdir().unwrap() };
        std::fs::create_dir(disk.mounted()).unwrap();
        disk.format();
        if disk.try_mount() {
            disk.unmount();
            return Some(disk);
        }
        let excused = std::env::var_os("CERTSEAL_WITHOUT_MOUNTS").is_some();
        assert!(
            excused,
            "cannot mount a file system in a file: run as root with loop devices, or set CERTSEAL_WITHOUT_MOUNTS=1 and \
             know that power cuts are NOT TESTED"
        );
        eprintln!("NOT TESTED: power cuts, since no file system can be mounted here");
        None
    }

    fn image(&self) -> PathBuf {
        self.scratch.path().join("disk.img")
    }

    fn mounted(&self) -> PathBuf {
        self.scratch.path().join("mounted")
    }

    fn format(&self) {
        let image = std::fs::File::create(self.image()).unwrap();
        image.set_len(DISK_BYTES).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(self.image()));
    }

    fn try_mount(&self) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(self.image()).arg(self.mounted());
        mount.output().is_ok_and(|output| output.status.success())
    }

    fn mount(&self) {
        assert!(self.try_mount(), "cannot mount the copy of the disk");
    }

    fn unmount(&self) {
        run(Command::new("umount").arg(self.mounted()));
    }

    /// Lets the writer go on for a while on the mounted disk, and leaves the disk as it was at the instant of the cut.
    fn cut_power(&self, notes: &Path, round: u64, start: fn(&Path, &Path) -> Writer) {
        self.mount();
        let before = noted(notes).lines().count();
        let mut writer = start(&self.mounted().join("store"), notes);
        writer.progress(notes, before, 30);
        thread::sleep(Duration::from_millis(17 * (round % 10)));
        writer.signal("STOP");
        // Stopped threads may still be inside a system call: their notes come before the copy or not at all.
        thread::sleep(Duration::from_millis(5));
        let copy = self.scratch.path().join("copy.img");
        run(Command::new("cp").args(["--sparse=always"]).arg(self.image()).arg(&copy));
        writer.kill();
        self.unmount();
        std::fs::rename(copy, self.image()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mounted()).output();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const DISK_BYTES: u64 = 192 << 20;

/// How many cuts one store goes through, one after another.
const CUTS_OF_A_STORE: u64 = 10;
