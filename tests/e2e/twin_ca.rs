//! The planner's twin of Boulder as an ACME server (RFC 8555): for limits that Pebble does not have, and for load that it
//! does not bear. It validates for real, by http-01, and issues each certificate after one look at the order.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, mpsc},
    time::Duration,
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use certseal_planner::{Answer, Placed, Replaced, Twin, TwinLimits};
use hyper::{HeaderMap, Method, StatusCode, header::HeaderValue};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, SerialNumber,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    https::{self, Origin},
    pebble::make_identities,
    process::{free_address, processor_time},
};

/// The terms that a CA works by.
pub struct Terms {
    pub limits: TwinLimits,
    /// Of a hundred nonces so many are refused.
    pub nonces_refused: u64,
    pub lifetime_days: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self { limits: TwinLimits::default(), nonces_refused: 0, lifetime_days: 90 }
    }
}

pub struct TwinCa {
    pub address: SocketAddr,
    /// Where it looks for http-01 answers.
    pub http: SocketAddr,
    pub tls_root: PathBuf,
    proxy_identity: (PathBuf, PathBuf),
    shared: Arc<Shared>,
    /// Of the thread that it runs in.
    thread: i32,
    _dir: TempDir,
}

struct Shared {
    /// As it calls itself: a proxy in front of it may have another one.
    spoken: Mutex<SocketAddr>,
    http: SocketAddr,
    lifetime_ms: i64,
    nonces_refused: u64,
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The key identifier in its certificates, as ids of certificates have it.
    issuer_id: String,
    ca: Mutex<Ca>,
}

#[derive(Default)]
struct Ca {
    twin: Twin,
    /// Numbers of sets and domains, by what they are.
    numbers: HashMap<String, u32>,
    nonces: HashSet<String>,
    nonces_made: u64,
    accounts: Vec<Vec<u8>>,
    orders: Vec<Order>,
    /// The newest order of each name.
    newest: HashMap<String, usize>,
    /// The orders that replace a certificate, by its serial number.
    replacing: HashMap<u64, usize>,
    /// The set of each certificate, by its serial number.
    sets: HashMap<u64, u32>,
    /// Names that no resolver finds.
    broken: HashSet<String>,
    refused: BTreeMap<&'static str, u32>,
    /// What happened to orders, in its order.
    log: Vec<(Timestamp, String, &'static str)>,
}

struct Order {
    name: String,
    placed: Placed,
    /// Pending, ready, processing, valid or invalid.
    status: &'static str,
    authorization: &'static str,
    is_validated: bool,
    error: Option<Value>,
    certificate: Option<String>,
}

impl TwinCa {
    /// Starts it, on one thread of its own.
    pub fn start(terms: Terms) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_identities(dir.path(), ["twin", "proxy"]);
        let path = |name: &str| dir.path().join(name);
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "The twin's root");
        let key = KeyPair::generate().unwrap();
        let issuer_id = URL_SAFE_NO_PAD.encode(params.key_identifier(&key));
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let address = free_address();
        let shared = Arc::new(Shared {
            spoken: Mutex::new(address),
            http: free_address(),
            lifetime_ms: i64::from(terms.lifetime_days) * 86_400_000,
            nonces_refused: terms.nonces_refused,
            issuer,
            issuer_id,
            ca: Mutex::new(Ca { twin: Twin::new(terms.limits), ..Ca::default() }),
        });
        let (app, identity) =
            (Router::new().fallback(answer).with_state(shared.clone()), (path("twin.pem"), path("twin.key")));
        let (send, begun) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let _running = https::serve(address, &identity, app).await;
                send.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        Self {
            address,
            http: shared.http,
            tls_root: path("tls-root.pem"),
            proxy_identity: (path("proxy.pem"), path("proxy.key")),
            thread: begun.recv().unwrap(),
            shared,
            _dir: dir,
        }
    }

    pub fn origin(&self) -> Origin<'_> {
        Origin { address: self.address, tls_root: &self.tls_root, proxy_identity: &self.proxy_identity }
    }

    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// Has it speak of itself by the address of a proxy.
    pub fn speak_of(&self, proxy: SocketAddr) {
        *self.shared.spoken.lock().unwrap() = proxy;
    }

    /// Has resolvers find a name no more, or again.
    pub fn break_dns(&self, name: &str, is_broken: bool) {
        let mut ca = self.shared.ca();
        if is_broken {
            ca.broken.insert(name.to_owned())
        } else {
            ca.broken.remove(name)
        };
    }

    /// How often a limit refused something, by limit.
    pub fn refused(&self) -> BTreeMap<&'static str, u32> {
        self.shared.ca().refused.clone()
    }

    /// What happened to orders: the instant, the name, and `order`, `issued`, `failed` or the limit that refused one.
    pub fn log(&self) -> Vec<(Timestamp, String, &'static str)> {
        self.shared.ca().log.clone()
    }

    /// The processor time of its thread.
    pub fn processor_time(&self) -> Duration {
        processor_time(&format!("/proc/self/task/{}/stat", self.thread))
    }
}

