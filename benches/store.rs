//! certstore beside the least that could do its work: bundle fetches beside a bare axum server over the same TLS, and durable
//! puts beside raw group commits of the same octets.
//!
//! The servers are processes of their own on core 0, the load comes from the last core, and they take turns. A harness of
//! its own, as in `handshakes`.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    cell::Cell,
    collections::HashMap,
    fs::{self, File},
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use axum::{Router, extract, routing};
use certseal_service::Shutdown;
use hyper::{body::Bytes, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rustls::ClientConfig;
use support::{
    bundles,
    caller::Caller,
    fleet::{Fleet, Press, pool, site},
    is_measuring,
    machine::{Role, cores, pin_to, role},
    rounds::{Medians, median},
    setting,
};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
    sync::oneshot,
    task::LocalSet,
};
use tokio_rustls::TlsAcceptor;

fn main() {
    let fleet = Fleet::prepared(bundles(2_000));
    if let Some(role) = role() {
        pin_to(0);
        return if role == "bare" { serve_bare(&fleet) } else { serve_store(&fleet) };
    }
    pin_to(cores() - 1);
    let rounds = setting("CERTSEAL_BENCH_ROUNDS", if is_measuring() { 7 } else { 1 });
    let turn = Duration::from_millis(if is_measuring() { 2000 } else { 100 });
    let puts = if is_measuring() { 4000 } else { 50 };

    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Server::start("store", &[(DATA, data.path().display().to_string())]);
    let bare = Server::start("bare", &[]);
    let load = Load::new(&fleet);
    load.fill(&store);
    // Everything that is fetched from here on is in the memory of both.
    for server in [&store, &bare] {
        load.fetch(server, turn);
    }

    let (mut fetches, mut commits) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        fetches.push([load.fetch(&store, turn), load.fetch(&bare, turn)]);
        let made = load.make(puts, 2 + round as u64);
        let raw = commit_raw(&data.path().join("raw"), &made);
        commits.push([load.put(&store, made), raw]);
    }
    report(["bundle from certstore", "bundle from bare axum"], &fetches);
    report(["durable put", "raw group commit"], &commits);
    let times = |turns: &[[Turn; 2]], side: usize| turns.iter().map(|turns| turns[side].each).collect();
    let processor = |turns: &[[Turn; 2]], side: usize| turns.iter().map(|turns| turns[side].cpu).collect();
    let medians = Medians::of([
        ("bundle from certstore", times(&fetches, 0)),
        ("bundle from bare axum", times(&fetches, 1)),
        ("bundle from certstore, processor time", processor(&fetches, 0)),
        ("bundle from bare axum, processor time", processor(&fetches, 1)),
        ("durable put", times(&commits, 0)),
        ("durable put, processor time", processor(&commits, 0)),
        ("raw group commit", times(&commits, 1)),
    ]);
    println!("\nmedians");
    medians.print();
    println!("\nratios");
    medians.print_ratio("bundle from bare axum", "bundle from certstore");
    medians.print_ratio("bundle from bare axum, processor time", "bundle from certstore, processor time");
    medians.print_ratio("raw group commit", "durable put");
}

/// Prints the rounds of both sides.
fn report([one, other]: [&str; 2], rounds: &[[Turn; 2]]) {
    println!("\n{one:>33} {other:>32} {:>7}", "ratio");
    println!("{:>16} {:>16} {:>16} {:>16}", "/s", "CPU us each", "/s", "CPU us each");
    let ratio = |[one, other]: &[Turn; 2]| other.each.as_secs_f64() / one.each.as_secs_f64();
    for turns in rounds {
        for turn in turns {
            print!("{:>16.0} {:>16.1} ", 1.0 / turn.each.as_secs_f64(), turn.cpu.as_secs_f64() * 1e6);
        }
        println!("{:>7.3}", ratio(turns));
    }
    println!(
        "{:>76}",
        format!("median of the rounds' ratios {:.3}", median(&rounds.iter().map(ratio).collect::<Vec<_>>()))
    );
}

