//! Three PostgreSQL servers with quorum-synchronous replication, under Patroni, which keeps in etcd who leads.

use std::{
    fs,
    io::{Read, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::postgres::{Guarded, account, as_account, binaries};

pub struct Cluster {
    // Dropped in this order: the nodes would wait for etcd.
    nodes: Vec<Node>,
    _etcd: Guarded,
    directory: tempfile::TempDir,
}

/// A primary that is stopped in the middle of everything. It goes on when this is dropped, or the test's process ends.
pub struct Frozen {
    pub name: String,
    port: u16,
    guard: Child,
}

struct Node {
    name: String,
    port: u16,
    rest: u16,
    patroni: Guarded,
}

impl Cluster {
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("certseal-ha").tempdir_in("/tmp").unwrap();
        if let Some((user, group)) = account() {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let ports = free_ports(8);
        let etcd = etcd(directory.path(), ports[6], ports[7]);
        let start = |index: usize| {
            let (name, port, rest) = (format!("n{index}"), ports[index * 2], ports[index * 2 + 1]);
            // Patroni does not make it.
            let logs = directory.path().join(format!("{name}.logs"));
            fs::create_dir(&logs).unwrap();
            if let Some((user, group)) = account() {
                chown(&logs, Some(user), Some(group)).unwrap();
            }
            let settings = settings(directory.path(), &name, port, rest, ports[6]);
            fs::write(directory.path().join(format!("{name}.yml")), settings.to_string()).unwrap();
            let patroni = patroni(directory.path(), &name);
            Node { name, port, rest, patroni }
        };
        let nodes = (0..3).map(start).collect();
        let cluster = Self { nodes, _etcd: etcd, directory };
        cluster.wait_until_whole();
        cluster
    }

    /// A connection string with all hosts.
    pub fn url(&self) -> String {
        let list = |item: fn(&Node) -> String| self.nodes.iter().map(item).collect::<Vec<_>>().join(",");
        let (hosts, ports) = (list(|_| "127.0.0.1".to_owned()), list(|node| node.port.to_string()));
        format!("host={hosts} port={ports} user=postgres dbname=postgres")
    }

    /// Kills the primary's server with all its processes, and its Patroni. Answers who it was.
    pub fn kill_primary(&mut self) -> String {
        let leader = self.leader().unwrap();
        let node = self.nodes.iter_mut().find(|node| node.name == leader).unwrap();
        node.kill(self.directory.path());
        leader
    }

    /// Waits for another leader, starts what was killed, and waits until it follows.
    pub fn wait_for_failover_and_rejoin(&mut self, killed: &str) {
        until("there is no new leader", || self.leader().is_some_and(|leader| leader != killed));
        let directory = self.directory.path();
        let node = self.nodes.iter_mut().find(|node| node.name == killed).unwrap();
        node.patroni = patroni(directory, killed);
        self.wait_until_whole();
    }

    /// Stops all processes of the primary's server, and its Patroni, without ending them.
    pub fn freeze_primary(&self) -> Frozen {
        let leader = self.leader().unwrap();
        let node = self.nodes.iter().find(|node| node.name == leader).unwrap();
        Frozen { name: leader, port: node.port, guard: node.freeze(self.directory.path()) }
    }

    /// Waits for another leader.
    pub fn wait_for_failover(&self, from: &str) {
        until("there is no new leader", || self.leader().is_some_and(|leader| leader != from));
    }

    /// Lets a primary go on that was replaced meanwhile, and waits until it follows and no store uses it.
    pub fn thaw(&self, frozen: Frozen) {
        let (name, port) = (frozen.name.clone(), frozen.port);
        drop(frozen);
        self.wait_until_whole();
        assert_ne!(self.leader().as_ref(), Some(&name), "who was frozen leads again");
        let mut asking = Command::new(binaries().join("psql"));
        asking.args(["--no-psqlrc", "--tuples-only", "--no-align", "--host=127.0.0.1", "--username=postgres"]);
        asking.args(["--port", &port.to_string(), "--dbname=postgres", "--command"]);
        asking.arg("SELECT pg_is_in_recovery(), count(*) FROM pg_stat_activity WHERE application_name = 'certseal'");
        until("a store goes on at the old primary", || {
            asking.output().is_ok_and(|output| output.stdout.starts_with(b"t|0"))
        });
    }

    fn wait_until_whole(&self) {
        until("not all nodes follow a leader", || {
            let members = self.members();
            let following = |member: &&Value| member["state"] == "streaming" && member["role"] == "quorum_standby";
            members.iter().filter(following).count() == 2 && self.leader().is_some()
        });
    }

    fn leader(&self) -> Option<String> {
        let members = self.members();
        let leader = members.iter().find(|member| member["role"] == "leader" && member["state"] == "running")?;
        leader["name"].as_str().map(str::to_owned)
    }

    /// All members, as the first node that answers knows them.
    fn members(&self) -> Vec<Value> {
        let asked = self.nodes.iter().find_map(|node| {
            // One that is frozen takes a few connections, and then leaves others without an answer.
            let patience = Duration::from_secs(2);
            let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], node.rest).into(), patience).ok()?;
            stream.set_read_timeout(Some(patience)).ok()?;
            stream.write_all(b"GET /cluster HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            let body = answer.split_once("\r\n\r\n")?.1;
            serde_json::from_str::<Value>(body).ok()?["members"].as_array().cloned()
        });
        asked.unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &self.nodes {
                let log = self.directory.path().join(format!("{}.logs/patroni.log", node.name));
                let log = fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(15).collect();
                eprintln!("--- {} (newest first)\n{}", node.name, tail.join("\n"));
            }
        }
        for node in &mut self.nodes {
            node.kill(self.directory.path());
        }
    }
}

