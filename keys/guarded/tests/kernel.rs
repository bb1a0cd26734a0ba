//! The kernel's answers about the memory of secrets, in a process of its own for each question.

#![allow(clippy::unwrap_used)]

use std::{
    collections::HashSet,
    env, fs,
    ops::Range,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use certseal_guarded::{Locked, is_locked, reserve};
use rustix::process::{Resource, Rlimit, geteuid, setrlimit};

/// Runs the named test of this file again alone, in a new process that `prepare` may change. Answers whether this is that
/// process.
fn alone(test: &str, prepare: impl FnOnce(&mut Command)) -> bool {
    if env::var(ALONE).is_ok_and(|wanted| wanted == test) {
        return true;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ALONE, test).stdin(Stdio::null());
    prepare(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    false
}

#[test]
fn secrets_are_locked_and_in_no_core_dump_and_in_no_forked_child() {
    if !alone("secrets_are_locked_and_in_no_core_dump_and_in_no_forked_child", |_| {}) {
        return;
    }
    let before = locked_kibibytes();
    let (secret, control) = (Locked::copy_of(&[1; 32]), Box::new([1_u8; 32]));
    assert!(is_locked());
    assert!(locked_kibibytes() >= before + 16, "{} kB", locked_kibibytes());
    let flags = page_flags(secret.expose().as_ptr() as usize);
    assert!(["lo", "dd", "wf"].iter().all(|flag| flags.contains(*flag)), "{flags:?}");
    let flags = page_flags(control.as_ptr() as usize);
    assert!(["lo", "dd", "wf"].iter().all(|flag| !flags.contains(*flag)), "{flags:?}");
    reserve();
    assert!(is_locked());
}

#[test]
fn a_page_that_cannot_be_read_lies_on_either_side() {
    let secret = Locked::copy_of(&[1; 32]);
    let address = secret.expose().as_ptr() as usize;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let maps: Vec<_> =
        maps.lines().map(|line| (range(line).unwrap(), line.split_whitespace().nth(1).unwrap())).collect();
    let at = maps.iter().position(|(range, _)| range.contains(&address)).unwrap();
    let [before, inside, after] = &maps[at - 1..=at + 1] else { unreachable!() };
    assert_eq!((before.1, inside.1, after.1), ("---p", "rw-p", "---p"));
    assert_eq!((before.0.end, after.0.start), (inside.0.start, inside.0.end));
}

#[test]
fn it_says_so_when_memory_may_not_be_locked() {
    let unprivileged = |command: &mut Command| {
        // The superuser may lock whatever the limit says.
        if geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
    };
    if !alone("it_says_so_when_memory_may_not_be_locked", unprivileged) {
        return;
    }
    assert!(is_locked());
    setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    reserve();
    assert!(!is_locked());
    // It is used, left out of dumps, and wiped nevertheless.
    let secret = Locked::copy_of(&[1; 32]);
    assert_eq!(secret.expose(), &[1; 32]);
    let flags = page_flags(secret.expose().as_ptr() as usize);
    assert!(flags.contains("dd") && !flags.contains("lo"), "{flags:?}");
}

#[test]
fn more_secrets_than_there_is_room_for_are_kept_outside() {
    if !alone("more_secrets_than_there_is_room_for_are_kept_outside", |_| {}) {
        return;
    }
    const ROOM: usize = (16 << 20) / 64;
    let mut secrets: Vec<_> = (0..ROOM).map(|_| Locked::copy_of(&[1; 64])).collect();
    assert!(is_locked());
    assert_eq!(locked_kibibytes(), 16 << 10);
    secrets.push(Locked::copy_of(&[2; 64]));
    assert!(!is_locked());
    let outside = secrets.last().unwrap();
    assert_eq!(outside.expose(), &[2; 64]);
    assert!(!page_flags(outside.expose().as_ptr() as usize).contains("lo"));
    drop(secrets);
    // There is room again.
    assert!(page_flags(Locked::copy_of(&[1; 64]).expose().as_ptr() as usize).contains("lo"));
    assert_eq!(locked_kibibytes(), 16 << 10);
}

/// VmLck of proc_pid_status(5).
fn locked_kibibytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// VmFlags of the mapping that contains `address`; see proc_pid_smaps(5).
fn page_flags(address: usize) -> HashSet<String> {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| !range(line).is_some_and(|range| range.contains(&address)));
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
    flags.split_whitespace().map(str::to_owned).collect()
}

/// The addresses of a mapping, from the first line about it.
fn range(line: &str) -> Option<Range<usize>> {
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(from)?..address(to)?)
}

const ALONE: &str = "CERTSEAL_TEST_ALONE";
