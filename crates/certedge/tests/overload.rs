//! Hostile visitors against certedge's own process: a visitor who takes much, or does not read, takes it from nobody
//! else.
//!
//! The attack is the same everywhere: 100 connections over HTTP/2 with 100 streams each, for bodies of 1 MB, that are not
//! read. Each test has its control: the same attack without the share that it is about. Run with `--nocapture` for figures.

#![allow(clippy::unwrap_used)]

mod world;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Child, Command},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes};
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Mutex, MutexGuard},
    task::JoinSet,
};
use tokio_rustls::TlsConnector;
use world::{World, eventually, platform::page};

/// One at a time: each takes the whole machine.
static TURN: Mutex<()> = Mutex::const_new(());

const MIB: u64 = 1024 * 1024;

/// Memory for as many requests as there may be.
const PLENTY: &str = "memory = 68719476736";

#[tokio::test(flavor = "multi_thread")]
async fn one_visitor_with_ten_thousand_streams_leaves_everybody_else_their_places() {
    let edge = Edge::start(PLENTY).await;
    let attack = edge.attack([address(2)], 100, Reads::Nothing).await;
    assert_eq!(edge.ask(address(3), "a.example").await, StatusCode::OK, "another visitor of the same site");
    assert_eq!(edge.ask(address(3), "b.example").await, StatusCode::OK, "another site");
    assert_eq!(edge.ask(address(2), "b.example").await, StatusCode::TOO_MANY_REQUESTS, "the attacker");
    assert!(edge.count("certedge_refused_requests_total{bound=\"Address\"}").await > 9_000);
    drop(attack);
    eventually("places of who left", async || edge.ask(address(2), "b.example").await == StatusCode::OK).await;

    let attack = edge.attack([address(2)], 100, Reads::Slowly).await;
    assert_eq!(edge.ask(address(3), "a.example").await, StatusCode::OK, "slow readers");
    assert_eq!(edge.ask(address(3), "b.example").await, StatusCode::OK, "slow readers");
    drop(attack);
    drop(edge);

    // The control: without the share of an address.
    let edge = Edge::start(&format!("{PLENTY}\nrequests_per_address = 10000\nrequests_per_site = 10000")).await;
    let _attack = edge.attack([address(2)], 100, Reads::Nothing).await;
    assert_eq!(edge.ask(address(3), "b.example").await, StatusCode::SERVICE_UNAVAILABLE, "the attack does not work");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_from_many_addresses_to_one_site_leave_the_other_sites_theirs() {
    let many = || (2..27).map(address);
    let edge = Edge::start(PLENTY).await;
    let _attack = edge.attack(many(), 4, Reads::Nothing).await;
    assert_eq!(edge.ask(address(30), "b.example").await, StatusCode::OK, "another site");
    assert_eq!(edge.ask(address(30), "a.example").await, StatusCode::SERVICE_UNAVAILABLE, "the attacked site");
    assert!(edge.count("certedge_refused_requests_total{bound=\"Site\"}").await > 5_000);
    drop(edge);

    let edge = Edge::start(&format!("{PLENTY}\nrequests_per_site = 10000")).await;
    let _attack = edge.attack(many(), 4, Reads::Nothing).await;
    assert_eq!(edge.ask(address(30), "b.example").await, StatusCode::SERVICE_UNAVAILABLE, "the attack does not work");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_read_takes_no_more_memory_than_configured() {
    let shares = "requests_per_address = 10000\nrequests_per_site = 10000";
    for reads in [Reads::Nothing, Reads::ABit] {
        let edge = Edge::start(&format!("{shares}\nmemory = {}", 256 * MIB)).await;
        let before = edge.memory();
        let _attack = edge.attack([address(2)], 100, reads).await;
        let grown = edge.memory() - before;
        println!("{reads:?}: {} MiB of 256", grown / MIB);
        assert!(grown < 256 * MIB, "{} MiB", grown / MIB);
        assert!(edge.count("certedge_refused_requests_total{bound=").await > 5_000);
    }
    let edge = Edge::start(&format!("{shares}\n{PLENTY}")).await;
    let before = edge.memory();
    let _attack = edge.attack([address(2)], 100, Reads::ABit).await;
    let grown = edge.memory() - before;
    println!("without the bound: {} MiB", grown / MIB);
    assert!(grown > 256 * MIB, "the attack does not work: {} MiB", grown / MIB);
}

/// A window of one octet has the end of a response wait in h2, out of hyper's sight; one of none has it wait in hyper.
#[tokio::test(flavor = "multi_thread")]
async fn responses_that_nobody_reads_are_given_up() {
    for (window, path) in [(0, "/big"), (1, "/big"), (1, "/small")] {
        let ask = async |unread: &str| {
            let edge = Edge::start(&format!("{PLENTY}\nrequests_per_address = 2\n{unread}")).await;
            let mut client = edge.client(address(2), "a.example", window).await;
            let held = [client.ask("a.example", path).await, client.ask("a.example", path).await];
            assert_eq!(edge.ask(address(2), "b.example").await, StatusCode::TOO_MANY_REQUESTS);
            (edge, client, held)
        };
        let (edge, _client, _held) = ask("unread = 1").await;
        eventually("a free place", async || edge.ask(address(2), "b.example").await == StatusCode::OK).await;
        assert!(edge.count("certedge_unread_responses_total").await >= 1);
        drop(edge);
        let (edge, _client, _held) = ask("unread = 3600").await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let status = edge.ask(address(2), "b.example").await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "the attack does not work with {window} and {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_the_system_cannot_keep_are_refused() {
    let world = World::new();
    let start = async |limits: certedge::Limits| {
        let (_handle, shutdown) = certseal_service::Shutdown::new();
        let config = certedge::Config { limits, ..world.config(1) };
        certedge::start(config, shutdown).await.map(drop).map_err(|error| format!("{error:#}"))
    };
    let small = world.config(1).limits;
    let error = start(certedge::Limits { requests: usize::MAX, ..small.clone() }).await.unwrap_err();
    assert!(error.contains("`memory`"), "{error}");
    let error = start(certedge::Limits { connections: usize::MAX, ..small.clone() }).await.unwrap_err();
    assert!(error.contains("open files") && error.contains("LimitNOFILE="), "{error}");
    assert_eq!(start(small).await, Ok(()));
}

/// The part of each response that the attacker takes.
#[derive(Debug, Clone, Copy)]
enum Reads {
    Nothing,
    /// So much that every buffer on the way has grown.
    ABit,
    Slowly,
}

/// A certedge of its own with the sites `a.example` and `b.example`.
struct Edge {
    process: Child,
    https: SocketAddr,
    telemetry: SocketAddr,
    client: Arc<rustls::ClientConfig>,
    _world: World,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Edge {
    async fn start(limits: &str) -> Self {
        certseal_service::raise_file_limit();
        let turn = TURN.lock().await;
        let (world, upstream) = (World::new(), upstream().await);
        let mirror = world.platform.mirror(&world.mirror_dir());
        let sites = ["a.example", "b.example"];
        let feed =
            sites.map(|site| [world.platform.simple(site, 1), world.platform.route(site, &[site], 1, Some(&upstream))]);
        assert_eq!(mirror.apply(&page(feed.concat())).unwrap().accepted, 4);
        drop(mirror);
        let [https, http, telemetry] = [free_address(), free_address(), free_address()];
        let dir = world.dir.path().display();
        let config = format!(
            "pool = \"eu\"\nhttps = \"{https}\"\nhttp = \"{http}\"\ntelemetry = \"{telemetry}\"\nmirror = \"{dir}/mirror\"\n\
             unseal_keys = [\"{dir}/unseal.pem\"]\nsecurity_key = \"{dir}/security.pem\"\n\
             [store]\nurl = \"https://localhost:1\"\nca = \"{dir}/ca.pem\"\ncertificate = \"{dir}/edge.pem\"\n\
             key = \"{dir}/edge.key\"\n\
             [limits]\nconnections = 2000\nupgrades = 1000\nrequests = 10000\nconnect = 60\n{limits}\n"
        );
        fs::write(world.path("certedge.toml"), config).unwrap();
        let log = fs::File::create(world.path("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_certedge"));
        command.arg("--config").arg(world.path("certedge.toml")).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().unwrap();
        let edge = Self { process, https, telemetry, client: world.platform.client(), _world: world, _turn: turn };
        eventually("the start", async || TcpStream::connect(https).await.is_ok()).await;
        assert_eq!(edge.ask(address(9), "a.example").await, StatusCode::OK);
        assert_eq!(edge.ask(address(9), "b.example").await, StatusCode::OK);
        edge
    }

    /// So many connections from each address, with 100 requests each for a large body of `a.example`; comes back when each
    /// was answered or waits for its place.
    async fn attack(&self, from: impl IntoIterator<Item = IpAddr>, connections: usize, reads: Reads) -> JoinSet<()> {
        let window = match reads {
            Reads::Nothing => 0,
            Reads::ABit => 300_000,
            Reads::Slowly => 16 * 1024,
        };
        let begun = Instant::now();
        let mut attack = JoinSet::new();
        let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
        for from in from {
            for _ in 0..connections {
                let mut client = self.client(from, "a.example", window).await;
                let asked: Vec<_> = (0..100).map(|_| client.send("a.example", "/big")).collect();
                for asked in asked {
                    let (answered, client) = (answered.clone(), client.clone());
                    attack.spawn(async move {
                        let response = asked.await;
                        let _ = answered.send(response.as_ref().ok().map(Response::status));
                        let Ok(mut response) = response else { return };
                        if let Reads::Slowly = reads {
                            while let Some(Ok(_)) = response.frame().await {
                                tokio::time::sleep(Duration::from_secs(1)).await;
                            }
                        }
                        std::future::pending::<()>().await;
                        drop((response, client));
                    });
                }
            }
        }
        drop(answered);
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for _ in 0..attack.len() {
            let answer =
                tokio::time::timeout(Duration::from_secs(120), answers.recv()).await.expect("no answer").unwrap();
            *counts.entry(format!("{answer:?}")).or_default() += 1;
        }
        // The responses are on their way.
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("{reads:?}: {counts:?} within {:.1?}, {} MiB", begun.elapsed(), self.memory() / MIB);
        attack
    }

    /// The status of an exchange over a connection of its own.
    async fn ask(&self, from: IpAddr, site: &'static str) -> StatusCode {
        let exchange = async {
            let mut client = self.client(from, site, 65_535).await;
            let response = client.ask(site, "/small").await;
            let status = response.status();
            assert_eq!(status != StatusCode::OK, response.headers().contains_key(RETRY_AFTER));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), if status == StatusCode::OK { SMALL } else { 0 });
            status
        };
        tokio::time::timeout(Duration::from_secs(30), exchange).await.expect("no answer")
    }

    async fn client(&self, from: IpAddr, site: &'static str, window: u32) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(self.https).await.unwrap();
        let mut config = (*self.client).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TlsConnector::from(Arc::new(config)).connect(site.try_into().unwrap(), stream).await.unwrap();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window).initial_connection_window_size(100 * window.max(655));
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client(sender)
    }

    /// Resident, in octets.
    fn memory(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    /// The sum of the metrics that begin so.
    async fn count(&self, metric: &str) -> u64 {
        let mut stream = TcpStream::connect(self.telemetry).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        let values = text.lines().filter(|line| line.starts_with(metric));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

#[derive(Clone)]
struct Client(http2::SendRequest<Body>);

impl Client {
    fn send(&mut self, site: &str, path: &str) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let request = Request::builder().uri(format!("https://{site}{path}")).body(Body::empty()).unwrap();
        self.0.send_request(request)
    }

    async fn ask(&mut self, site: &str, path: &str) -> Response<Incoming> {
        self.send(site, path).await.unwrap()
    }
}

/// Answers every request with 1 MB, and those for `/small` with little.
async fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let big = Bytes::from(vec![b'x'; 1_000_000]);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(answer(stream, big.clone()));
        }
    });
    origin
}

async fn answer(mut stream: TcpStream, big: Bytes) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let body = if head.starts_with(b"GET /small") { big.slice(..SMALL) } else { big };
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

const SMALL: usize = 10_000;