impl Shared {
    fn ca(&self) -> MutexGuard<'_, Ca> {
        self.ca.lock().unwrap()
    }

    fn address(&self) -> SocketAddr {
        *self.spoken.lock().unwrap()
    }

    fn url(&self, path: &str, number: impl std::fmt::Display) -> String {
        format!("https://{}/{path}/{number}", self.address())
    }

    fn order(&self, number: usize, order: &Order) -> Value {
        let mut said = json!({
            "status": order.status,
            "identifiers": [{ "type": "dns", "value": order.name }],
            "authorizations": [self.url("authZ", number)],
            "finalize": self.url("finalize-order", number),
        });
        if let Some(error) = &order.error {
            said["error"] = error.clone();
        }
        if order.status == "valid" {
            said["certificate"] = self.url("certZ", number).into();
        }
        said
    }

    fn authorization(&self, number: usize, order: &Order) -> Value {
        json!({
            "status": order.authorization,
            "identifier": { "type": "dns", "value": order.name },
            "challenges": [self.challenge(number, order)],
        })
    }

    fn challenge(&self, number: usize, order: &Order) -> Value {
        let status = match order.authorization {
            "pending" if order.is_validated => "processing",
            "deactivated" => "pending",
            other => other,
        };
        let mut said =
            json!({ "type": "http-01", "status": status, "url": self.url("chalZ", number), "token": token(number) });
        if let Some(error) = &order.error {
            said["error"] = error.clone();
        }
        said
    }
}

/// An answer without the nonce of the next request.
struct Said {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

fn said(status: u16, body: &Value) -> Said {
    Said { status, headers: Vec::new(), body: body.to_string() }
}

fn problem(status: u16, kind: &str, detail: &str) -> Said {
    said(status, &json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status }))
}

