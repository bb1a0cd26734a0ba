//! A whole edge: from visitors' connections to an upstream, with certstore there and not there.

#![allow(clippy::unwrap_used)]

mod world;

use std::{
    io,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use certedge::Limits;
use certseal_seal::{SigningKey, Suite};
use certseal_service::{Shutdown, config::write_private};
use certseal_unseal::UnsealKey;
use certseal_wire::{Challenge, ChallengeMethod, Epoch, Kind};
use http::{Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tracing_subscriber::fmt::MakeWriter;
use world::{
    Edge, FakeStore, World, eventually,
    platform::{self, page},
    upstream,
};

/// Nothing listens there.
const NO_STORE: u16 = 1;

/// An edge with the sites `a.example` (and everything under it) and `b.example`, and no certstore.
async fn edge_from_its_mirror(world: &World) -> Edge {
    edge_with_limits(world, |_| ()).await
}

async fn edge_with_limits(world: &World, limit: impl FnOnce(&mut Limits)) -> Edge {
    let (platform, upstream) = (&world.platform, upstream().await);
    let names: &[&str] = &["a.example", "*.a.example"];
    let mirror = platform.mirror(&world.mirror_dir());
    let feed = page([
        platform.bundle(platform.draft("a.example", names, 1)),
        platform.route("a.example", names, 1, Some(&upstream)),
        platform.simple("b.example", 1),
        platform.route("b.example", &["b.example"], 1, Some("http://127.0.0.1:1")),
        // The upstream once more, by an address and by a name that upstreams must not have.
        platform.simple("address.example", 1),
        platform.route("address.example", &["address.example"], 1, Some(&upstream.replace("127.0.0.1", "0.0.0.0"))),
        platform.simple("name.example", 1),
        platform.route("name.example", &["name.example"], 1, Some(&upstream.replace("127.0.0.1", "0"))),
    ]);
    assert_eq!(mirror.apply(&feed).unwrap().accepted, 8);
    drop(mirror);
    let mut config = world.config(NO_STORE);
    limit(&mut config.limits);
    world.edge_with(config).await
}

#[tokio::test]
async fn visitors_are_served_from_the_mirror_while_certstore_is_down() {
    let world = World::new();
    let edge = edge_from_its_mirror(&world).await;
    let echoed = edge
        .https(
            "x.a.example",
            "GET /p?q=1 HTTP/1.1\r\nHost: X.a.example:8443\r\nX-Forwarded-For: 10.0.0.1\r\nTE: trailers",
        )
        .await;
    assert!(echoed.starts_with("HTTP/1.1 200 OK"), "{echoed}");
    for part in [
        "get /p?q=1 http/1.1",
        "host: x.a.example:8443",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: https",
        "forwarded: for=127.0.0.1;host=\"x.a.example:8443\";proto=https",
        "x-kept: 1",
    ] {
        assert!(echoed.contains(part), "no {part:?} in {echoed}");
    }
    assert!(!echoed.contains("10.0.0.1") && !echoed.contains("trailers") && !echoed.contains("x-hop"), "{echoed}");

    for (server_name, head, status) in [
        ("a.example", "GET / HTTP/1.1\r\nHost: www.a.example", "200"),
        ("a.example", "GET / HTTP/1.1\r\nHost: b.example", "421"),
        ("a.example", "GET / HTTP/1.1\r\nHost: c.example", "404"),
        ("a.example", "GET / HTTP/1.1\r\nHost: 127.0.0.1", "404"),
        ("a.example", "GET / HTTP/1.1", "400"),
        ("a.example", "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example", "400"),
        ("a.example", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443", "501"),
        ("b.example", "GET / HTTP/1.1\r\nHost: b.example", "502"),
        ("address.example", "GET / HTTP/1.1\r\nHost: address.example", "502"),
        ("name.example", "GET / HTTP/1.1\r\nHost: name.example", "502"),
        ("a.example", "GET /silent HTTP/1.1\r\nHost: a.example", "504"),
    ] {
        let answer = edge.https(server_name, head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head:?}: {answer}");
    }
    assert!(edge.connect("c.example", "http/1.1").await.is_err(), "a certificate was found for an unknown name");

    assert!(edge.telemetry("/health/ready").await.contains("200 OK"));
    let metrics = edge.telemetry("/metrics").await;
    for line in [
        "certedge_handshakes_total{outcome=\"Full\"}",
        "certedge_unsealed_total 4",
        "certedge_unknown_names_total 1",
        "certedge_upstream_errors_total 4",
        "certedge_requests_total{listener=\"Https\",status=\"2xx\"} 2",
        "certedge_feed_silence_seconds",
        "certedge_checkpoint_age_seconds",
        "certedge_withheld_items 0",
    ] {
        assert!(metrics.contains(line), "no {line:?} in {metrics}");
    }
    assert!(!metrics.contains("example"), "a metric names a domain");
    edge.stop().await;
}

#[tokio::test]
async fn a_request_keeps_its_place_until_its_response_has_ended() {
    let world = World::new();
    let edge = edge_with_limits(&world, |limits| limits.requests = 1).await;
    let ask = async || edge.https("a.example", "GET / HTTP/1.1\r\nHost: a.example").await;
    let mut endless = edge.connect("a.example", "http/1.1").await.unwrap();
    endless.write_all(b"GET /endless HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"more") {
        answer.push(endless.read_u8().await.unwrap());
    }
    assert!(ask().await.starts_with("HTTP/1.1 503"), "a place was free before the response had ended");
    // A request that needs no upstream needs no place.
    assert!(edge.https("a.example", "GET / HTTP/1.1\r\nHost: c.example").await.starts_with("HTTP/1.1 404"));

    drop(endless);
    eventually("a free place", async || ask().await.starts_with("HTTP/1.1 200")).await;
    for path in ["/", "/silent", "/"] {
        let answer = edge.https("a.example", &format!("GET {path} HTTP/1.1\r\nHost: a.example")).await;
        assert!(!answer.starts_with("HTTP/1.1 503"), "{path} found no place: {answer}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn without_tls_visitors_are_sent_to_https() {
    let world = World::new();
    let edge = edge_from_its_mirror(&world).await;
    let answer = edge.http("GET /p?q=1 HTTP/1.1\r\nHost: X.a.example:80").await;
    assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    assert!(answer.contains("location: https://x.a.example:8443/p?q=1"), "{answer}");
    for (head, status) in [
        ("GET / HTTP/1.1\r\nHost: c.example", "404"),
        ("GET / HTTP/1.1", "400"),
        ("GET /.well-known/acme-challenge/tok HTTP/1.1\r\nHost: c.example", "404"),
        ("GET /.well-known/acme-challenge/t.k HTTP/1.1\r\nHost: a.example", "404"),
        ("POST /.well-known/acme-challenge/tok HTTP/1.1\r\nHost: a.example", "404"),
        ("GET /.well-known/acme-challenge/tok HTTP/1.1\r\nHost: a.example", "503"),
    ] {
        let answer = edge.http(head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head:?}: {answer}");
        assert_eq!(answer.contains("retry-after: "), status == "503");
    }
    edge.stop().await;
}

#[tokio::test]
async fn http_2_visitors_reach_the_same_sites() {
    let world = World::new();
    let edge = edge_from_its_mirror(&world).await;
    let stream = edge.connect("a.example", "h2").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (uri, status) in [
        ("https://www.a.example/x", StatusCode::OK),
        ("https://b.example/", StatusCode::MISDIRECTED_REQUEST),
        ("https://c.example/", StatusCode::NOT_FOUND),
    ] {
        let request = Request::builder().uri(uri).version(Version::HTTP_2);
        let request = request.header("cookie", "a=1").header("cookie", "b=2").body(Body::empty()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{uri}");
        if status == StatusCode::OK {
            let body = axum::body::to_bytes(Body::new(response.into_body()), 1 << 16).await.unwrap();
            let body = std::str::from_utf8(&body).unwrap();
            assert!(body.contains("host: www.a.example\r\n") && body.contains("cookie: a=1; b=2\r\n"), "{body}");
        }
    }
    drop(sender);
    edge.stop().await;
}

#[tokio::test]
async fn websockets_pass_through_and_end_with_the_edge() {
    let world = World::new();
    let edge = edge_from_its_mirror(&world).await;
    let mut stream = edge.connect("a.example", "http/1.1").await.unwrap();
    let head = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("upgrade: websocket"), "{answer}");
    for message in [b"ping", b"pong"] {
        stream.write_all(message).await.unwrap();
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, message);
    }
    edge.stop().await;
    assert!(stream.read_u8().await.is_err(), "the connection outlived the edge");
}

#[tokio::test]
async fn the_last_unseal_key_goes_with_its_file_and_what_it_opened_with_it() {
    let world = World::new();
    let edge = edge_from_its_mirror(&world).await;
    // A client that has no ticket: one that has needs no signature.
    let serves = async || {
        let stream = TcpStream::connect(edge.running.https).await.unwrap();
        let connector = TlsConnector::from(world.platform.client());
        connector.connect("a.example".try_into().unwrap(), stream).await.is_ok()
    };
    assert!(serves().await);
    let pem = std::fs::read_to_string(world.path("unseal.pem")).unwrap();
    std::fs::remove_file(world.path("unseal.pem")).unwrap();
    eventually("the loss", async || edge.telemetry("/metrics").await.contains("certedge_unseal_keys 0\n")).await;
    eventually("no signatures", async || !serves().await).await;
    let ready = edge.telemetry("/health/ready").await;
    assert!(ready.contains("503") && ready.contains("no unseal key"), "{ready}");

    write_private(&world.path("unseal.pem"), &pem).unwrap();
    eventually("the key", async || edge.telemetry("/health/ready").await.contains("200 OK")).await;
    eventually("signatures", serves).await;
    edge.stop().await;
}

#[tokio::test]
async fn trailers_do_not_tell_an_upstream_what_the_header_may_not() {
    let world = World::new();
    let edge = edge_from_its_mirror(&world).await;
    let mut stream = edge.connect("a.example", "http/1.1").await.unwrap();
    let head = "POST /whole HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nTrailer: X-Forwarded-For\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{head}4\r\nbody\r\n0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\nbody\r\n"), "{answer}");
    assert!(!answer.contains("trailer") && !answer.contains("10.0.0.1"), "{answer}");
    edge.stop().await;
}

#[tokio::test]
async fn an_upgraded_connection_keeps_the_place_of_its_address() {
    let world = World::new();
    let edge = edge_with_limits(&world, |limits| limits.per_address = 1).await;
    let mut stream = edge.connect("a.example", "http/1.1").await.unwrap();
    let head = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'H');
    // The task of the connection has time to end.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(edge.connect("a.example", "http/1.1").await.is_err(), "the place is free");
    assert!(edge.telemetry("/metrics").await.contains("certedge_refused_connections_total 1\n"));
    drop(stream);
    eventually("a free place", async || edge.connect("a.example", "http/1.1").await.is_ok()).await;
    edge.stop().await;
}

#[tokio::test]
async fn an_empty_edge_follows_certstore_and_forgets_nothing_when_the_feed_begins_anew() {
    let (world, store, upstream) = (World::new(), Arc::new(FakeStore::default()), upstream().await);
    let platform = &world.platform;
    // Before there is a ring nothing counts, and the edge waits.
    let (port, _running) = world.store(store.clone()).await;
    let edge = world.edge(port).await;
    let not_ready = edge.telemetry("/health/ready").await;
    assert!(not_ready.contains("503") && not_ready.contains("no key ring"), "{not_ready}");

    // The ring comes last in the feed, as it does after it was replaced.
    for event in [
        platform.simple("a.example", 1),
        platform.route("a.example", &["a.example"], 1, Some(&upstream)),
        platform.simple("b.example", 1),
        platform.ring(1, &[&platform.issuer]),
    ] {
        store.push(event);
    }
    let serves = async |site: &str| match edge.connect(site, "http/1.1").await {
        Ok(stream) => Some(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()),
        Err(_) => None,
    };
    eventually("serving both sites", async || {
        serves("a.example").await.is_some() && serves("b.example").await.is_some()
    })
    .await;
    assert!(edge.https("a.example", "GET / HTTP/1.1\r\nHost: a.example").await.starts_with("HTTP/1.1 200"));
    eventually("readiness", async || edge.telemetry("/health/ready").await.contains("200 OK")).await;

    let before = serves("a.example").await;
    store.push(platform.simple("a.example", 2));
    eventually("the renewed certificate", async || serves("a.example").await != before).await;

    // A store that was restored without site b: gone is not dropped.
    *store.epoch.lock().unwrap() = 1;
    store.events.lock().unwrap().retain(|event| event.name != "b.example");
    store.push(platform.simple("c.example", 1));
    eventually("the new feed", async || serves("c.example").await.is_some()).await;
    assert!(serves("a.example").await.is_some() && serves("b.example").await.is_some());
    edge.stop().await;
}

/// A store can make an edge refuse very much, and still the edge has to hear what is new.
#[tokio::test]
async fn what_was_refused_is_retried_in_small_parts_and_forgiven_where_it_is_gone() {
    const BAD: usize = 150;
    let (world, store) = (World::new(), Arc::new(FakeStore::default()));
    let platform = &world.platform;
    store.push(platform.ring(1, &[&platform.issuer]));
    for index in 0..BAD {
        store.push(platform::event(Kind::Bundle, &format!("s{index}.example"), 1, b"nonsense".to_vec()));
    }
    let (port, _running) = world.store(store.clone()).await;
    let edge = world.edge(port).await;
    let refused =
        async |count: usize| edge.telemetry("/metrics").await.contains(&format!("certedge_refused_items {count}\n"));
    eventually("refusals", async || refused(BAD).await).await;

    // Under another ring all are fetched again.
    let before = store.fetches.lock().unwrap().total;
    store.push(platform.ring(2, &[&platform.issuer]));
    eventually("retries", async || store.fetches.lock().unwrap().total >= before + BAD).await;
    assert!(refused(BAD).await, "what is still bad was forgiven");
    let most = store.fetches.lock().unwrap().most;
    assert!(most < 50, "{most} items were fetched between two questions for the feed");

    store.events.lock().unwrap().iter_mut().filter(|event| event.kind == Kind::Bundle).for_each(|event| {
        event.name = "gone.example".into();
    });
    store.push(platform.ring(3, &[&platform.issuer]));
    eventually("forgiveness", async || refused(0).await).await;
    edge.stop().await;
}

#[tokio::test]
async fn only_challenges_of_the_platforms_own_accounts_are_answered() {
    let (world, store) = (World::new(), Arc::new(FakeStore::default()));
    let platform = &world.platform;
    let up = Some("http://127.0.0.1:1");
    store.push(platform.ring(1, &[&platform.issuer]));
    store.push(platform.route("a.example", &["a.example", "b.example"], 1, up));
    store.push(platform.accounts(1, &["print"]));
    let (later, now) = (Timestamp::now() + Duration::from_secs(60), Timestamp::now());
    let challenge = |host: &str, token: &str, thumbprint: &str, expires_at: Timestamp, key: &SigningKey| {
        let key_authorization = format!("{token}.{thumbprint}");
        let (host, method) = (host.parse().unwrap(), ChallengeMethod::Http);
        key.sign(&Challenge { host, token: token.into(), key_authorization, expires_at, method })
    };
    let forger = SigningKey::generate().unwrap();
    let good = challenge("a.example", "good", "print", later, &platform.issuer);
    let cases = [
        ("good", good.clone()),
        ("strange", challenge("a.example", "strange", "stranger", later, &platform.issuer)),
        ("forged", challenge("a.example", "forged", "print", later, &forger)),
        ("swapped", good),
        ("other-host", challenge("b.example", "other-host", "print", later, &platform.issuer)),
        ("expired", challenge("a.example", "expired", "print", now, &platform.issuer)),
    ];
    for (token, signed) in cases {
        store.challenges.lock().unwrap().insert(("a.example".into(), token.into()), signed);
    }
    let (port, _running) = world.store(store).await;
    let edge = world.edge(port).await;
    let ask = async |token: &str| {
        edge.http(&format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: a.example")).await
    };
    eventually("the good answer", async || ask("good").await.ends_with("\r\n\r\ngood.print")).await;
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(log.clone()).finish();
    // The edge runs on this thread.
    let _logging = tracing::subscriber::set_default(subscriber);
    for token in ["strange", "forged", "swapped", "other-host", "expired", "missing"] {
        let answer = ask(token).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{token}: {answer}");
        let logged = std::mem::take(&mut *log.0.lock().unwrap());
        let warned = String::from_utf8(logged).unwrap().contains("challenge");
        assert_eq!(warned, token != "missing", "{token}: who asks for random tokens fills the log");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_ca_that_validates_over_tls_sees_the_digest_and_nobody_else_gets_an_answer_made_for_it() {
    let (world, store) = (World::new(), Arc::new(FakeStore::default()));
    let platform = &world.platform;
    store.push(platform.ring(1, &[&platform.issuer]));
    store.push(platform.route("a.example", &["a.example", "b.example", "c.example"], 1, Some("http://127.0.0.1:1")));
    store.push(platform.accounts(1, &["print"]));
    let challenge = |host: &str, method: ChallengeMethod| {
        let (host, key_authorization) = (host.parse().unwrap(), "tok.print".to_owned());
        let expires_at = Timestamp::now() + Duration::from_secs(60);
        platform.issuer.sign(&Challenge { host, token: "tok".into(), key_authorization, expires_at, method })
    };
    let over_tls = challenge("a.example", ChallengeMethod::TlsAlpn);
    for (host, place, signed) in [
        ("a.example", Challenge::TLS_ALPN, over_tls.clone()),
        ("a.example", "tok", over_tls.clone()),
        ("b.example", Challenge::TLS_ALPN, challenge("b.example", ChallengeMethod::Http)),
        ("c.example", Challenge::TLS_ALPN, over_tls),
    ] {
        store.challenges.lock().unwrap().insert((host.into(), place.into()), signed);
    }
    let (port, _running) = world.store(store).await;
    let edge = world.edge(port).await;
    eventually("the answer", async || edge.validated("a.example").await.is_some()).await;

    let mut stream = edge.validated("a.example").await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap().to_vec();
    let digest = certseal_seal::sha256(b"tok.print").0;
    assert!(chain[0].windows(32).any(|octets| octets == digest), "the digest is not in the certificate");
    // No HTTP is spoken there.
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    assert_eq!(said, b"");

    for (host, why) in [("b.example", "made for http-01"), ("c.example", "of another host"), ("d.example", "of nobody")]
    {
        assert!(edge.validated(host).await.is_none(), "an answer {why} was given for {host}");
    }
    for token in ["tok", Challenge::TLS_ALPN] {
        let asked = format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: a.example");
        let answer = edge.http(&asked).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{token}: {answer}");
    }
    eventually("the count of both answers", async || {
        edge.telemetry("/metrics").await.contains("certedge_challenges_total 2\n")
    })
    .await;
    edge.stop().await;
}

#[tokio::test]
async fn an_exposed_or_foreign_unseal_key_is_refused() {
    let world = World::new();
    let start = async |config| {
        let (_handle, shutdown) = Shutdown::new();
        certedge::start(config, shutdown).await.map(drop).map_err(|error| format!("{error:#}"))
    };
    let foreign = UnsealKey::generate("us".parse().unwrap(), Epoch(1), Suite::P256).unwrap();
    write_private(&world.path("us.pem"), &foreign.expose_pem().unwrap()).unwrap();
    let mut config = world.config(NO_STORE);
    config.unseal_keys = vec![world.path("us.pem")];
    assert!(start(config.clone()).await.unwrap_err().contains("expected an unseal key of pool eu"));
    config.unseal_keys = vec![];
    assert!(start(config).await.unwrap_err().contains("at least one file"));
    let mut config = world.config(NO_STORE);
    config.unseal_keys = vec!["pkcs11:token=certseal?pin-value=271828".into()];
    let error = start(config).await.unwrap_err();
    assert!(error.contains("pin-source=file:") && !error.contains("271828"), "{error}");

    // The control: the edge's own key is taken as it is, and not when others can read it.
    assert_eq!(start(world.config(NO_STORE)).await, Ok(()));
    std::fs::set_permissions(world.path("unseal.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(start(world.config(NO_STORE)).await.unwrap_err().contains("chmod 600"));
}

/// The text that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
