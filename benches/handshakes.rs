//! Full TLS 1.3 handshakes a second: certedge over many sealed names, against a bare tokio-rustls acceptor with one
//! certificate; and certedge whose keys are in a signer of its own, against one that holds them itself.
//!
//! The servers are processes of their own on core 0, the load comes from the last core, and they take turns. A harness of
//! its own: criterion measures one operation after another, this needs many at a time against two processes.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    cell::Cell,
    env, future,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream as BlockingStream},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use certedge::KeysIn;
use certseal_resolver::{KeyHolder, LeafKey, LocalKeys};
use certseal_seal::Bundle;
use certseal_service::Shutdown;
use certseal_signer::RemoteKeys;
use rustls::{
    ClientConfig, SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use support::{
    bundles,
    fleet::{Fleet, pool, site},
    is_measuring,
    machine::{Role, cores, pin_to, role},
    rounds::{Case, Medians, alternate, median},
    setting,
    tls::{careless_client, server_config, verifying_client},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    runtime,
    task::LocalSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn main() {
    let fleet = Fleet::prepared(bundles(10_000));
    if let Some(role) = role() {
        pin_to(0);
        return match role.as_str() {
            "bare" => serve_bare(&fleet),
            "signer" => serve_signatures(&fleet),
            _ => serve_edge(&fleet),
        };
    }
    pin_to(cores() - 1);
    let names = Names::new(fleet.count());
    let turns = setting("CERTSEAL_BENCH_ROUNDS", if is_measuring() { 7 } else { 1 });
    let turn = Duration::from_millis(if is_measuring() { 3000 } else { 100 });

    let bare = Server::start("bare");
    bare.check(&fleet);
    let mut cold = Vec::new();
    for _ in 0..turns.min(3) {
        let edge = Server::start("edge");
        let from_bare = bare.load(&names, Order::Random, Until::Elapsed(turn));
        cold.push((edge.load(&names, Order::EachOnce, Until::Done(names.count())), from_bare));
        assert_eq!(edge.unsealed(), names.count());
    }
    let edge = Server::start("edge");
    edge.check(&fleet);
    edge.load(&names, Order::EachOnce, Until::Done(names.count()));
    let unsealed = edge.unsealed();
    let mut warm = Vec::new();
    for _ in 0..turns {
        let from_bare = bare.load(&names, Order::Random, Until::Elapsed(turn));
        warm.push((edge.load(&names, Order::Random, Until::Elapsed(turn)), from_bare));
    }
    assert_eq!(edge.unsealed(), unsealed, "the cache does not hold all names");

    println!("full TLS 1.3 handshakes over {} sealed names, X25519, P-256 leaf below one intermediate", names.count());
    report("warm", ["certedge", "bare"], &warm);
    report("first touch", ["certedge", "bare"], &cold);
    drop(bare);
    separate_signer(&fleet, &names, edge, turns, turn);
}

/// The cost of keeping keys in a process of their own: in whole handshakes, and in signatures alone.
fn separate_signer(fleet: &Fleet, names: &Names, edge: Server, turns: usize, turn: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let (socket, mirror) = (dir.path().join("run/signer.sock"), dir.path().join("mirror"));
    fleet.copy_mirror(&mirror);
    let places = [(SOCKET, socket.display().to_string()), (MIRROR, mirror.display().to_string())];
    let signer = Role::start("signer", &places);
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    signature(fleet, &socket);
    let split = Server { signer: Some(signer), ..Server::start_with("split", &places) };
    split.check(fleet);
    split.load(names, Order::EachOnce, Until::Done(names.count()));
    let rounds: Vec<_> = (0..turns)
        .map(|_| {
            let in_process = edge.load(names, Order::Random, Until::Elapsed(turn));
            (split.load(names, Order::Random, Until::Elapsed(turn)), in_process)
        })
        .collect();
    report("warm", ["separate signer", "keys in certedge"], &rounds);
    let processor_time = |of: fn(&(Load, Load)) -> Load| {
        rounds.iter().map(|round| Duration::from_secs_f64(1.0 / of(round).per_cpu_second)).collect()
    };
    let [separate, in_process] = ["handshake, separate signer", "handshake, keys in certedge"];
    println!("\nprocessor time of all processes, and ratio");
    let medians =
        Medians::of([(separate, processor_time(|round| round.0)), (in_process, processor_time(|round| round.1))]);
    medians.print();
    medians.print_ratio(separate, in_process);
}

/// One signature by an opened key: in this process, and by the signer on the other core.
fn signature(fleet: &Fleet, socket: &Path) {
    let event = fleet.press().page([0], 2).events.swap_remove(0);
    let bundle = Bundle::parse(&event.body.unwrap().0).unwrap();
    let leaf = LeafKey::from_spki(bundle.leaf_spki().unwrap()).unwrap();
    let message = [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat();
    let local = LocalKeys::new(&pool(), fleet.unseal_keys()).unwrap();
    let remote = RemoteKeys::new(socket, rustix::process::getuid().as_raw(), |wait| wait());
    let signing = |holder: &dyn KeyHolder| {
        let key = holder.signing_key(bundle.sealed(), &leaf).unwrap();
        let message = message.clone();
        move || key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap().sign(&message).unwrap()
    };
    let [there, here] = ["signature, over the socket", "signature, in this process"];
    let rounds = if is_measuring() { 101 } else { 1 };
    println!("\none signature, P-256");
    let medians = alternate(vec![Case::new(there, signing(&*remote)), Case::new(here, signing(&*local))], rounds);
    medians.print();
    medians.print_ratio(there, here);
}

/// Prints the rounds, each of both servers, and their medians.
fn report(title: &str, [one, other]: [&str; 2], rounds: &[(Load, Load)]) {
    println!("\n{title:<12} {one:>21} {other:>21} {:>15}", "ratio");
    println!("{:<12} {:>10} {:>10} {:>10} {:>10} {:>7} {:>7}", "", "/s", "/s CPU", "/s", "/s CPU", "/s", "/s CPU");
    let line = |label: &str, edge: Load, bare: Load| {
        let (wall, cpu) = (edge.per_second / bare.per_second, edge.per_cpu_second / bare.per_cpu_second);
        println!(
            "{label:<12} {:>10.0} {:>10.0} {:>10.0} {:>10.0} {wall:>7.3} {cpu:>7.3}",
            edge.per_second, edge.per_cpu_second, bare.per_second, bare.per_cpu_second,
        );
        (wall, cpu)
    };
    let ratios: Vec<_> = rounds.iter().map(|(edge, bare)| line("", *edge, *bare)).collect();
    let middle = |of: fn(&(Load, Load)) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    println!(
        "{:<12} {:>10.0} {:>10.0} {:>10.0} {:>10.0} {:>7.3} {:>7.3}",
        "medians",
        middle(|round| round.0.per_second),
        middle(|round| round.0.per_cpu_second),
        middle(|round| round.1.per_second),
        middle(|round| round.1.per_cpu_second),
        median(&ratios.iter().map(|ratio| ratio.0).collect::<Vec<_>>()),
        median(&ratios.iter().map(|ratio| ratio.1).collect::<Vec<_>>()),
    );
}

/// The work that a server did in one turn.
#[derive(Debug, Clone, Copy)]
struct Load {
    per_second: f64,
    /// For each second of processor time that the server took: other work on its core does not change this.
    per_cpu_second: f64,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Random,
    EachOnce,
}

#[derive(Debug, Clone, Copy)]
enum Until {
    Elapsed(Duration),
    Done(usize),
}

/// The sites' names, in the order in which they were made.
struct Names(Vec<ServerName<'static>>);

impl Names {
    fn new(count: usize) -> Self {
        Self((0..count).map(|number| site(number).try_into().unwrap()).collect())
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn choose(&self, order: Order, number: usize) -> ServerName<'static> {
        let index = match order {
            Order::EachOnce => number,
            // Scatters the bits of a counter (splitmix64).
            Order::Random => {
                let mut bits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (bits ^ (bits >> 27)) as usize
            }
        };
        self.0[index % self.0.len()].clone()
    }
}

/// A server process under load.
struct Server {
    process: Role,
    /// The process that holds its keys.
    signer: Option<Role>,
    address: SocketAddr,
    telemetry: Option<SocketAddr>,
}

impl Server {
    fn start(role: &str) -> Self {
        Self::start_with(role, &[])
    }

    fn start_with(role: &str, settings: &[(&str, String)]) -> Self {
        let mut process = Role::start(role, settings);
        let line = process.line();
        let mut addresses = line.split(' ').map(|address| address.parse().unwrap());
        Self { address: addresses.next().unwrap(), telemetry: addresses.next(), process, signer: None }
    }

    /// Shakes hands as a client that verifies: the handshakes that the rounds count are real ones.
    fn check(&self, fleet: &Fleet) {
        let client = verifying_client(fleet.root());
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for number in (0..fleet.count()).step_by(fleet.count().div_ceil(20)) {
            // The bare acceptor has one certificate, that of the first site.
            let number = if self.telemetry.is_some() { number } else { 0 };
            runtime.block_on(shake_hands(self.address, &client, site(number).try_into().unwrap())).unwrap();
        }
    }

    fn processor_seconds(&self) -> f64 {
        self.process.processor_seconds() + self.signer.as_ref().map_or(0.0, Role::processor_seconds)
    }

    fn load(&self, names: &Names, order: Order, until: Until) -> Load {
        let client = careless_client();
        let (begun, cpu_before) = (Instant::now(), self.processor_seconds());
        let (started, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let worker = || async {
            loop {
                let number = started.get();
                let is_over = match until {
                    Until::Elapsed(time) => begun.elapsed() >= time,
                    Until::Done(count) => number >= count,
                };
                if is_over {
                    return;
                }
                started.set(number + 1);
                shake_hands(self.address, &client, names.choose(order, number)).await.unwrap();
                done.set(done.get() + 1);
            }
        };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let mut workers: Vec<_> = (0..CONNECTIONS).map(|_| Box::pin(worker())).collect();
            future::poll_fn(|context| {
                workers.retain_mut(|worker| worker.as_mut().poll(context).is_pending());
                if workers.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
        });
        let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), self.processor_seconds() - cpu_before);
        let done = f64::from(done.get());
        Load { per_second: done / elapsed, per_cpu_second: done / cpu.max(0.01) }
    }

    /// How many keys certedge has unsealed.
    fn unsealed(&self) -> usize {
        let mut stream = BlockingStream::connect(self.telemetry.unwrap()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with(UNSEALED)).expect("the metric of unsealed keys");
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// A full handshake. It is over when the server's session tickets are there: they come after the client's Finished.
async fn shake_hands(address: SocketAddr, client: &Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // Closing resets the connection, so that no port stays in TIME_WAIT.
    stream.set_zero_linger()?;
    let stream = TlsConnector::from(client.clone()).connect(name, stream).await?;
    let (stream, connection) = stream.get_ref();
    assert_eq!(connection.handshake_kind(), Some(rustls::HandshakeKind::Full));
    match stream.peek(&mut [0]).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// The roles "edge" and "split": certedge as its program runs it, with a store that nobody listens for.
fn serve_edge(fleet: &Fleet) {
    let keys_in = if env::var_os(SOCKET).is_some() { KeysIn::Signer } else { KeysIn::ThisProcess };
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_handle, shutdown) = Shutdown::new();
        let running = certedge::start_with(edge_config(fleet), keys_in, shutdown).await.unwrap();
        println!("{} {}", running.https, running.telemetry.unwrap());
        running.finished().await.unwrap();
    });
}

/// The role "signer": `certedge signer`.
fn serve_signatures(fleet: &Fleet) {
    certedge::run_signer(edge_config(fleet), None, false).unwrap();
}

fn edge_config(fleet: &Fleet) -> certedge::Config {
    let identity = certseal_ceremonies::pki::tls_files(&fleet.pki(), &format!("edge-{}", pool()));
    certedge::Config {
        pool: pool(),
        https: loopback(),
        http: loopback(),
        telemetry: Some(loopback()),
        public_https_port: 443,
        mirror: env::var_os(MIRROR).map_or_else(|| fleet.mirror(), PathBuf::from),
        unseal_keys: vec![fleet.unseal_key_file()],
        security_key: fleet.pki().join("security.pub"),
        cache_bytes: 256 * 1024 * 1024,
        store: certseal_service::tls::Peer {
            url: "https://127.0.0.1:9".to_owned(),
            ca: identity.ca,
            certificate: identity.certificate,
            key: identity.key,
            crl: None,
            names: vec!["certstore".to_owned()],
        },
        signer: certedge::SignerConfig { socket: env::var_os(SOCKET).map(PathBuf::from), ..Default::default() },
        reports: certedge::Reports::default(),
        legacy_keys: Vec::new(),
        on_demand: None,
        limits: certedge::Limits { connections: 5000, requests: 5000, upgrades: 0, ..Default::default() },
    }
}

/// The role "bare": accepts, shakes hands, and waits for the client to go.
fn serve_bare(fleet: &Fleet) {
    let (chain, key) = fleet.press().certificate(&site(0));
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
    let certified = Arc::new(OneCertificate(Arc::new(CertifiedKey::new(chain, key))));
    let acceptor = TlsAcceptor::from(server_config(certified));
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read(&mut [0; 1024]).await;
            });
        }
    });
}

#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Connections at one time.
const CONNECTIONS: usize = 32;

/// certedge's counter of unsealed keys.
const UNSEALED: &str = "certedge_unsealed_total";

/// Where the signer of a role listens.
const SOCKET: &str = "CERTSEAL_BENCH_SOCKET";

/// The mirror of a role, in place of the fleet's own.
const MIRROR: &str = "CERTSEAL_BENCH_MIRROR";