impl Node {
    fn kill(&mut self, directory: &Path) {
        let pid_file = directory.join(&self.name).join("postmaster.pid");
        let postmaster = fs::read_to_string(pid_file).ok().and_then(|text| text.lines().next()?.parse().ok());
        // Patroni first, so that it cannot give its leadership back in good order.
        let patroni = children(self.patroni.id());
        let servers = postmaster.map(|pid| [vec![pid], children(pid)].concat()).unwrap_or_default();
        for pid in patroni.into_iter().chain(servers) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        self.patroni.end();
    }

    /// Answers a process whose end lets them all go on.
    fn freeze(&self, directory: &Path) -> Child {
        // Each parent first: a stopped process starts nothing more.
        let mut stopped = Vec::new();
        let mut stop = |pid: i32| {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
            stopped.push(pid.to_string());
        };
        children(self.patroni.id()).into_iter().for_each(&mut stop);
        let pid_file = fs::read_to_string(directory.join(&self.name).join("postmaster.pid")).unwrap();
        let postmaster = pid_file.lines().next().unwrap().parse().unwrap();
        stop(postmaster);
        for pid in children(postmaster) {
            stop(pid);
        }
        let mut guard = as_account("/bin/sh");
        guard.args(["-c", &format!("read -r _; kill -CONT {}", stopped.join(" "))]);
        guard.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn children(pid: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn etcd(directory: &Path, port: u16, peer: u16) -> Guarded {
    let (url, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let mut etcd = Command::new(tool("bin/etcd"));
    etcd.arg("--data-dir").arg(directory.join("etcd"));
    etcd.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    etcd.args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"]);
    let etcd = Guarded::spawn(&etcd, "KILL");
    until("etcd does not start", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    etcd
}

fn patroni(directory: &Path, name: &str) -> Guarded {
    let mut patroni = Command::new(tool("patroni/bin/patroni"));
    patroni.arg(directory.join(format!("{name}.yml")));
    Guarded::spawn(&patroni, "TERM")
}

fn settings(directory: &Path, name: &str, port: u16, rest: u16, etcd: u16) -> Value {
    let login = |user: &str| json!({ "username": user });
    let (listen, rest) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{rest}"));
    json!({
        "scope": "certseal",
        "name": name,
        "log": { "dir": directory.join(format!("{name}.logs")), "level": "INFO" },
        "restapi": { "listen": rest, "connect_address": rest },
        "etcd3": { "host": format!("127.0.0.1:{etcd}") },
        "bootstrap": {
            "dcs": {
                // The shortest that Patroni accepts.
                "ttl": 20, "loop_wait": 1, "retry_timeout": 3,
                "synchronous_mode": "quorum", "synchronous_mode_strict": true, "synchronous_node_count": 1,
                "postgresql": {
                    "use_pg_rewind": true,
                    "parameters": { "wal_keep_size": "256MB", "max_connections": 60, "wal_log_hints": "on" },
                },
            },
            "initdb": ["data-checksums", "no-sync", { "encoding": "UTF8" }, { "auth": "trust" }],
        },
        "postgresql": {
            "listen": listen, "connect_address": listen,
            "data_dir": directory.join(name),
            "bin_dir": binaries(),
            "authentication": {
                "superuser": login("postgres"), "replication": login("replicator"), "rewind": login("postgres"),
            },
            "parameters": { "unix_socket_directories": directory, "shared_buffers": "32MB" },
            "pg_hba": [
                "local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust",
            ],
        },
    })
}

fn tool(path: &str) -> PathBuf {
    let mut tools = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = tools.find_map(|directory| {
        let tool = directory.join("target/tools").join(path);
        tool.exists().then_some(tool)
    });
    found.unwrap_or_else(|| panic!("no target/tools/{path}: run tests/tools.sh"))
}

/// Held all at once, so that they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

fn until(otherwise: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(180);
    while !done() {
        assert!(Instant::now() < give_up, "{otherwise}");
        thread::sleep(Duration::from_millis(100));
    }
}
