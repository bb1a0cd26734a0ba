//! Certificates on demand: permitted names get theirs, floods of names cost nothing behind the edge, and a hook that is down is of
//! no concern to names that have certificates.
//!
//! `CERTSEAL_ON_DEMAND_NAMES=200` takes more names than 20, and `CERTSEAL_FLOOD_SECONDS=60` floods for longer than three seconds.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header::CONNECTION},
    response::IntoResponse,
    routing::get,
};
use certseal_client::ClientError;
use certseal_service::{config::write_private, tls};
use certseal_wire::{DnsName, OnDemandOutcome};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::{
    platform::{Authority, POOL, Platform},
    process::free_address,
    tls_client::{self, Connection},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permitted_name_gets_its_certificate_and_nobody_else_feels_a_hook_that_is_down() {
    let count: u32 = std::env::var("CERTSEAL_ON_DEMAND_NAMES").map_or(20, |count| count.parse().unwrap());
    let mut platform = Platform::start(Authority::Local).await;
    let hook = Hook::default();
    let address = free_address();
    let up = hook.start(address).await;
    let first = name("shop-first.example.com");
    let fallback = rcgen::generate_simple_self_signed(vec![first.to_string()]).unwrap();
    std::fs::write(platform.pki("fallback.pem"), fallback.cert.pem()).unwrap();
    write_private(&platform.pki("fallback.key"), &fallback.signing_key.serialize_pem()).unwrap();
    configure_certman(&mut platform, address);
    let (certificate, key) = (platform.pki("fallback.pem"), platform.pki("fallback.key"));
    configure_edge(&mut platform, 1000, &format!("fallback_certificate = {certificate:?}\nfallback_key = {key:?}\n"));

    // The first visitor sees the fallback certificate, and no site behind it.
    let mut shown = Connection::open(platform.addresses["https"], &first, &certificate).await.unwrap();
    let answer = shown.get().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    until_served(&platform, &first).await;
    let mut served =
        Connection::open(platform.addresses["https"], &first, &platform.pki("local-ca.pem")).await.unwrap();
    assert_eq!(served.get().await.unwrap().status(), StatusCode::OK);
    let answer = shown.get().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "what began with the fallback shows no site");

    // In the time that the CA takes, as for sites that the platform adds.
    let mut on_demand = Vec::new();
    for number in 0..count {
        on_demand.push(until_served(&platform, &name(&format!("shop-{number}.example.com"))).await);
    }
    let mut added = Vec::new();
    for number in 0..count.min(20) {
        let name = name(&format!("added-{number}.example.com"));
        let begin = Instant::now();
        platform.add_site(&name).await;
        until_served(&platform, &name).await;
        added.push(begin.elapsed());
    }
    println!("{count} names on demand: {}; added by the platform: {}", times(&mut on_demand), times(&mut added));
    assert!(on_demand.iter().all(|time| *time < Duration::from_secs(10)), "{on_demand:?}");
    assert!(hook.asked().values().all(|times| *times == 1), "each was asked about once: {:?}", hook.asked());

    // A name that is refused is asked about once, however often visitors come.
    let refused = name("other.example.com");
    for _ in 0..100 {
        assert!(!is_served(&platform, &refused).await);
    }
    wait_for("the hook's answer", || hook.asked().contains_key(refused.as_str())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..100 {
        assert!(!is_served(&platform, &refused).await);
    }
    assert_eq!(hook.asked()[refused.as_str()], 1);
    assert_eq!(site_names(&platform, "other").await, 0);
    assert_eq!(counted(&platform.metrics("edge-telemetry"), "certedge_on_demand_total", "Refused"), 1.0);

    // Only edges that would serve the site may ask, and a name that is there stays as it is.
    assert_eq!(platform.certman_as("edge-eu").on_demand(&first).await.unwrap().outcome, OnDemandOutcome::Known);
    for identity in ["platform", "admin", "edge-us"] {
        let refused = platform.certman_as(identity).on_demand(&name("shop-mine.example.com")).await;
        assert!(matches!(refused, Err(ClientError::Refused(problem)) if problem.status == 403), "{identity}");
    }
    assert!(!hook.asked().contains_key("shop-mine.example.com"));

    // The hook fails, and then it is gone. What is there goes on, and a new name waits.
    let late = name("shop-late.example.com");
    hook.fails.store(true, Ordering::Relaxed);
    assert!(!is_served(&platform, &late).await);
    wait_for("the edge to hear of it", || {
        counted(&platform.metrics("edge-telemetry"), "certedge_on_demand_total", "Unavailable") > 0.0
    })
    .await;
    up.abort();
    hook.fails.store(false, Ordering::Relaxed);
    for _ in 0..20 {
        assert!(is_served(&platform, &first).await, "a site with a certificate");
        assert!(!is_served(&platform, &late).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    platform.add_site(&name("added-late.example.com")).await;
    until_served(&platform, &name("added-late.example.com")).await;
    assert_eq!(site_names(&platform, "shop-late").await, 0);
    let _up = hook.start(address).await;
    until_served(&platform, &late).await;

    // A site that the platform removed does not come back through a visitor.
    platform.certman_as("platform").remove_site(&late).await.unwrap();
    wait_for_not_served(&platform, &late).await;
    // Nothing is remembered of it.
    platform.edit_edge(|text| text);
    for _ in 0..20 {
        assert!(!is_served(&platform, &late).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(site_names(&platform, "shop-late").await, 0);
    for log in [platform.edge.log(), platform.certman.log()] {
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_names_costs_no_order_and_no_call_to_certstore() {
    let seconds: u64 = std::env::var("CERTSEAL_FLOOD_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    let flood_for = Duration::from_secs(seconds);
    let mut platform = Platform::start(Authority::Local).await;
    let hook = Hook::default();
    let address = free_address();
    let _up = hook.start(address).await;
    configure_certman(&mut platform, address);
    configure_edge(&mut platform, PER_ADDRESS, "");
    let site = name("shop.example.net");
    platform.add_site(&site).await;
    until_served(&platform, &site).await;

    // The feed, reports and checkpoints cost some calls in any case.
    let before = store_requests(&platform);
    tokio::time::sleep(flood_for).await;
    let calm = store_requests(&platform) - before;

    let (before, sites) = (store_requests(&platform), site_names(&platform, "").await);
    let flood = Arc::new(Flood::new(platform.addresses["https"]));
    let end = Instant::now() + flood_for;
    let mut visitors = JoinSet::new();
    for _ in 0..16 {
        let flood = flood.clone();
        visitors.spawn(async move { flood.run(end).await });
    }
    while Instant::now() < end {
        assert!(is_served(&platform, &site).await, "a site with a certificate");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    visitors.join_all().await;
    let (met, asked) = (flood.met.load(Ordering::Relaxed), hook.asked().len());
    let flooded = store_requests(&platform) - before;
    println!(
        "{} names a second: {asked} of {met} asked about, {flooded} calls to certstore, {calm} in calm",
        met / seconds
    );
    assert!(met > 500 * seconds, "that was no flood: {met}");
    // Those of a minute at once, and those that came back meanwhile.
    let most = u64::from(PER_ADDRESS) + seconds * u64::from(PER_ADDRESS) / 60 + 1;
    assert!(asked > 0, "no name came as far as the hook");
    assert!(asked as u64 <= most, "{asked} questions: {:?}", hook.asked());
    // The edge counts after it has sent the alert.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let limited = counted(&platform.metrics("edge-telemetry"), "certedge_on_demand_total", "Limited");
    assert!(limited + asked as f64 >= met as f64, "{limited} names were held back");
    assert_eq!(site_names(&platform, "").await, sites, "no site was made");
    assert_eq!(platform.certman_counter("certman_certificates_total"), 1.0);
    assert!(flooded <= 1.5 * calm + 5.0, "{flooded} calls to certstore, and {calm} in calm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_has_opened_the_key_of_a_first_certificate_before_a_visitor_comes() {
    let mut platform = Platform::start(Authority::Local).await;
    let (https, nobody) = (platform.addresses["https"], free_address());
    platform.configure_certman(&format!("[warm_up]\nedges = [\"{https}\", \"{nobody}\"]\n"));
    let warm_ups = |platform: &Platform, outcome: &str| {
        counted(&platform.metrics("man-telemetry"), "certman_warm_ups_total", outcome)
    };
    let site = name("shop.example.net");
    platform.add_site(&site).await;
    platform.wait_active(&site, 1).await;
    wait_for("the edge that serves", || warm_ups(&platform, "Served") == 1.0).await;
    assert!(is_served(&platform, &site).await);
    // Nothing waits for an edge that is away.
    let other = name("other.example.net");
    platform.add_site(&other).await;
    platform.wait_active(&other, 1).await;
    wait_for("the other site", || warm_ups(&platform, "Served") == 2.0).await;
    // A renewal needs none.
    assert!(platform.certctl(&["site", "renew", "shop.example.net"]).status.success());
    platform.wait_active(&site, 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(warm_ups(&platform, "Served"), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_for_new_sites_is_counted_in_the_journal_and_not_by_each_certman() {
    let mut platform = Platform::start(Authority::Local).await;
    let hook = Hook::default();
    let address = free_address();
    let _up = hook.start(address).await;
    configure_certman(&mut platform, address);
    platform.edit_certman(|text| {
        text.replace("per_domain = 1000", "per_domain = 2").replace("in_all = 10000", "in_all = 3")
    });
    let asks = async |platform: &Platform, text: &str| platform.certman_as("edge-eu").on_demand(&name(text)).await;
    for text in ["shop-1.example.com", "shop-2.example.com"] {
        assert_eq!(asks(&platform, text).await.unwrap().outcome, OnDemandOutcome::Accepted);
    }
    // Another process, which remembers nothing itself.
    platform.edit_certman(|text| text);
    let is_limited = |answer: Result<_, ClientError>| matches!(answer, Err(ClientError::Refused(problem)) if problem.status == 429 && problem.retry_after > Some(60));
    assert!(is_limited(asks(&platform, "shop-3.example.com").await));
    assert_eq!(asks(&platform, "shop-1.example.com").await.unwrap().outcome, OnDemandOutcome::Known);
    assert_eq!(asks(&platform, "shop-4.example.net").await.unwrap().outcome, OnDemandOutcome::Accepted);
    assert!(is_limited(asks(&platform, "shop-5.example.org").await), "three in all");
    assert!(is_limited(asks(&platform, "shop-6.example.org").await));
    assert_eq!(site_names(&platform, "shop").await, 3);
    assert!(!hook.asked().contains_key("shop-6.example.org"), "where there is no room, nobody is asked");
}

const PER_ADDRESS: u32 = 5;

fn name(text: &str) -> DnsName {
    text.parse().unwrap()
}

fn configure_certman(platform: &mut Platform, hook: SocketAddr) {
    let (upstream, roots) = (platform.upstream, platform.pki("ca.pem"));
    platform.configure_certman(&format!(
        "[on_demand]\nupstream = \"http://{upstream}\"\npools = [\"{POOL}\"]\nper_domain = 1000\nin_all = 10000\n\
         questions_per_minute = 10000\npermit = [{{ kind = \"ask\", url = \"http://{hook}/ask\", roots = {roots:?} }}]\n"
    ));
}

fn configure_edge(platform: &mut Platform, per_address: u32, fallback: &str) {
    let (certman, pki) = (platform.addresses["man"], platform.dir.path().join("pki"));
    let pki = pki.display();
    platform.edit_edge(|text| {
        format!(
            "{text}[on_demand]\nper_address = {per_address}\nper_domain = 1000\nin_all = 10000\n{fallback}\
             [on_demand.certman]\nurl = \"https://{certman}\"\nca = \"{pki}/ca.pem\"\n\
             certificate = \"{pki}/edge-{POOL}.pem\"\nkey = \"{pki}/edge-{POOL}.key\"\n"
        )
    });
}

/// Whether a visitor gets a certificate of the CA for the name.
async fn is_served(platform: &Platform, name: &DnsName) -> bool {
    tls_client::handshake(platform.addresses["https"], name, &platform.pki("local-ca.pem"), &[]).await.is_ok()
}

/// Visits until the name is served: the time from the first visit on.
async fn until_served(platform: &Platform, name: &DnsName) -> Duration {
    let begin = Instant::now();
    while !is_served(platform, name).await {
        let logs = || format!("{}\n{}", platform.certman.log(), platform.edge.log());
        assert!(begin.elapsed() < Duration::from_secs(60), "{name} is not served\n{}", logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begin.elapsed()
}

async fn wait_for_not_served(platform: &Platform, name: &DnsName) {
    let begin = Instant::now();
    while is_served(platform, name).await {
        assert!(begin.elapsed() < Duration::from_secs(30), "{name} is still served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The number of sites whose names begin so.
async fn site_names(platform: &Platform, prefix: &str) -> usize {
    let certman = platform.certman_as("platform");
    let (mut count, mut after) = (0, None);
    loop {
        let page = certman.sites(after.as_ref()).await.unwrap();
        count += page.sites.iter().filter(|status| status.site.as_str().starts_with(prefix)).count();
        after = page.next;
        if after.is_none() {
            return count;
        }
    }
}

fn times(times: &mut [Duration]) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_millis();
    format!("p50 {} ms, p99 {} ms", at(50), at(99))
}

/// A counter with an outcome; 0 before the first.
fn counted(metrics: &str, counter: &str, outcome: &str) -> f64 {
    let prefix = format!("{counter}{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&prefix)).map_or(0.0, |value| value.parse().unwrap())
}

/// All requests that certstore answered.
fn store_requests(platform: &Platform) -> f64 {
    let metrics = platform.metrics("store-telemetry");
    let counts = metrics.lines().filter(|line| line.starts_with("certstore_requests_total{"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// A server of the platform that permits names which begin with `shop-`.
#[derive(Clone, Default)]
struct Hook {
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
    fails: Arc<AtomicBool>,
}

impl Hook {
    async fn start(&self, address: SocketAddr) -> JoinHandle<()> {
        let app = Router::new().route("/ask", get(permit)).with_state(self.clone());
        let listener = TcpListener::bind(address).await.unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
    }

    /// How often it was asked about each name, and answered.
    fn asked(&self) -> BTreeMap<String, u32> {
        self.asked.lock().unwrap().clone()
    }
}

async fn permit(State(hook): State<Hook>, Query(query): Query<BTreeMap<String, String>>) -> impl IntoResponse {
    let name = query["domain"].clone();
    let status = if hook.fails.load(Ordering::Relaxed) {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        *hook.asked.lock().unwrap().entry(name.clone()).or_default() += 1;
        if name.starts_with("shop-") { StatusCode::OK } else { StatusCode::NOT_FOUND }
    };
    // Once it is gone, no connection to it is left.
    (status, [(CONNECTION, "close")])
}

/// Visitors who want names that nobody has, each another one.
struct Flood {
    edge: SocketAddr,
    /// A ClientHello for [`PLACEHOLDER`], which others' names take the place of.
    hello: Vec<u8>,
    name_at: usize,
    met: AtomicU64,
}

impl Flood {
    fn new(edge: SocketAddr) -> Self {
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let server = ServerName::try_from(PLACEHOLDER).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), server).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let is_name = |window: &[u8]| window == PLACEHOLDER.as_bytes();
        let name_at = hello.windows(PLACEHOLDER.len()).position(is_name).unwrap();
        Self { edge, hello, name_at, met: AtomicU64::new(0) }
    }

    async fn run(&self, end: Instant) {
        let mut hello = self.hello.clone();
        while Instant::now() < end {
            let number = self.met.fetch_add(1, Ordering::Relaxed);
            // Spread as if by chance, and none twice.
            let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let name = format!("a{spread:016x}.d{number:08x}.example");
            hello[self.name_at..self.name_at + name.len()].copy_from_slice(name.as_bytes());
            let mut stream = TcpStream::connect(self.edge).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            // An alert, and the end.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
}

/// As long as the names of the flood.
const PLACEHOLDER: &str = "a0000000000000000.d00000000.example";
