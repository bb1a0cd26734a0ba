//! Full TLS 1.3 handshakes a second: certedge over many sealed names, against a bare tokio-rustls acceptor with one
//! certificate.
//!
//! The servers are processes of their own on core 0, the load comes from the last core, and they take turns. A harness of
//! its own: criterion measures one operation after another, this needs many at a time against two processes.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    cell::Cell,
    future,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream as BlockingStream},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use certseal_service::Shutdown;
use rustls::{
    ClientConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use support::{
    bundles,
    fleet::{Fleet, pool, site},
    is_measuring,
    machine::{Role, cores, pin_to, role},
    rounds::median,
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
    report("warm", &warm);
    report("first touch", &cold);
}

/// Prints the rounds, each of certedge and of the bare acceptor, and their medians.
fn report(title: &str, rounds: &[(Load, Load)]) {
    println!("\n{title:<12} {:>21} {:>21} {:>15}", "certedge", "bare", "ratio");
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

/// What a server did in one turn.
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
    address: SocketAddr,
    telemetry: Option<SocketAddr>,
}

impl Server {
    fn start(role: &str) -> Self {
        let mut process = Role::start(role, &[]);
        let line = process.line();
        let mut addresses = line.split(' ').map(|address| address.parse().unwrap());
        Self { address: addresses.next().unwrap(), telemetry: addresses.next(), process }
    }

    /// Shakes hands as a client that verifies: what the rounds count is right.
    fn check(&self, fleet: &Fleet) {
        let client = verifying_client(fleet.root());
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for number in (0..fleet.count()).step_by(fleet.count().div_ceil(20)) {
            // The bare acceptor has one certificate, that of the first site.
            let number = if self.telemetry.is_some() { number } else { 0 };
            runtime.block_on(shake_hands(self.address, &client, site(number).try_into().unwrap())).unwrap();
        }
    }

    fn load(&self, names: &Names, order: Order, until: Until) -> Load {
        let client = careless_client();
        let (begun, cpu_before) = (Instant::now(), self.process.processor_seconds());
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
        let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), self.process.processor_seconds() - cpu_before);
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

/// The role "edge": certedge as its program runs it, with a store that nobody listens for.
fn serve_edge(fleet: &Fleet) {
    let identity = certctl::pki::tls_files(&fleet.pki(), &format!("edge-{}", pool()));
    let config = certedge::Config {
        pool: pool(),
        https: loopback(),
        http: loopback(),
        telemetry: Some(loopback()),
        public_https_port: 443,
        mirror: fleet.mirror(),
        unseal_keys: vec![fleet.unseal_key_file()],
        security_key: fleet.pki().join("security.pub"),
        cache_bytes: 256 * 1024 * 1024,
        store: certseal_service::tls::Peer {
            url: "https://127.0.0.1:9".to_owned(),
            ca: identity.ca,
            certificate: identity.certificate,
            key: identity.key,
        },
        signer: certedge::SignerConfig::default(),
        reports: certedge::Reports::default(),
        legacy_keys: Vec::new(),
        limits: certedge::Limits::default(),
    };
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_handle, shutdown) = Shutdown::new();
        let running = certedge::start(config, shutdown).await.unwrap();
        println!("{} {}", running.https, running.telemetry.unwrap());
        running.finished().await.unwrap();
    });
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
