//! A proxy in front of Pebble that can hold a chosen request, before or after Pebble has seen it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use certseal_service::{ShutdownHandle, tls};
use http_body_util::Full;
use hyper::{StatusCode, body::Bytes, http::response::Parts};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::RootCertStore;
use tokio::sync::watch;

use crate::{
    https::{self, Origin},
    pebble::Pebble,
    process::free_address,
};

/// Which request to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The beginning of its path, such as `/finalize-order/`.
    pub path: &'static str,
    /// Whether Pebble sees it first.
    pub after: bool,
}

pub struct FaultProxy {
    pub address: SocketAddr,
    state: Arc<Shared>,
    _running: ShutdownHandle,
}

struct Shared {
    origin: SocketAddr,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    hold: Mutex<Option<Hold>>,
    held: watch::Sender<usize>,
    csrs: Mutex<BTreeSet<String>>,
    deactivated: AtomicUsize,
    replacing: Mutex<Vec<(String, StatusCode)>>,
    storm: AtomicU32,
    seen: Mutex<Seen>,
}

/// What went through.
#[derive(Default)]
struct Seen {
    /// The authorizations of each order that Pebble has, by their paths, and what it said of each last.
    authorizations: BTreeMap<String, Option<String>>,
    /// The CSRs that Pebble took.
    taken: BTreeSet<String>,
    faults: BTreeMap<&'static str, u32>,
}

impl FaultProxy {
    pub async fn start(pebble: &Pebble) -> Self {
        Self::start_at(pebble, free_address()).await
    }

    pub async fn start_at(pebble: &Pebble, address: SocketAddr) -> Self {
        Self::before(pebble.origin(), address).await
    }

    pub async fn before(origin: Origin<'_>, address: SocketAddr) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(tls::certificates(origin.tls_root).unwrap());
        let client_tls = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(client_tls).https_only().enable_http1().build();
        let state = Arc::new(Shared {
            origin: origin.address,
            client: Client::builder(TokioExecutor::new()).build(connector),
            hold: Mutex::new(None),
            held: watch::Sender::new(0),
            csrs: Mutex::default(),
            deactivated: AtomicUsize::default(),
            replacing: Mutex::default(),
            storm: AtomicU32::default(),
            seen: Mutex::default(),
        });
        let app = Router::new().fallback(forward).with_state(state.clone());

        let running = https::serve(address, origin.proxy_identity, app).await;
        Self { address, state, _running: running }
    }

    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// Holds the next request that fits, and forgets the CSRs seen so far.
    pub fn hold(&self, hold: Hold) {
        self.state.csrs.lock().unwrap().clear();
        self.state.held.send_replace(0);
        *self.state.hold.lock().unwrap() = Some(hold);
    }

    /// Waits until a request is held. It will not be answered.
    pub async fn wait_held(&self) {
        let mut held = self.state.held.subscribe();
        let wait = held.wait_for(|count| *count > 0);
        tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.expect("no such request came").unwrap();
    }

    /// Breaks the connection of what is held.
    pub fn release(&self) {
        self.state.held.send_replace(0);
    }

    /// How many authorizations Pebble has deactivated (RFC 8555, 7.5.2).
    pub fn deactivated(&self) -> usize {
        self.state.deactivated.load(Ordering::SeqCst)
    }

    /// Has so many of a hundred requests fail from now on, each in another way.
    pub fn storm(&self, percent: u32) {
        self.state.storm.store(percent, Ordering::SeqCst);
    }

    /// How often requests failed in which way.
    pub fn faults(&self) -> BTreeMap<&'static str, u32> {
        self.state.seen.lock().unwrap().faults.clone()
    }

    /// The CSRs that Pebble took, DER in base64url.
    pub fn taken_csrs(&self) -> BTreeSet<String> {
        self.state.seen.lock().unwrap().taken.clone()
    }

    /// The authorizations that Pebble has pending still, as far as it was heard.
    pub fn pending(&self) -> Vec<String> {
        let seen = self.state.seen.lock().unwrap();
        let is_pending = |status: &Option<String>| status.as_deref().is_none_or(|status| status == "pending");
        seen.authorizations.iter().filter(|(_, status)| is_pending(status)).map(|(path, _)| path.clone()).collect()
    }

    /// The certificates that new orders said to replace, with Pebble's answers (RFC 9773, 5).
    pub fn replacing(&self) -> Vec<(String, StatusCode)> {
        self.state.replacing.lock().unwrap().clone()
    }

    /// How many different CSRs were sent since `hold`.
    pub fn csrs(&self) -> usize {
        self.state.csrs.lock().unwrap().len()
    }
}

