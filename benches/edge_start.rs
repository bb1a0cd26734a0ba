//! From nothing to the first right handshake, over a mirror of 100,000 sites; also after kill -9 of a writer.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use certseal_resolver::SealedResolver;
use criterion::{Criterion, SamplingMode};
use rustls::ClientConfig;
use support::{
    bundles,
    fleet::{Fleet, site},
    is_measuring,
    machine::{Role, evict, role},
    rounds::{Medians, median},
    tls::{handshake, server_config, verifying_client},
};

fn main() {
    let fleet = Fleet::prepared(bundles(100_000));
    match role().as_deref() {
        Some("start") => return start_once(&fleet),
        Some("write") => write_for_ever(&fleet),
        _ => {}
    }
    let client = verifying_client(fleet.root());
    let mut starts = Starts { fleet: &fleet, client: &client, number: 0 };
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group(format!("edge start with {} sites", fleet.count()));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group.bench_function("in this process", |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| starts.here(&fleet.mirror())).sum());
    });
    group.bench_function("in a new process", |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| starts.anew()).sum());
    });
    group.bench_function("in a new process, mirror not in memory", |bencher| {
        bencher.iter_custom(|count| {
            let evicted_start = |_| {
                evict(&Fleet::mirror_file(&fleet.mirror()));
                starts.anew()
            };
            (0..count).map(evicted_start).sum()
        });
    });
    group.finish();
    criterion.final_summary();
    after_kills(&mut starts);
    print_ratio(&mut starts);
}

/// Starts of an edge, each with a handshake for another site.
struct Starts<'a> {
    fleet: &'a Fleet,
    client: &'a Arc<ClientConfig>,
    number: usize,
}

impl Starts<'_> {
    /// Opens mirror, keys and resolver, and shakes hands once with a client that verifies.
    fn here(&mut self, mirror: &Path) -> Duration {
        self.number = (self.number + 1) % self.fleet.count();
        let begun = Instant::now();
        let resolver = start(self.fleet, mirror);
        handshake(&server_config(resolver.clone()), self.client, &site(self.number));
        let elapsed = begun.elapsed();
        assert_eq!(resolver.counts().unsealed, 1);
        elapsed
    }

    /// The same from the start of a process.
    fn anew(&mut self) -> Duration {
        self.number = (self.number + 1) % self.fleet.count();
        let begun = Instant::now();
        let mut process = Role::start("start", &[(SITE, self.number.to_string())]);
        assert_eq!(process.line(), "right");
        begun.elapsed()
    }
}

/// How much longer the start takes than over a mirror of 3,000 sites. The time to close a mirror is left out.
fn print_ratio(starts: &mut Starts<'_>) {
    let small = Fleet::prepared(if is_measuring() { 3000 } else { 10 });
    let client = verifying_client(small.root());
    let mut small_starts = Starts { fleet: &small, client: &client, number: 0 };
    let mut times = [(LARGE, Vec::new()), (SMALL, Vec::new())];
    for _ in 0..if is_measuring() { 100 } else { 1 } {
        times[0].1.push(starts.here(&starts.fleet.mirror()));
        times[1].1.push(small_starts.here(&small.mirror()));
    }
    let medians = Medians::of(times);
    println!("\nmedians of alternating rounds");
    medians.print();
    println!("\nratios");
    medians.print_ratio(LARGE, SMALL);
}

fn start(fleet: &Fleet, mirror: &Path) -> Arc<SealedResolver> {
    SealedResolver::new(Arc::new(fleet.open(mirror)), fleet.unseal_keys(), 64 << 20).unwrap()
}

/// The role "start".
fn start_once(fleet: &Fleet) {
    let number = support::setting(SITE, 0);
    handshake(&server_config(start(fleet, &fleet.mirror())), &verifying_client(fleet.root()), &site(number));
    println!("right");
}

/// Kills a process that writes to a copy of the mirror, and starts an edge from what it leaves behind.
fn after_kills(starts: &mut Starts<'_>) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    starts.fleet.copy_mirror(dir.path());
    let mut times = Vec::new();
    for round in 0..if is_measuring() { 20 } else { 1 } {
        let mut writer = Role::start("write", &[(MIRROR, dir.path().to_str().unwrap().to_owned())]);
        assert_eq!(writer.line(), "written");
        // Some moment in the middle of the later transactions.
        std::thread::sleep(Duration::from_millis(20 + 37 * round % 50));
        writer.kill();
        times.push(starts.here(dir.path()));
    }
    let longest = times.iter().max().unwrap();
    println!("\nedge start after kill -9: median {:.2?}, longest {longest:.2?} of {}", median(&times), times.len());
}

/// The role "write": renews sites, page after page.
fn write_for_ever(fleet: &Fleet) -> ! {
    let mirror = fleet.open(Path::new(&std::env::var(MIRROR).unwrap()));
    let press = fleet.press();
    let pages: Vec<_> = (0..fleet.count()).step_by(10).take(20).collect();
    loop {
        for first in &pages {
            let version = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
            let applied = mirror.apply(&press.page(*first..first + 10, u64::try_from(version).unwrap())).unwrap();
            assert_eq!(applied.accepted, 20);
            println!("written");
        }
    }
}

const LARGE: &str = "edge start";
const SMALL: &str = "edge start with 3,000 sites";
const SITE: &str = "CERTSEAL_BENCH_SITE";
const MIRROR: &str = "CERTSEAL_BENCH_MIRROR";
