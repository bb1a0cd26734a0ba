//! A PostgreSQL server of a test: in a scratch directory, reached through a socket there, ended with the test.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test uses its part")]

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A running server.
pub struct Server {
    directory: tempfile::TempDir,
    process: Mutex<Guarded>,
    databases: AtomicU32,
}

/// A database of its own for a store.
pub struct Database {
    pub server: Arc<Server>,
    name: String,
}

impl Server {
    /// The server that tests of one program share, as long as one of them holds it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *shared = Arc::downgrade(&started);
            started
        })
    }

    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more settings, such as `fsync=off`.
    pub fn start_with(settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("certseal-pg").tempdir_in("/tmp").unwrap();
        let account = account();
        if let Some((user, group)) = account {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let data = directory.path().join("data");
        let mut initialize = as_account(binaries().join("initdb"));
        initialize.args(["--username=certseal", "--auth=trust", "--no-sync", "--no-instructions", "--pgdata"]);
        run(initialize.arg(&data));
        for setting in ["listen_addresses="].iter().chain(settings) {
            let (name, value) = setting.split_once('=').unwrap();
            let file = data.join("postgresql.conf");
            let text = fs::read_to_string(&file).unwrap();
            fs::write(file, format!("{text}\n{name} = '{value}'\n")).unwrap();
        }
        let process = Mutex::new(serve(directory.path()));
        Self { directory, process, databases: AtomicU32::new(0) }
    }

    /// Makes a database, and the connection string for it.
    pub fn database(self: Arc<Self>) -> Database {
        let name = format!("store{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        Database { server: self, name }
    }

    /// Where its socket is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends the server as a power cut would, and starts it again.
    pub fn crash(&self) {
        self.stop();
        self.restart();
    }

    /// Ends the server as a power cut would.
    pub fn stop(&self) {
        let mut stop = as_account(binaries().join("pg_ctl"));
        run(stop.args(["stop", "--mode=immediate", "--wait", "--pgdata"]).arg(self.directory.path().join("data")));
        self.process.lock().unwrap().end();
    }

    /// Starts the server that was stopped.
    pub fn restart(&self) {
        *self.process.lock().unwrap() = serve(self.directory.path());
    }

    /// Runs a statement; answers its rows, one a line.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        run(self.client(5432).args(["--dbname", database, "--command", statement]))
    }

    /// A client of the server, which was told to use this port.
    pub fn client(&self, port: u16) -> Command {
        let mut psql = Command::new(binaries().join("psql"));
        psql.args(["--username=certseal", "--no-psqlrc", "--tuples-only", "--no-align", "--host"]);
        psql.arg(self.directory.path()).args(["--port", &port.to_string(), "--dbname=postgres"]);
        psql
    }
}

impl Database {
    pub fn url(&self) -> String {
        format!("host={} user=certseal dbname={}", self.server.directory.path().display(), self.name)
    }

    /// The same as a URI.
    pub fn uri(&self) -> String {
        let directory = self.server.directory.path().to_string_lossy().replace('/', "%2F");
        format!("postgres://certseal@{directory}/{}", self.name)
    }

    /// Runs a statement in it; answers its rows, one a line.
    pub fn sql(&self, statement: &str) -> String {
        self.server.sql(&self.name, statement)
    }

    /// Ends every connection with it.
    pub fn terminate_sessions(&self) {
        let name = &self.name;
        self.server.sql(
            "postgres",
            &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
        );
    }
}

/// A program that ends with the test, however the test ends.
///
/// The shell around it waits for the end of its input, which comes when the test's process is gone.
pub struct Guarded(Child);

impl Guarded {
    /// `signal` ends the program.
    pub fn spawn(command: &Command, signal: &str) -> Self {
        let script = format!("\"$@\" & pid=$!; read -r _; kill -{signal} $pid; wait $pid");
        let mut guarded = as_account("/bin/sh");
        guarded.args(["-c", &script, "guard"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            guarded.env(name, value.unwrap_or_default());
        }
        Self(guarded.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Of the shell around the program.
    pub fn id(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    pub fn end(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command that runs as an account that the server accepts: it refuses to run as root.
pub fn as_account(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    if let Some((user, group)) = account() {
        // The current directory may be closed to that account.
        command.uid(user).gid(group).current_dir("/tmp").env("HOME", "/tmp");
    }
    command
}

/// Whom to run servers as, when we are root.
pub fn account() -> Option<(u32, u32)> {
    let running_as_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !running_as_root {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let ids = |wanted: &str| {
        let line = accounts.lines().find(|line| line.starts_with(&format!("{wanted}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = ids("postgres").or_else(|| ids("nobody"));
    assert!(found.is_some(), "PostgreSQL does not run as root, and there is neither an account postgres nor nobody");
    found
}

/// Where the server's programs are.
pub fn binaries() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let of_tools = tools.map(|directory| directory.join("target/tools/postgresql/bin")).find(|path| path.exists());
    let of_system = || {
        let installed = fs::read_dir("/usr/lib/postgresql").ok()?;
        installed.filter_map(|version| Some(version.ok()?.path().join("bin"))).max()
    };
    of_tools.or_else(of_system).expect("no PostgreSQL server here: run tests/tools.sh")
}

/// Runs a command to its end; answers what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn serve(directory: &Path) -> Guarded {
    let mut postgres = Command::new(binaries().join("postgres"));
    postgres.arg("-D").arg(directory.join("data")).arg("-k").arg(directory);
    postgres.args(["-c", "max_connections=200", "-c", "log_min_messages=fatal"]);
    let process = Guarded::spawn(&postgres, "QUIT");
    let give_up = Instant::now() + Duration::from_secs(60);
    let is_ready = || {
        let mut ready = Command::new(binaries().join("pg_isready"));
        // The file's fourth line is the port.
        let pid_file = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap_or_default();
        let Some(port) = pid_file.lines().nth(3) else { return false };
        ready.args(["--quiet", "--port", port, "--host"]).arg(directory).status().unwrap().success()
    };
    while !is_ready() {
        assert!(Instant::now() < give_up, "PostgreSQL does not start");
        thread::sleep(Duration::from_millis(20));
    }
    process
}