async fn forward(State(state): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    if path.starts_with("/finalize-order/") {
        state.csrs.lock().unwrap().insert(csr(&body));
    }
    let holds = {
        let mut hold = state.hold.lock().unwrap();
        let fits = hold.is_some_and(|hold| path.starts_with(hold.path));
        if fits { hold.take() } else { None }
    };
    if holds.is_some_and(|hold| !hold.after) {
        return never(&state).await;
    }
    let mut forwarded = hyper::Request::builder().method(parts.method).uri(format!("https://{}{path}", state.origin));
    // The Host header goes through as it came: Pebble makes its URLs from it.
    for (name, value) in &parts.headers {
        forwarded = forwarded.header(name, value);
    }
    if let Some(authority) = parts.uri.authority() {
        forwarded = forwarded.header("host", authority.as_str());
    }
    let deactivates =
        path.starts_with("/authZ/") && payload(&body).is_some_and(|payload| payload["status"] == "deactivated");
    let replaced = payload(&body).and_then(|payload| payload["replaces"].as_str().map(str::to_owned));
    let fault = state.fault(&path);
    match fault {
        Some(Fault::Busy) => return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], "busy").into_response(),
        Some(Fault::Limited) => {
            let problem = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "slower", "status": 429}"#;
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], problem).into_response();
        }
        Some(Fault::Unsent) => return StatusCode::BAD_GATEWAY.into_response(),
        Some(Fault::Slow) => tokio::time::sleep(std::time::Duration::from_millis(300)).await,
        Some(Fault::Lost | Fault::Garbage) | None => {}
    }
    let sent_csr = path.starts_with("/finalize-order/").then(|| csr(&body));
    let answer = state.client.request(forwarded.body(Full::new(body)).unwrap()).await;
    if let (Some(id), Ok(answer)) = (replaced, &answer) {
        state.replacing.lock().unwrap().push((id, answer.status()));
    }
    if deactivates && answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
        state.deactivated.fetch_add(1, Ordering::SeqCst);
    }
    if holds.is_some() {
        return never(&state).await;
    }
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    let (parts, body) = answer.into_parts();
    let body = to_bytes(Body::new(body), 1 << 20).await.unwrap();
    state.see(&path, &parts, &body, sent_csr);
    match fault {
        Some(Fault::Lost) => StatusCode::BAD_GATEWAY.into_response(),
        Some(Fault::Garbage) => (StatusCode::OK, "<html>it works!</html>").into_response(),
        _ => Response::from_parts(parts, Body::from(body)),
    }
}

/// A way to fail.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Busy,
    Limited,
    /// The connection breaks before Pebble has the request, or after it has answered.
    Unsent,
    Lost,
    Slow,
    Garbage,
}

impl Shared {
    /// The fault of this request, if it has one.
    fn fault(&self, path: &str) -> Option<Fault> {
        let random = || getrandom(100);
        if path == "/dir" || random() >= self.storm.load(Ordering::SeqCst) {
            return None;
        }
        let faults = [Fault::Busy, Fault::Limited, Fault::Unsent, Fault::Lost, Fault::Slow, Fault::Garbage];
        let names = ["busy", "limited", "unsent", "lost", "slow", "garbage"];
        let which = getrandom(faults.len() as u32) as usize;
        *self.seen.lock().unwrap().faults.entry(names[which]).or_default() += 1;
        Some(faults[which])
    }

    /// Notes what Pebble said.
    fn see(&self, path: &str, parts: &Parts, body: &Bytes, csr: Option<String>) {
        let Ok(said) = serde_json::from_slice::<serde_json::Value>(body) else { return };
        let mut seen = self.seen.lock().unwrap();
        let of_order = said["authorizations"].as_array().into_iter().flatten().filter_map(|url| url.as_str());
        for url in of_order {
            let status = seen.authorizations.entry(path_of(url)).or_default();
            // An order that is past its validations leaves none pending; they are not read one by one.
            if let Some(past @ ("ready" | "processing" | "valid" | "invalid")) = said["status"].as_str() {
                *status = Some(past.to_owned());
            }
        }
        if let Some(status) = said["status"].as_str().filter(|_| path.starts_with("/authZ/")) {
            seen.authorizations.insert(path.to_owned(), Some(status.to_owned()));
        }
        if parts.status.is_success() {
            seen.taken.extend(csr);
        }
    }
}

/// The path in an address.
fn path_of(url: &str) -> String {
    url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap()
}

/// A random number below `end`.
fn getrandom(end: u32) -> u32 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) % u64::from(end)) as u32
}

/// Holds a request until the test releases it, and refuses it then.
async fn never(state: &Shared) -> Response {
    let mut held = state.held.subscribe();
    state.held.send_modify(|count| *count += 1);
    let _ = held.wait_for(|count| *count == 0).await;
    StatusCode::BAD_GATEWAY.into_response()
}

/// The CSR in the JWS of a finalize request (RFC 8555, 7.4).
fn csr(jws: &[u8]) -> String {
    payload(jws).unwrap()["csr"].as_str().unwrap().to_owned()
}

/// The payload of a JWS, if that is JSON; nothing for POST-as-GET.
fn payload(jws: &[u8]) -> Option<serde_json::Value> {
    let jws: serde_json::Value = serde_json::from_slice(jws).ok()?;
    let payload = URL_SAFE_NO_PAD.decode(jws["payload"].as_str()?).ok()?;
    serde_json::from_slice(&payload).ok()
}
