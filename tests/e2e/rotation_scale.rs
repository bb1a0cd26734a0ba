//! Rotations of a fleet of many bundles, killed and resumed on the way, while visitors connect.
//!
//! The normal run has a few hundred bundles. `CERTSEAL_ROTATION_BUNDLES=1000000` has as many as it says; then run it in
//! release, since debug builds take a multiple of the time:
//!
//! ```sh
//! cargo build --release --workspace --bins
//! CERTSEAL_ROTATION_BUNDLES=1000000 cargo test --release -p certseal --test e2e -- rotation_scale --nocapture --test-threads 1
//! ```

use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use certseal_seal::{Bundle, Group};
use certseal_wire::{DnsName, FeedQuery, Kind};
use serde_json::Value;

use crate::{
    platform::{Authority, POOL, Platform, daemon},
    press::{Press, site},
    process::{program, run},
    team::Load,
    tls_client::Connection,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_of_single_envelopes_is_rotated_with_three_kills() {
    rotate(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_of_grouped_envelopes_is_rotated_with_three_kills() {
    rotate(if bundles() < 10_000 { 32 } else { 1024 }).await;
}

fn bundles() -> usize {
    std::env::var("CERTSEAL_ROTATION_BUNDLES").map_or(300, |count| count.parse().unwrap())
}

async fn rotate(group: u32) {
    let count = bundles();
    let mut fleet = Fleet::new(count, group).await;
    let platform = &fleet.platform;
    let names: Vec<DnsName> = (0..count).step_by(count.div_ceil(5000)).map(site).collect();
    let load = Load::start(platform, &names, &platform.pki("local-ca.pem"));

    let began = Instant::now();
    let (old_key, new_key) = (fleet.pki("eu-1.unseal.pem"), fleet.pki("eu-2.unseal.pem"));
    let security = fleet.pki("security.key");
    let plan = ["keys", "rotate", "plan", "--pool", POOL, "--out", &new_key, "--security-key", &security];
    let planned = fleet.json("admin", &plan);
    let id = planned["plan"]["id"].as_str().unwrap();
    fleet.json("bob", &["keys", "rotate", "approve", id, "--digest", planned["digest"].as_str().unwrap()]);
    fs::copy(&new_key, platform.dir.path().join("unseal-keys/2.key")).unwrap();

    let run_args =
        ["keys", "rotate", "run", id, "--security-key", &security, "--unseal-key", &old_key, "--timeout", "600"];
    let mut killed = 0;
    for quarter in 1..=3 {
        let mut child = fleet.spawn(&run_args);
        fleet.until_rewrapped(id, count * quarter / 4, &mut child).await;
        // On a small fleet it may be through already; then the next run has nothing to do.
        killed += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(killed == 3 || count < 10_000, "only {killed} runs were killed");
    assert_eq!(fleet.json("admin", &run_args)["state"], "active");
    let sealed = began.elapsed();
    let verified = fleet.json("admin", &["keys", "rotate", "verify", id, "--unseal-key", &new_key]);
    assert_eq!(verified["state"], "verified");
    let elapsed = began.elapsed();

    fleet.until_edge_has(count).await;
    let caught_up = began.elapsed();
    let retiring = Instant::now();
    let retired = fleet.json("admin", &["keys", "rotate", "retire", id, "--security-key", &security]);
    assert_eq!(retired["state"], "retired");
    let retiring = retiring.elapsed();
    let drill = fleet.json("admin", &["drill", "unseal", "--pool", POOL, "--sample", "200"]);
    let classes = drill[0]["classes"].as_array().unwrap();
    assert!(classes.iter().all(|class| class["epoch"] == 2 && class["failed"] == 0), "{drill}");
    let (handshakes, failed) = load.stop().await;
    let restarted = fleet.restart_edge().await;
    println!(
        "{count} bundles in groups of {group}: plan to verified {:.1} s ({:.0} bundles/s), of it sealing with {killed} \
         kills {:.1} s; the edge has them all after {:.1} s; retired in {:.1} s; {handshakes} handshakes, {failed} failed; \
         the edge starts in {:.0} ms",
        elapsed.as_secs_f64(),
        count as f64 / elapsed.as_secs_f64(),
        sealed.as_secs_f64(),
        caught_up.as_secs_f64(),
        retiring.as_secs_f64(),
        restarted.as_secs_f64() * 1e3,
    );
    assert_eq!(failed, 0, "{}", fleet.platform.edge.log());
}

/// A platform whose store was filled by certman's issuer key, without certman's orders.
struct Fleet {
    platform: Platform,
}

impl Fleet {
    async fn new(count: usize, group: u32) -> Self {
        let platform = Platform::start(Authority::Local).await;
        let pki = platform.dir.path().join("pki");
        run(Command::new(program("certctl"))
            .args(["pki", "issue", "--role", "admin", "--name", "bob", "--dir"])
            .arg(pki));
        let fleet = Self { platform };
        let began = Instant::now();
        fleet.fill(count, group).await;
        println!("{count} bundles stored in {:.1} s", began.elapsed().as_secs_f64());
        fleet.until_edge_has(count).await;
        println!("and mirrored by the edge after {:.1} s", began.elapsed().as_secs_f64());
        fleet
    }

    /// Makes and stores bundles on all cores.
    async fn fill(&self, count: usize, group: u32) {
        let store = self.platform.store_as("certman");
        let press = Arc::new(Press::new(&self.platform, &store).await);
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let (store, press, next) = (store.clone(), press.clone(), next.clone());
            tasks.spawn(async move {
                let mut open: Option<Group> = None;
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let bytes = tokio::task::block_in_place(|| press.bundle(&site(n), group, &mut open));
                    store.put_bundle(&site(n), bytes).await.unwrap();
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }

    fn pki(&self, file: &str) -> String {
        self.platform.pki(file).to_str().unwrap().to_owned()
    }

    fn json(&self, identity: &str, args: &[&str]) -> Value {
        let output = self.platform.certctl_as(identity, args).arg("--json").output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn spawn(&self, args: &[&str]) -> Child {
        self.platform.certctl_as("admin", args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Waits until the first `count` sites, in the order in which they are sealed, have the new key, or the run ended.
    async fn until_rewrapped(&self, id: &str, count: usize, child: &mut Child) {
        let store = self.platform.store_as("admin");
        let mut names: Vec<String> = (0..bundles()).map(|n| site(n).to_string()).collect();
        names.sort();
        let last: DnsName = names[count.saturating_sub(1)].parse().unwrap();
        while child.try_wait().unwrap().is_none() {
            if self.json("admin", &["keys", "rotate", "show", id])["state"] == "active" {
                let bytes = store.bundle(&last).await.unwrap().unwrap();
                let bundle = Bundle::parse(&bytes).unwrap();
                if bundle.sealed().envelope().unwrap().stanzas().iter().any(|stanza| stanza.epoch.0 == 2) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(if bundles() < 10_000 { 5 } else { 200 })).await;
        }
    }

    /// From the start of a new process, after kill -9, to its first handshake.
    async fn restart_edge(&mut self) -> Duration {
        self.platform.edge.kill();
        let began = Instant::now();
        self.platform.edge = daemon(self.platform.dir.path(), "certedge", &Default::default());
        let root = self.platform.pki("local-ca.pem");
        while Connection::open(self.platform.addresses["https"], &site(0), &root).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", self.platform.edge.log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        began.elapsed()
    }

    /// Waits until the edge has every bundle, and has read the feed to its end.
    async fn until_edge_has(&self, count: usize) {
        let store = self.platform.store_as("admin");
        let deadline = Instant::now() + Duration::from_secs(60 + count as u64 / 500);
        loop {
            let edges = store.edges().await.unwrap().edges;
            let report = edges.first().map(|edge| &edge.report).filter(|report| report.bundles == count as u64);
            if let Some(cursor) = report.and_then(|report| report.cursor) {
                let query = FeedQuery { after: Some(cursor), limit: Some(1), wait: None };
                let news = store.feed(&query).await.unwrap().events;
                // Checkpoints, which certman writes all the time, are not waited for.
                if news.iter().all(|event| event.kind == Kind::Checkpoint) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "{edges:?}\n{}", self.platform.edge.log());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}