impl Said {
    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let said = match (&parts.method, path.as_str()) {
        (&Method::GET, "/dir") => directory(&shared),
        (&Method::GET | &Method::HEAD, "/nonce-plz") => said(200, &Value::Null),
        (&Method::GET, _) if path.starts_with("/ari/") => advice(&shared, &path["/ari/".len()..]),
        (&Method::POST, _) => match read(&shared, &path, &body) {
            Ok((account, payload)) => act(&shared, &path, account, payload),
            Err(refused) => refused,
        },
        _ => problem(404, "malformed", "there is nothing"),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in said.headers {
        headers.insert(name, HeaderValue::from_str(&value).unwrap());
    }
    let kind = if path.starts_with("/certZ/") { "application/pem-certificate-chain" } else { "application/json" };
    headers.entry("content-type").or_insert(HeaderValue::from_static(kind));
    let mut ca = shared.ca();
    if parts.method != Method::GET || path == "/nonce-plz" {
        ca.nonces_made += 1;
        let nonce = URL_SAFE_NO_PAD.encode(ca.nonces_made.to_be_bytes());
        headers.insert("replay-nonce", HeaderValue::from_str(&nonce).unwrap());
        ca.nonces.insert(nonce);
    }
    (StatusCode::from_u16(said.status).unwrap(), headers, said.body).into_response()
}

fn directory(shared: &Shared) -> Said {
    let url = |path: &str| format!("https://{}/{path}", shared.address());
    said(
        200,
        &json!({
            "newNonce": url("nonce-plz"), "newAccount": url("sign-me-up"), "newOrder": url("order-plz"),
            "revokeCert": url("revoke-cert"), "keyChange": url("rollover-account-key"), "renewalInfo": url("ari"),
        }),
    )
}

/// When to renew the certificate of an id (RFC 9773, 4.1).
fn advice(shared: &Shared, id: &str) -> Said {
    let serial = serial_in(shared, id);
    let ca = shared.ca();
    // That of the newest certificate of its set: certman asks for no other.
    let window = serial.and_then(|serial| ca.sets.get(&serial)).and_then(|set| ca.twin.window(*set));
    let Some((start, end)) = window else { return problem(404, "malformed", "no such certificate") };
    let at = |ms| Timestamp::from_millisecond(ms).unwrap();
    said(200, &json!({ "suggestedWindow": { "start": at(start), "end": at(end) } })).with("retry-after", 21_600)
}

fn serial_in(shared: &Shared, id: &str) -> Option<u64> {
    let (issuer, serial) = id.split_once('.')?;
    let serial: [u8; 9] = URL_SAFE_NO_PAD.decode(serial).ok()?.try_into().ok()?;
    (issuer == shared.issuer_id).then(|| u64::from_be_bytes(serial[1..].try_into().unwrap()))
}

/// The account and the payload of a signed request (RFC 8555, 6.2): nonce, address and signature are checked.
fn read(shared: &Shared, path: &str, body: &[u8]) -> Result<(Option<usize>, Value), Said> {
    let malformed = || problem(400, "malformed", "expected a JWS");
    let jws: Value = serde_json::from_slice(body).map_err(|_| malformed())?;
    let text = |part: &str| jws[part].as_str().ok_or_else(malformed);
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed());
    let (protected, payload, signature) = (text("protected")?, text("payload")?, text("signature")?);
    let header: Value = serde_json::from_slice(&decoded(protected)?).map_err(|_| malformed())?;
    let mut ca = shared.ca();
    let is_known = header["nonce"].as_str().is_some_and(|nonce| ca.nonces.remove(nonce));
    let is_refused = ca.nonces_made.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0xffff < shared.nonces_refused * 655;
    if !is_known || is_refused {
        return Err(problem(400, "badNonce", "this nonce is not good"));
    }
    if header["url"].as_str() != Some(&format!("https://{}{path}", shared.address())) {
        return Err(problem(401, "unauthorized", "the JWS is for another address"));
    }
    let (account, key) = if let Some(kid) = header["kid"].as_str() {
        let number = kid.rsplit_once('/').and_then(|(_, number)| number.parse::<usize>().ok());
        let known = number.and_then(|number| Some((number, ca.accounts.get(number)?.clone())));
        let (number, key) = known.ok_or_else(|| problem(400, "accountDoesNotExist", "no such account"))?;
        (Some(number), key)
    } else {
        let coordinate = |name: &str| decoded(header["jwk"][name].as_str().ok_or_else(malformed)?);
        let key = [vec![4], coordinate("x")?, coordinate("y")?].concat();
        let number = ca.accounts.iter().position(|known| *known == key);
        if path == "/sign-me-up" && number.is_none() {
            ca.accounts.push(key.clone());
        }
        (number, key)
    };
    drop(ca);
    let signed = format!("{protected}.{payload}");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(signed.as_bytes(), &decoded(signature)?)
        .map_err(|_| problem(401, "unauthorized", "the signature is wrong"))?;
    let payload = decoded(payload)?;
    let payload = if payload.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&payload) };
    Ok((account, payload.map_err(|_| malformed())?))
}

