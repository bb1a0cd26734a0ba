//! An edge with everything around it in one process: a platform, a certstore that says what a test wants, an upstream.

#![allow(dead_code, clippy::unwrap_used)]

// The platform is the one that the resolver is tested with.
#[path = "../../../resolver/tests/support/mod.rs"]
pub(crate) mod platform;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path as Segments, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use certedge::{Config, Limits, Running};
use certseal_service::{
    Shutdown, ShutdownHandle,
    config::write_private,
    server::{self, Limits as ServerLimits},
    tls::TlsFiles,
};
use certseal_wire::{Cursor, Event, FeedPage, FeedQuery, Kind, Problem, ProblemKind, Signed, Snapshot};
use platform::Platform;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) struct World {
    pub(crate) platform: Platform,
    pub(crate) dir: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let world = Self { platform: Platform::new(), dir: tempfile::tempdir().unwrap(), ca };
        std::fs::write(world.path("ca.pem"), world.ca.pem()).unwrap();
        std::fs::write(world.path("security.pem"), world.platform.security.verifying_key().to_pem()).unwrap();
        write_private(&world.path("unseal.pem"), &world.platform.unseal_pem).unwrap();
        for (name, role) in [("store", "service/certstore"), ("edge", "edge/eu/edge-1")] {
            let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let id = format!("spiffe://test/{role}");
            leaf.subject_alt_names.push(SanType::URI(id.try_into().unwrap()));
            let key = KeyPair::generate().unwrap();
            let certificate = leaf.signed_by(&key, &world.ca).unwrap();
            std::fs::write(world.path(&format!("{name}.pem")), certificate.pem()).unwrap();
            write_private(&world.path(&format!("{name}.key")), &key.serialize_pem()).unwrap();
        }
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn mirror_dir(&self) -> PathBuf {
        self.path("mirror")
    }

    /// A configuration for ports that the system chooses.
    pub(crate) fn config(&self, store_port: u16) -> Config {
        let any = "127.0.0.1:0".parse().unwrap();
        Config {
            pool: "eu".parse().unwrap(),
            https: any,
            http: any,
            telemetry: Some(any),
            public_https_port: 8443,
            mirror: self.mirror_dir(),
            unseal_keys: vec![self.path("unseal.pem")],
            security_key: self.path("security.pem"),
            cache_bytes: 1 << 20,
            store: certseal_service::tls::Peer {
                url: format!("https://localhost:{store_port}"),
                ca: self.path("ca.pem"),
                certificate: self.path("edge.pem"),
                key: self.path("edge.key"),
                crl: None,
                names: vec!["certstore".to_owned()],
            },
            signer: certedge::SignerConfig::default(),
            reports: certedge::Reports::default(),
            legacy_keys: Vec::new(),
            on_demand: None,
            limits: Limits {
                connections: 1000,
                requests: 1000,
                requests_per_site: 1000,
                upgrades: 1000,
                response: 1,
                connect: 1,
                drain: 1,
                ..Limits::default()
            },
        }
    }

    pub(crate) async fn edge(&self, store_port: u16) -> Edge {
        self.edge_with(self.config(store_port)).await
    }

    pub(crate) async fn edge_with(&self, config: Config) -> Edge {
        let (handle, shutdown) = Shutdown::new();
        let running = certedge::start(config, shutdown).await.unwrap();
        Edge { running, handle, client: self.platform.client() }
    }

    /// A certstore that hands out what the test puts into it. Answers its port.
    pub(crate) async fn store(&self, store: Arc<FakeStore>) -> (u16, ShutdownHandle) {
        let app = Router::new()
            .route("/v1/snapshot", get(snapshot))
            .route("/v1/feed", get(feed))
            .route("/v1/ring", get(|State(store): State<Arc<FakeStore>>| async move { store.latest(Kind::Ring, "") }))
            .route("/v1/bundles/{site}", get(bundle))
            .route("/v1/challenges/{host}/{token}", get(challenge))
            .with_state(store);
        let file = |name: &str| self.path(name);
        let tls = TlsFiles { ca: file("ca.pem"), certificate: file("store.pem"), key: file("store.key"), crl: None };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (handle, shutdown) = Shutdown::new();
        let tls = tls.server_config().unwrap().into();
        let domain = "test".parse().unwrap();
        tokio::spawn(server::serve_mtls(listener, tls, domain, app, ServerLimits::default(), shutdown));
        (port, handle)
    }
}

/// An edge that runs until it is dropped.
pub(crate) struct Edge {
    pub(crate) running: Running,
    pub(crate) handle: ShutdownHandle,
    pub(crate) client: Arc<rustls::ClientConfig>,
}

