//! certstore under load: how much it holds, how fast it answers, and that a fleet that comes at one time neither drowns it
//! nor keeps writers out.
//!
//! The normal run is small and judges only what does not depend on the machine. The long run prints figures:
//!
//! ```sh
//! cargo build --release --workspace --bins
//! CERTSEAL_STORE_BUNDLES=1000000 cargo test --release -p certseal --test e2e -- store_scale --nocapture --test-threads 1
//! ```
//!
//! With `CERTSEAL_STORE_ENGINE=postgres` certstore keeps its data in a PostgreSQL server of the test's own, with the
//! server's usual settings, which has the other cores too.
//!
//! In the long run certstore has the first core to itself, and those who call it the others, unless a line says that they
//! share all of them.

mod caller;
mod fleet;
mod throughput;

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use certseal_wire::DnsName;
use rustls::ClientConfig;
use tokio::task::JoinSet;

use crate::{
    platform::{Authority, Platform},
    postgres::Server,
    press::{Press, site},
    process::run,
};
use caller::Caller;

/// Whether this is the run that prints figures.
fn is_long() -> bool {
    std::env::var_os("CERTSEAL_STORE_BUNDLES").is_some()
}

/// How many bundles; `usual` in the normal run.
fn bundles(usual: usize) -> usize {
    std::env::var("CERTSEAL_STORE_BUNDLES").map_or(usual, |count| count.parse().unwrap())
}

/// A platform with the engine that was asked for.
async fn platform() -> Platform {
    match std::env::var("CERTSEAL_STORE_ENGINE").as_deref() {
        Ok("postgres") => Platform::start_on(Server::shared().database()).await,
        Ok("sled") | Err(_) => Platform::start(Authority::Local).await,
        Ok(other) => panic!("expected CERTSEAL_STORE_ENGINE to be sled or postgres, got {other}"),
    }
}

/// A platform of which only certstore goes on, on a core of its own in the long run.
struct Store {
    platform: Platform,
    press: Arc<Press>,
}

impl Store {
    async fn start() -> Self {
        let mut platform = platform().await;
        platform.certman.kill();
        platform.edge.kill();
        platform.configure_certstore("requests_per_second = 1000000\n");
        let press = Arc::new(Press::new(&platform, &platform.store_as("admin")).await);
        let store = Self { platform, press };
        store.pin();
        store
    }

    /// A core for certstore, the others for this process. After every start of certstore.
    fn pin(&self) {
        let last = cores() - 1;
        self.set_cores("0", &format!("{}-{last}", 1.min(last)));
    }

    /// All cores for both.
    fn share_cores(&self) {
        let all = format!("0-{}", cores() - 1);
        self.set_cores(&all, &all);
    }

    fn set_cores(&self, of_certstore: &str, ours: &str) {
        if is_long() {
            for (cores, pid) in [(of_certstore, self.platform.certstore.pid()), (ours, std::process::id())] {
                run(Command::new("taskset").args(["-apc", cores, &pid.to_string()]));
            }
        }
    }

    fn restart(&mut self) -> Duration {
        self.platform.certstore.kill();
        let began = std::time::Instant::now();
        self.platform.restart_certstore();
        let took = began.elapsed();
        self.pin();
        took
    }

    async fn caller(&self, identity: &str) -> Caller {
        Caller::connect(self.platform.addresses["store"], self.tls(identity)).await
    }

    fn tls(&self, identity: &str) -> ClientConfig {
        certseal_ceremonies::pki::tls_files(&self.platform.pki(""), identity).client_config(&["certstore"]).unwrap()
    }

    /// Makes bundles on all cores, `group` in each group.
    async fn bundles(&self, sites: std::ops::Range<usize>, version: u64) -> Vec<(DnsName, Vec<u8>)> {
        let mut tasks = JoinSet::new();
        for part in parts(sites, 8) {
            let press = self.press.clone();
            tasks.spawn_blocking(move || {
                let mut open = None;
                part.map(|n| (site(n), press.version(&site(n), version, 1024, &mut open))).collect::<Vec<_>>()
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }

    /// Puts bundles with `clients` clients at a time. Answers how long that took.
    async fn put(&self, bundles: Vec<(DnsName, Vec<u8>)>, clients: usize) -> Duration {
        let bundles = Arc::new(bundles);
        let mut callers = Vec::new();
        for part in parts(0..bundles.len(), clients) {
            callers.push((part, self.caller("certman").await));
        }
        let began = std::time::Instant::now();
        let mut tasks = JoinSet::new();
        for (part, mut caller) in callers {
            let bundles = bundles.clone();
            tasks.spawn(async move {
                for (site, bytes) in &bundles[part] {
                    caller.put(&format!("/v1/bundles/{site}"), bytes.clone()).await;
                }
            });
        }
        tasks.join_all().await;
        began.elapsed()
    }

    /// A line of certstore's `/proc/PID/status`, in MiB.
    fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.platform.certstore.pid())).unwrap();
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
        found.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Of the data, in MiB.
    fn disk(&self) -> u64 {
        if let Some(database) = &self.platform.database {
            return database.sql("SELECT pg_database_size(current_database())").parse::<u64>().unwrap() >> 20;
        }
        size(&self.platform.dir.path().join("certstore")) >> 20
    }
}

fn cores() -> usize {
    fs::read_to_string("/proc/cpuinfo").unwrap().matches("processor\t").count()
}

fn size(path: &Path) -> u64 {
    let output = run(Command::new("du").args(["-s", "--block-size=1"]).arg(path));
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Cuts a range into `count` parts, some of which may be empty.
fn parts(range: std::ops::Range<usize>, count: usize) -> Vec<std::ops::Range<usize>> {
    let (start, length) = (range.start, range.len());
    (0..count).map(|n| start + length * n / count..start + length * (n + 1) / count).collect()
}

/// The value below which `percent` of them are.
fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    assert!(!values.is_empty());
    values.sort();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