fn act(shared: &Arc<Shared>, path: &str, account: Option<usize>, payload: Value) -> Said {
    let mut parts = path[1..].splitn(2, '/');
    let (kind, rest) = (parts.next().unwrap_or_default(), parts.next());
    let ca = &mut *shared.ca();
    if kind == "sign-me-up" {
        let number = account.unwrap_or(ca.accounts.len() - 1);
        let status = if account.is_some() { 200 } else { 201 };
        return said(status, &json!({ "status": "valid" })).with("location", shared.url("my-account", number));
    }
    if account.is_none() {
        return problem(401, "unauthorized", "expected an account");
    }
    if kind == "order-plz" {
        return new_order(shared, ca, &payload);
    }
    let number = rest.and_then(|number| number.parse::<usize>().ok()).filter(|number| *number < ca.orders.len());
    let Some(number) = number else { return problem(404, "malformed", "there is nothing") };
    match kind {
        "my-order" => {
            // The certificate was made when the CSR came; the first look at it ends the waiting.
            let order = &mut ca.orders[number];
            if order.status == "processing" {
                order.status = "valid";
            }
            said(200, &shared.order(number, order))
        }
        "authZ" => {
            let order = &mut ca.orders[number];
            if payload["status"] == "deactivated" && order.authorization == "pending" {
                (order.authorization, order.status) = ("deactivated", "invalid");
            }
            said(200, &shared.authorization(number, order))
        }
        "chalZ" => {
            let order = &mut ca.orders[number];
            if order.is_validated || order.authorization != "pending" {
                return problem(409, "conflict", "the challenge is not pending");
            }
            order.is_validated = true;
            tokio::spawn(validate(shared.clone(), number, ca.accounts[account.unwrap_or(0)].clone()));
            said(200, &shared.challenge(number, order)).with("retry-after", 1)
        }
        "finalize-order" => finalize(shared, ca, number, &payload),
        "certZ" => match &ca.orders[number].certificate {
            Some(chain) => Said { status: 200, headers: Vec::new(), body: chain.clone() },
            None => problem(404, "malformed", "there is no certificate"),
        },
        _ => problem(404, "malformed", "there is nothing"),
    }
}

fn new_order(shared: &Shared, ca: &mut Ca, payload: &Value) -> Said {
    let names = payload["identifiers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [name] = names else { return problem(400, "malformed", "expected one name") };
    let name = name["value"].as_str().unwrap().to_owned();
    let replaces = payload["replaces"].as_str().and_then(|id| serial_in(shared, id));
    let is_replaced = |number: &usize| ca.orders[*number].status != "invalid";
    if replaces.and_then(|serial| ca.replacing.get(&serial)).is_some_and(is_replaced) {
        return problem(409, "alreadyReplaced", "that certificate has a replacement");
    }
    // The same names again are the same order, as long as it is not finalized.
    let newest = ca.newest.get(&name).copied();
    if let Some(number) = newest.filter(|number| matches!(ca.orders[*number].status, "pending" | "ready")) {
        return said(201, &shared.order(number, &ca.orders[number])).with("location", shared.url("my-order", number));
    }
    let registered = name.split_once('.').unwrap_or_default().1.to_owned();
    let (domain, set) = (ca.number(format!("domain {registered}")), ca.number(name.clone()));
    let now = Timestamp::now();
    let replaced = replaces.and_then(|serial| Some(Replaced { set: *ca.sets.get(&serial)?, serial }));
    match ca.twin.new_order(domain, set, replaced, replaced.is_some_and(|it| it.set == set), now.as_millisecond()) {
        Answer::Placed(placed) => {
            let number = ca.orders.len();
            ca.orders.push(Order {
                name: name.clone(),
                placed,
                status: "pending",
                authorization: "pending",
                is_validated: false,
                error: None,
                certificate: None,
            });
            ca.log.push((now, name.clone(), "order"));
            ca.newest.insert(name, number);
            ca.replacing.extend(replaces.map(|serial| (serial, number)));
            said(201, &shared.order(number, &ca.orders[number])).with("location", shared.url("my-order", number))
        }
        Answer::AlreadyReplaced => problem(409, "alreadyReplaced", "that certificate has a replacement"),
        Answer::Limited(limit) => {
            *ca.refused.entry(limit).or_default() += 1;
            ca.log.push((now, name, limit));
            problem(429, "rateLimited", &format!("too many: {limit}")).with("retry-after", 1)
        }
        Answer::Paused => {
            *ca.refused.entry("paused").or_default() += 1;
            ca.log.push((now, name, "paused"));
            let detail = "Your account is temporarily prevented from requesting certificates for it. Please visit: https://ca.example/unpause";
            problem(429, "rateLimited", detail)
        }
    }
}

impl Ca {
    fn number(&mut self, what: String) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(what).or_insert(next)
    }
}

