//! OCSP answers: from a responder that is OpenSSL, through certman and certstore, to OpenSSL as a client of the edge.
//!
//! `CERTSEAL_STAPLE_LIFE=1` also waits for answers that hold for a minute: one is fetched again before its end, and none is sent
//! after it.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use certseal_wire::{DnsName, StapleStatus};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    edge::eventually,
    pebble::Pebble,
    platform::{Authority, Platform},
    process::{free_address, run},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_sends_the_cas_answer_to_clients_that_ask_and_goes_on_without_one() {
    let (platform, _pebble, responder) = with_responder(&["-ndays", "1"]).await;
    let name: DnsName = "stapled.customers.test".parse().unwrap();
    platform.add_site(&name).await;
    platform.wait_active(&name, 1).await;
    for version in ["-tls1_3", "-tls1_2"] {
        wait_for(&platform, &name, &["-status", version], is_good);
        // OpenSSL breaks off when it gets an answer that it did not ask for.
        let unasked = connect(&platform, &name, &[version]);
        assert!(unasked.contains("Verification: OK") && !unasked.contains("OCSP response"), "{unasked}");
    }
    let StapleStatus { version, fetch_at, failures, .. } = status(&platform, &name, |it| it.version > 0).await;
    assert_eq!((version, failures, responder.asked()), (1, 0, 1));
    let wait = fetch_at.unwrap().duration_since(Timestamp::now()).as_hours();
    assert!((11..15).contains(&wait), "after half of a day: {fetch_at:?}");
    assert_eq!(platform.certman_counter("certman_staples_total"), 1.0);

    // The next certificate has an answer of its own, or none: the responder wants to be left alone.
    responder.say(Mood::TryLater);
    assert!(platform.certctl(&["site", "renew", name.as_str()]).status.success());
    platform.wait_active(&name, 2).await;
    wait_for(&platform, &name, &["-status"], is_without);
    let failed = status(&platform, &name, |it| it.failures > 0).await;
    assert!(failed.diagnosis.as_ref().is_some_and(|why| why.contains("tryLater")), "{failed:?}");
    let page = String::from_utf8(platform.certctl(&["site", "status", name.as_str()]).stdout).unwrap();
    assert!(page.contains("tryLater") && page.contains("active"), "{page}");
    responder.say(Mood::Good);
    wait_for(&platform, &name, &["-status"], is_good);

    // A certificate that its CA revoked is no less served, and the answer that says so is not.
    responder.say(Mood::Revoked);
    assert!(platform.certctl(&["site", "renew", name.as_str()]).status.success());
    platform.wait_active(&name, 3).await;
    wait_for(&platform, &name, &["-status"], is_without);
    let revoked = || platform.certman.log().contains("a certificate that is served is revoked, says its CA");
    tokio::task::block_in_place(|| eventually(Duration::from_secs(5), revoked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_sends_an_answer_from_its_mirror_while_everything_else_is_down() {
    let (mut platform, _pebble, responder) = with_responder(&["-ndays", "1"]).await;
    let name: DnsName = "mirrored.customers.test".parse().unwrap();
    platform.add_site(&name).await;
    platform.wait_active(&name, 1).await;
    wait_for(&platform, &name, &["-status"], is_good);
    responder.say(Mood::Down);
    platform.certman.kill();
    platform.certstore.kill();
    platform.edge.kill();
    platform.restart_edge();
    let served = connect(&platform, &name, &["-status"]);
    assert!(is_good(&served), "{served}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_fetched_again_before_its_end_and_never_sent_after_it() {
    if env::var_os("CERTSEAL_STAPLE_LIFE").is_none() {
        return println!("left out: it takes two minutes with CERTSEAL_STAPLE_LIFE=1");
    }
    let (platform, _pebble, responder) = with_responder(&["-nmin", "1"]).await;
    let name: DnsName = "short.customers.test".parse().unwrap();
    platform.add_site(&name).await;
    platform.wait_active(&name, 1).await;
    wait_for(&platform, &name, &["-status"], is_good);
    let began = Instant::now();
    while responder.asked() < 2 {
        let served = connect(&platform, &name, &["-status"]);
        assert!(is_good(&served), "{served}");
        assert!(began.elapsed() < Duration::from_secs(60), "not fetched again\n{}", platform.certman.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    responder.say(Mood::Down);
    // Until its end it is sent, and from then on the certificate alone.
    let began = Instant::now();
    loop {
        let served = connect(&platform, &name, &["-status"]);
        if is_without(&served) {
            break;
        }
        assert!(is_good(&served) && began.elapsed() < Duration::from_secs(70), "{served}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(30), "{:?}", began.elapsed());
    responder.say(Mood::Good);
    let deadline = Instant::now() + Duration::from_secs(150);
    while !is_good(&connect(&platform, &name, &["-status"])) {
        assert!(Instant::now() < deadline, "{}", platform.certman.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A platform whose CA names a responder that says until when its answers hold by `life`.
async fn with_responder(life: &'static [&'static str]) -> (Platform, Pebble, Responder) {
    let address = free_address();
    let pebble = Pebble::start_naming(&format!("http://{address}/ocsp"));
    let responder = Responder::start(address, &pebble, life).await;
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    // What OpenSSL as a client goes by.
    fs::copy(pebble.issuing_root(), platform.dir.path().join(ROOT)).unwrap();
    (platform, pebble, responder)
}

/// How it is going with a site's answers, once that is as it is wanted.
async fn status(platform: &Platform, name: &DnsName, is_wanted: fn(&StapleStatus) -> bool) -> StapleStatus {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let status = platform.certman_as("platform").site(name).await.unwrap().unwrap();
        if let Some(staple) = status.staple.clone().filter(is_wanted) {
            return staple;
        }
        assert!(Instant::now() < deadline, "{status:?}\n{}", platform.certman.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What OpenSSL says of a connection to the edge.
fn connect(platform: &Platform, name: &DnsName, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &platform.addresses["https"].to_string(), "-servername", name.as_str()])
        .arg("-CAfile")
        .arg(platform.dir.path().join(ROOT))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_good(said: &str) -> bool {
    said.contains("OCSP Response Status: successful") && said.contains("Cert Status: good")
}

fn is_without(said: &str) -> bool {
    said.contains("OCSP response: no response sent") && said.contains("Verification: OK")
}

fn wait_for(platform: &Platform, name: &DnsName, arguments: &[&str], holds: fn(&str) -> bool) {
    tokio::task::block_in_place(|| {
        eventually(Duration::from_secs(20), || holds(&connect(platform, name, arguments)));
    });
}

/// What a responder says of all certificates.
#[derive(Clone, Copy)]
enum Mood {
    Good,
    Revoked,
    TryLater,
    Down,
}

/// An OCSP responder: OpenSSL, behind a server that tells it the serial number that is asked for.
struct Responder(Arc<Shared>);

struct Shared {
    dir: TempDir,
    /// The CA's certificate and key.
    issuer: (PathBuf, PathBuf),
    life: &'static [&'static str],
    mood: Mutex<Mood>,
    asked: AtomicU32,
}

impl Responder {
    async fn start(address: SocketAddr, pebble: &Pebble, life: &'static [&'static str]) -> Self {
        let shared = Arc::new(Shared {
            dir: tempfile::tempdir().unwrap(),
            issuer: pebble.issuer(),
            life,
            mood: Mutex::new(Mood::Good),
            asked: AtomicU32::new(0),
        });
        let app = Router::new().route("/ocsp", post(answer)).with_state(shared.clone());
        let listener = TcpListener::bind(address).await.unwrap();
        // It ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self(shared)
    }

    fn say(&self, mood: Mood) {
        *self.0.mood.lock().unwrap() = mood;
    }

    /// Questions that it answered.
    fn asked(&self) -> u32 {
        self.0.asked.load(Ordering::Relaxed)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Bytes) -> Response {
    let mood = *shared.mood.lock().unwrap();
    let body = match mood {
        Mood::Down => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        // An OCSPResponse with this status and nothing else (RFC 6960, 4.2.1).
        Mood::TryLater => vec![0x30, 3, 0x0a, 1, 3],
        Mood::Good | Mood::Revoked => tokio::task::spawn_blocking(move || shared.sign(&request, mood)).await.unwrap(),
    };
    ([(CONTENT_TYPE, "application/ocsp-response")], body).into_response()
}

impl Shared {
    fn sign(&self, request: &[u8], mood: Mood) -> Vec<u8> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let file = |name: &str| self.dir.path().join(format!("{number}.{name}"));
        let (asked, index, answer) = (file("req"), file("index"), file("resp"));
        fs::write(&asked, request).unwrap();
        let serial = serial(&asked);
        // The columns of an index of `openssl ca`: status, end, revocation, serial number, file, subject.
        let line = match mood {
            Mood::Revoked => format!("R\t401231235959Z\t261101000000Z\t{serial}\tunknown\t/CN=x\n"),
            _ => format!("V\t401231235959Z\t\t{serial}\tunknown\t/CN=x\n"),
        };
        fs::write(&index, line).unwrap();
        let (certificate, key) = &self.issuer;
        run(Command::new("openssl")
            .arg("ocsp")
            .arg("-index")
            .arg(&index)
            .arg("-CA")
            .arg(certificate)
            .arg("-rsigner")
            .arg(certificate)
            .arg("-rkey")
            .arg(key)
            .arg("-reqin")
            .arg(&asked)
            .arg("-respout")
            .arg(&answer)
            .args(self.life));
        fs::read(&answer).unwrap()
    }
}

/// The serial number that a request is about, as OpenSSL reads it.
fn serial(request: &Path) -> String {
    let output = run(Command::new("openssl").args(["ocsp", "-req_text", "-reqin"]).arg(request));
    let text = String::from_utf8(output.stdout).unwrap();
    let serial = text.lines().find_map(|line| line.trim().strip_prefix("Serial Number: "));
    serial.unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// The root of issued certificates, in the platform's directory.
const ROOT: &str = "issuing-root.pem";