/// The times of one operation of a server, from one turn.
#[derive(Clone, Copy)]
struct Turn {
    /// The time of one operation: that of the turn divided by their number.
    each: Duration,
    /// The server's processor time of one operation.
    cpu: Duration,
}

struct Server {
    process: Role,
    address: SocketAddr,
}

impl Server {
    fn start(role: &str, settings: &[(&str, String)]) -> Self {
        let mut process = Role::start(role, settings);
        let address = process.line().parse().unwrap();
        Self { process, address }
    }

    /// Measures `work`, which answers how many operations it did.
    fn measure(&self, work: impl FnOnce() -> u32) -> Turn {
        let (begun, before) = (Instant::now(), self.process.processor_seconds());
        let count = work().max(1);
        let cpu = Duration::from_secs_f64(self.process.processor_seconds() - before);
        Turn { each: begun.elapsed() / count, cpu: cpu / count }
    }
}

/// The callers, and what they call for.
struct Load<'a> {
    fleet: &'a Fleet,
    press: Press,
    runtime: Runtime,
}

impl<'a> Load<'a> {
    fn new(fleet: &'a Fleet) -> Self {
        Self {
            fleet,
            press: fleet.press(),
            runtime: runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    /// Gives certstore the key ring and the first bundle of each site.
    fn fill(&self, store: &Server) {
        let ring = self.fleet.ring();
        self.runtime.block_on(async {
            Caller::connect(store.address, &self.tls("admin")).await.put("/v1/ring", ring.into()).await;
        });
        self.put(store, self.make(self.fleet.count(), 1));
    }

    /// The bundles of `count` sites of this version.
    fn make(&self, count: usize, version: u64) -> Vec<(String, Bytes)> {
        let sealed = (0..count).map(|number| self.press.sealed(number, version));
        sealed.map(|(site, bytes)| (site, bytes.into())).collect()
    }

    /// Fetches bundles at no particular place until `time` is over.
    fn fetch(&self, server: &Server, time: Duration) -> Turn {
        let count = self.fleet.count();
        let begun = Instant::now();
        self.by_many(server, READER, FETCHING, |mut caller, connection| async move {
            let (mut done, mut number) = (0, connection * 7_919);
            while begun.elapsed() < time {
                // Steps of a prime lead through all of them without an order.
                number = (number + 1_000_003) % count;
                assert!(caller.get(&format!("/v1/bundles/{}", site(number))).await.len() > 1000);
                done += 1;
            }
            done
        })
    }

    /// Puts bundles, and waits until each of them is durable.
    fn put(&self, server: &Server, bundles: Vec<(String, Bytes)>) -> Turn {
        let bundles = Rc::new(bundles);
        let next = Rc::new(Cell::new(0));
        self.by_many(server, "certman", PUTTING, |mut caller, _| {
            let (bundles, next) = (bundles.clone(), next.clone());
            async move {
                let mut done = 0;
                while let Some((site, bytes)) = bundles.get(next.replace(next.get() + 1)) {
                    caller.put(&format!("/v1/bundles/{site}"), bytes.clone()).await;
                    done += 1;
                }
                done
            }
        })
    }

    /// Does `work` over many connections, which are there before it begins.
    fn by_many<W: Future<Output = u32> + 'static>(
        &self,
        server: &Server,
        identity: &str,
        connections: usize,
        work: impl Fn(Caller, usize) -> W,
    ) -> Turn {
        let tls = self.tls(identity);
        let local = LocalSet::new();
        let callers: Vec<_> = local.block_on(&self.runtime, async {
            let mut callers = Vec::new();
            for _ in 0..connections {
                callers.push(Caller::connect(server.address, &tls).await);
            }
            callers
        });
        server.measure(|| {
            local.block_on(&self.runtime, async {
                let work = callers.into_iter().enumerate().map(|(number, caller)| work(caller, number));
                let tasks: Vec<_> = work.map(tokio::task::spawn_local).collect();
                let mut done = 0;
                for task in tasks {
                    done += task.await.unwrap();
                }
                done
            })
        })
    }

    fn tls(&self, identity: &str) -> Arc<ClientConfig> {
        let identity = if identity == READER { format!("edge-{}", pool()) } else { identity.to_owned() };
        Arc::new(
            certseal_ceremonies::pki::tls_files(&self.fleet.pki(), &identity).client_config(&["certstore"]).unwrap(),
        )
    }
}

/// Group commits of the same octets by as many writers, on the core of the servers: everything that waits is written to the
/// end of a file and synced together.
fn commit_raw(file: &Path, bundles: &[(String, Bytes)]) -> Turn {
    let mut file = File::options().create(true).append(true).open(file).unwrap();
    let (submit, waiting) = mpsc::channel::<(Bytes, oneshot::Sender<()>)>();
    let committer = thread::spawn(move || {
        pin_to(0);
        while let Ok(first) = waiting.recv() {
            let group: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
            let octets: Vec<u8> = group.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
            file.write_all(&octets).unwrap();
            file.sync_data().unwrap();
            group.into_iter().for_each(|(_, done)| done.send(()).unwrap());
        }
        thread_processor_time()
    });
    let begun = Instant::now();
    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    let (local, next) = (LocalSet::new(), Rc::new(Cell::new(0)));
    let bundles: Rc<[(String, Bytes)]> = bundles.into();
    local.block_on(&runtime, async {
        let writer = || {
            let (bundles, next, submit) = (bundles.clone(), next.clone(), submit.clone());
            async move {
                while let Some((_, bytes)) = bundles.get(next.replace(next.get() + 1)) {
                    let (done, is_done) = oneshot::channel();
                    submit.send((bytes.clone(), done)).unwrap();
                    is_done.await.unwrap();
                }
            }
        };
        let tasks: Vec<_> = (0..PUTTING).map(|_| tokio::task::spawn_local(writer())).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let count = u32::try_from(bundles.len()).unwrap();
    let each = begun.elapsed() / count;
    drop(submit);
    Turn { each, cpu: committer.join().unwrap() / count }
}

/// The processor time of this thread.
fn thread_processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// The role "store": certstore as its program runs it.
fn serve_store(fleet: &Fleet) {
    let data = PathBuf::from(std::env::var_os(DATA).unwrap());
    let config = certstore::Config {
        listen: loopback(),
        telemetry: None,
        data_dir: Some(data.join("certstore")),
        postgres: None,
        trust_domain: certseal_ceremonies::pki::PkiOptions::default().trust_domain,
        security_key: fleet.pki().join("security.pub"),
        tls: certseal_ceremonies::pki::tls_files(&fleet.pki(), "certstore"),
        reserve_bytes: 0,
        retention: Default::default(),
        audit_files: None,
        requests_per_second: NonZeroU32::MAX,
        snapshot_dir: None,
        max_connections: 1000,
    };
    runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let (_handle, shutdown) = Shutdown::new();
        let running = certstore::start(config, shutdown).await.unwrap();
        println!("{}", running.address);
        running.finished().await.unwrap();
    });
}

/// The role "bare": axum over the same TLS settings, and the bundles in a map.
fn serve_bare(fleet: &Fleet) {
    let press = fleet.press();
    let sealed = (0..fleet.count()).map(|number| press.sealed(number, 1));
    let bundles: Arc<HashMap<String, Bytes>> = Arc::new(sealed.map(|(site, bytes)| (site, bytes.into())).collect());
    let fetch = async move |extract::Path(site): extract::Path<String>| bundles[&site].clone();
    let app: Router = Router::new().route("/v1/bundles/{site}", routing::get(fetch));
    let tls = certseal_ceremonies::pki::tls_files(&fleet.pki(), "certstore").server_config().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(app.clone()));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Connections that fetch. certstore notes each fetch durably before it answers: those that wait share a sync.
const FETCHING: usize = 256;

/// Connections that put, and writers of the raw commits.
const PUTTING: usize = 64;

/// The identity of an edge of the fleet's pool.
const READER: &str = "edge";

/// Where certstore keeps its data.
const DATA: &str = "CERTSEAL_BENCH_DATA";