fn finalize(shared: &Shared, ca: &mut Ca, number: usize, payload: &Value) -> Said {
    let order = &mut ca.orders[number];
    if order.status != "ready" {
        return problem(403, "orderNotReady", &format!("the order is {}", order.status));
    }
    let csr = URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap_or_default()).unwrap();
    let Ok(mut request) = CertificateSigningRequestParams::from_der(&csr.into()) else {
        return problem(400, "badCSR", "expected a CSR");
    };
    let name = rcgen::SanType::DnsName(order.name.clone().try_into().unwrap());
    if request.params.subject_alt_names != [name] {
        return problem(400, "badCSR", "the CSR has other names than the order");
    }
    let now = Timestamp::now().as_millisecond();
    let serial = ca.twin.issue(order.placed, shared.lifetime_ms, now);
    ca.sets.insert(serial, ca.numbers[&order.name]);
    let instant = |ms: i64| std::time::UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs());
    let params = &mut request.params;
    params.serial_number = Some(SerialNumber::from_slice(&[&[1][..], &serial.to_be_bytes()].concat()));
    (params.not_before, params.not_after) = (instant(now).into(), instant(now + shared.lifetime_ms).into());
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let leaf = request.signed_by(&shared.issuer).unwrap();
    order.certificate = Some(leaf.pem() + &shared.issuer.pem());
    order.status = "processing";
    ca.log.push((Timestamp::now(), order.name.clone(), "issued"));
    said(200, &shared.order(number, order)).with("retry-after", 1).with("location", shared.url("my-order", number))
}

/// Looks for the answer to a challenge (RFC 8555, 8.3).
async fn validate(shared: Arc<Shared>, number: usize, account: Vec<u8>) {
    let name = shared.ca().orders[number].name.clone();
    let error = if shared.ca().broken.contains(&name) {
        Some(("dns", format!("could not resolve {name}: SERVFAIL")))
    } else {
        let expected = format!("{}.{}", token(number), thumbprint(&account));
        match tokio::time::timeout(Duration::from_secs(10), fetched(&shared, &name, number)).await {
            Ok(Ok(found)) if found == expected => None,
            Ok(Ok(found)) => {
                Some(("unauthorized", format!("{name} answers {:?}", found.chars().take(80).collect::<String>())))
            }
            Ok(Err(error)) => Some(("connection", format!("{name}: {error}"))),
            Err(_) => Some(("connection", format!("{name}: no answer"))),
        }
    };
    let ca = &mut *shared.ca();
    let order = &mut ca.orders[number];
    match error {
        None => (order.authorization, order.status) = ("valid", "ready"),
        Some((kind, detail)) => {
            (order.authorization, order.status) = ("invalid", "invalid");
            order.error = Some(json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail }));
            let now = Timestamp::now();
            let set = ca.number(name.clone());
            ca.twin.fail(set, now.as_millisecond());
            ca.log.push((now, name, "failed"));
        }
    }
}

async fn fetched(shared: &Shared, name: &str, number: usize) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(shared.http).await?;
    let path = format!("/.well-known/acme-challenge/{}", token(number));
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut octets = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut octets).await?;
    let text = String::from_utf8_lossy(&octets);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    // What it answers besides 200 is for the error.
    Ok(if head.starts_with("HTTP/1.1 200") { body.trim().to_owned() } else { head.to_owned() })
}

fn token(number: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("token of order {number:08}"))
}

/// The thumbprint of an account's key (RFC 7638).
fn thumbprint(key: &[u8]) -> String {
    let coordinate = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    let (x, y) = (coordinate(&key[1..33]), coordinate(&key[33..]));
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, canonical.as_bytes()))
}
