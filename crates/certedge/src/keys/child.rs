//! A signer that this process starts, and starts again when it ends.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context;
use tempfile::TempDir;

/// The signer. It ends when this is dropped, or this process ends in any way.
#[derive(Debug)]
pub(crate) struct SignerChild {
    socket: PathBuf,
    shared: Arc<Shared>,
    supervisor: Option<JoinHandle<()>>,
    /// The directory of a socket of its own, removed at the end.
    _dir: Option<TempDir>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The signer reads its standard input to its end, and ends then: also when nobody is left to say so.
    leash: Mutex<Leash>,
    let_go: Condvar,
    has_failed: AtomicBool,
}

#[derive(Debug, Default)]
struct Leash {
    input: Option<ChildStdin>,
    is_over: bool,
}

impl SignerChild {
    /// Starts `program signer` with the configuration in `file`, which listens at `socket` or at one of its own.
    pub(crate) fn start(program: PathBuf, file: PathBuf, socket: Option<PathBuf>) -> anyhow::Result<Self> {
        let (socket, dir) = match socket {
            Some(socket) => (socket, None),
            None => {
                // Its directory is for this user only.
                let dir = tempfile::Builder::new().prefix("certedge-signer-").tempdir();
                let dir = dir.context("cannot make a directory for the signer's socket: set `socket` in [signer]")?;
                (dir.path().join("signer.sock"), Some(dir))
            }
        };
        let shared = Arc::<Shared>::default();
        let (supervised, at) = (shared.clone(), socket.clone());
        let supervise = move || {
            let mut pause = SHORTEST;
            while !supervised.leash().is_over {
                let begun = Instant::now();
                let command = || {
                    let mut command = Command::new(&program);
                    command.arg0("certedge").args(["signer", "--on-leash", "--config"]).arg(&file);
                    command.arg("--socket").arg(&at).stdin(Stdio::piped()).stdout(Stdio::null());
                    // A terminal's interrupt is for the edge, which goes on signing while it drains.
                    command.process_group(0);
                    command
                };
                let ended = supervised.run(command());
                if supervised.leash().is_over {
                    return;
                }
                supervised.has_failed.store(true, Ordering::Relaxed);
                pause = if begun.elapsed() > LONGEST { SHORTEST } else { pause };
                tracing::error!(%ended, again_in = ?pause, "the signer has ended");
                supervised.rest(pause);
                pause = LONGEST.min(pause * 2);
            }
        };
        let supervisor = thread::Builder::new().name("signer-child".to_owned()).spawn(supervise)?;
        Ok(Self { socket, shared, supervisor: Some(supervisor), _dir: dir })
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether it has ended before it was told to.
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Runs a signer to its end, and answers how it ended.
    fn run(&self, mut command: Command) -> String {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return format!("it cannot be started: {error}"),
        };
        tracing::info!(pid = child.id(), "the signer was started");
        {
            let mut leash = self.leash();
            // Waiting would close it.
            leash.input = child.stdin.take().filter(|_| !leash.is_over);
        }
        match child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn rest(&self, pause: Duration) {
        let _ = self.let_go.wait_timeout_while(self.leash(), pause, |leash| !leash.is_over);
    }

    fn leash(&self) -> MutexGuard<'_, Leash> {
        self.leash.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SignerChild {
    fn drop(&mut self) {
        *self.shared.leash() = Leash { input: None, is_over: true };
        self.shared.let_go.notify_all();
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

/// Before the first attempt to start it again, and after one that lasted.
const SHORTEST: Duration = Duration::from_millis(20);

/// Between two attempts, and for how long one must have run for the next not to wait.
const LONGEST: Duration = Duration::from_secs(5);