impl Edge {
    pub(crate) async fn connect(&self, server_name: &str, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = (*self.client).clone();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.running.https).await?;
        TlsConnector::from(Arc::new(config)).connect(server_name.to_owned().try_into().unwrap(), stream).await
    }

    /// A handshake by tls-alpn-01 (RFC 8737, 3), as a CA makes it: which certificate comes is the CA's to judge.
    pub(crate) async fn validated(&self, server_name: &str) -> Option<TlsStream<TcpStream>> {
        let provider = certseal_service::tls::provider();
        let any = Arc::new(AnyCertificate(provider.clone()));
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().dangerous().with_custom_certificate_verifier(any);
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let stream = TcpStream::connect(self.running.https).await.unwrap();
        let name = server_name.to_owned().try_into().unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
    }

    /// One exchange over HTTPS. `head` has no blank line at its end.
    pub(crate) async fn https(&self, server_name: &str, head: &str) -> String {
        let mut stream = self.connect(server_name, "http/1.1").await.unwrap();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    pub(crate) async fn http(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.running.http).await.unwrap();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    pub(crate) async fn telemetry(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.running.telemetry.unwrap()).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    pub(crate) async fn stop(self) {
        self.handle.begin();
        tokio::time::timeout(Duration::from_secs(5), self.running.finished()).await.expect("it did not stop").unwrap();
    }
}

/// Takes any certificate: the usual verifiers refuse one with a critical extension that they do not know.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Asks again until `is_met`, for at most a minute: a machine with much else to do is slow.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, is_met: impl Fn() -> F) {
    for _ in 0..1200 {
        if is_met().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come about");
}

/// Reads what the other side sends until it closes; TLS connections may end without a goodbye.
async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut octets = Vec::new();
    let _ = stream.read_to_end(&mut octets).await;
    String::from_utf8(octets).unwrap()
}

/// Answers with the head of each request as it came, and with the whole of one to `/whole`. `/ws` is upgraded and echoed, `/silent` is never answered, and the
/// answer to `/endless` does not end.
pub(crate) async fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    origin
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if head.starts_with(b"POST /whole") {
        // In chunks, up to the last one and what comes behind it.
        let mut body = Vec::new();
        while !(body.windows(3).any(|part| part == b"0\r\n") && body.ends_with(b"\r\n\r\n")) {
            body.push(stream.read_u8().await?);
        }
        head.extend(body);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    if head.starts_with("get /silent") {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    if head.starts_with("get /endless") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmore").await?;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    if head.starts_with("get /ws") && head.contains("upgrade: websocket") {
        let accepted = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(accepted).await?;
        let (mut from, mut to) = stream.into_split();
        tokio::io::copy(&mut from, &mut to).await?;
        return Ok(());
    }
    let response = format!(
        "HTTP/1.1 200 OK\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nX-Kept: 1\r\nContent-Length: {}\r\n\r\n{head}",
        head.len()
    );
    stream.write_all(response.as_bytes()).await
}

/// The events of a certstore, in the order of its feed.
#[derive(Default)]
pub(crate) struct FakeStore {
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) epoch: Mutex<u8>,
    pub(crate) challenges: Mutex<HashMap<(String, String), Signed>>,
    pub(crate) fetches: Mutex<Fetches>,
}

/// How often bundles were asked for by name.
#[derive(Default)]
pub(crate) struct Fetches {
    pub(crate) total: usize,
    /// Since the feed was asked for last.
    now: usize,
    /// At most, between two times.
    pub(crate) most: usize,
}

impl FakeStore {
    pub(crate) fn push(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn latest(&self, kind: Kind, name: &str) -> Response {
        let events = self.events.lock().unwrap();
        let found = events.iter().rev().find(|event| event.kind == kind && event.name == name);
        found.map_or(StatusCode::NOT_FOUND.into_response(), |event| event.body.clone().unwrap().0.into_response())
    }
}

/// An empty one, from before the first event: all of them come in the feed.
async fn snapshot(State(store): State<Arc<FakeStore>>) -> Response {
    let epoch = [*store.epoch.lock().unwrap(); 16];
    Json(Snapshot { cursor: Cursor { epoch, seq: 0 }, segments: Vec::new() }).into_response()
}

/// Bundles come without their bodies, so that edges have to ask for them.
async fn feed(State(store): State<Arc<FakeStore>>, Query(query): Query<FeedQuery>) -> Response {
    store.fetches.lock().unwrap().now = 0;
    let epoch = [*store.epoch.lock().unwrap(); 16];
    if query.after.is_some_and(|after| after.epoch != epoch) {
        let problem = Problem::new(ProblemKind::Gone, "another epoch");
        return (StatusCode::GONE, Json(problem)).into_response();
    }
    let after = query.after.map_or(0, |after| after.seq as usize);
    if store.events.lock().unwrap().len() == after && query.wait.unwrap_or(0) > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = store.events.lock().unwrap();
    let mut events: Vec<Event> = all.iter().skip(after).take(2).cloned().collect();
    let seq = after + events.len();
    events.iter_mut().filter(|event| event.kind == Kind::Bundle).for_each(|event| event.body = None);
    Json(FeedPage { cursor: Cursor { epoch, seq: seq as u64 }, events, end: seq == all.len() }).into_response()
}

async fn bundle(State(store): State<Arc<FakeStore>>, Segments(site): Segments<String>) -> Response {
    {
        let mut fetches = store.fetches.lock().unwrap();
        fetches.total += 1;
        fetches.now += 1;
        fetches.most = fetches.most.max(fetches.now);
    }
    store.latest(Kind::Bundle, &site)
}

async fn challenge(
    State(store): State<Arc<FakeStore>>,
    Segments((host, token)): Segments<(String, String)>,
) -> Response {
    let challenges = store.challenges.lock().unwrap();
    challenges.get(&(host, token)).map_or(StatusCode::NOT_FOUND.into_response(), |signed| Json(signed).into_response())
}
