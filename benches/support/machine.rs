//! Cores and processes.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::{
    fs::{Advice, fadvise},
    thread::{CpuSet, sched_setaffinity},
};

/// The benchmark again, as a process of its own in another role. It is killed when this is dropped.
pub(crate) struct Role {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Role {
    /// Starts this executable with `settings` in its environment.
    pub(crate) fn start(name: &str, settings: &[(&str, String)]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        // The same flags, so that it decides alike what a full measurement is.
        command.args(env::args().skip(1).filter(|argument| argument.starts_with("--")));
        command.env(ROLE, name).envs(settings.iter().map(|(key, value)| (key, value)));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits for the next line that the process prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the process ended early");
        line.trim_end().to_owned()
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Seconds of processor time that it took so far.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // After the name in parentheses; utime and stime are fields 14 and 15 of proc_pid_stat(5), in ticks.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
        (ticks(14) + ticks(15)) / TICKS_PER_SECOND
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The role that this process was started in; none for the benchmark itself.
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Keeps this thread, and those it starts later, on one core.
pub(crate) fn pin_to(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("a core of this machine");
}

/// How many cores there are.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// Has the operating system forget the file's pages, so that the next read comes from the disk.
pub(crate) fn evict(file: &Path) {
    let file = File::open(file).unwrap();
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
}

const ROLE: &str = "CERTSEAL_BENCH_ROLE";

/// USER_HZ, which is 100 on all of Linux's platforms that certseal runs on.
const TICKS_PER_SECOND: f64 = 100.0;
