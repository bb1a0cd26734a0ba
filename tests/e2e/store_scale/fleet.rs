//! A fleet of edges: all of them start at one time, and all of them hear of changes soon.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use certseal_wire::{DnsName, Snapshot};
use memchr::memmem;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::task::JoinSet;

use super::{Store, caller::Caller, is_long, percentile};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_that_starts_at_one_time_is_served_and_writers_are_not_kept_out() {
    let (edges, sites) = if is_long() { (1_000, 2_000) } else { (60, 300) };
    let store = Store::start().await;
    let made = store.bundles(0..sites, 1).await;
    store.put(made, 16).await;
    let identities = Identities::new(&store);

    let later = store.bundles(sites..sites + 10 * edges, 1).await;
    let is_up = Arc::new(AtomicBool::new(false));
    let writing = writer(&store, later, is_up.clone());
    let began = Instant::now();
    let mut fleet = JoinSet::new();
    for n in 0..edges {
        let (tls, address) = (identities.edge(n), store.platform.addresses["store"]);
        fleet.spawn(async move {
            let mut edge = Caller::connect(address, tls).await;
            let (octets, _) = read_all(&mut edge).await;
            (octets, edge.refused)
        });
    }
    let read = fleet.join_all().await;
    let took = began.elapsed();
    let (octets, refused) = read.iter().fold((0, 0), |sum, (octets, refused)| (sum.0 + octets, sum.1 + refused));
    is_up.store(true, Ordering::Relaxed);
    let mut puts = writing.join().unwrap();
    println!(
        "{edges} edges with an empty mirror have {sites} bundles after {:.1} s ({} MiB, {refused} times told to come back); \
         {} MiB of memory at the peak; {} puts meanwhile, p50 {:?}, p99 {:?}",
        took.as_secs_f64(),
        octets >> 20,
        store.memory("VmHWM"),
        puts.len(),
        percentile(&mut puts, 50),
        percentile(&mut puts, 99),
    );
    assert!(octets > edges * sites * 1000, "{octets}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_edge_hears_of_a_change_soon() {
    let (edges, rate, puts) = if is_long() { (200, 500, 10_000) } else { (20, 100, 300) };
    let store = Store::start().await;
    let identities = Identities::new(&store);
    let bundles = store.bundles(0..puts, 1).await;
    let sent: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let mut fleet = JoinSet::new();
    for n in 0..edges {
        let (tls, address, sent) = (identities.edge(n), store.platform.addresses["store"], sent.clone());
        fleet.spawn(async move {
            let mut edge = Caller::connect(address, tls).await;
            let (_, mut at) = read_all(&mut edge).await;
            let (mut lags, mut heard) = (Vec::new(), 0);
            while heard < puts {
                let page = edge.get(&format!("/v1/feed?after={at}&limit=1000&wait=10")).await;
                let arrived = Instant::now();
                at = cursor(&page).to_owned();
                let sent = sent.lock().unwrap();
                for name in names(&page) {
                    heard += 1;
                    // Some of them: otherwise the measuring takes more than what it measures.
                    if heard % 16 == 0 {
                        lags.push(arrived.duration_since(sent[name]));
                    }
                }
            }
            lags
        });
    }
    // Until they all wait.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut writers = Vec::new();
    for _ in 0..8 {
        writers.push(store.caller("certman").await);
    }
    let began = Instant::now();
    let mut writing = JoinSet::new();
    for (w, mut writer) in writers.into_iter().enumerate() {
        let mine: Vec<_> = bundles.iter().skip(w).step_by(8).cloned().collect();
        let sent = sent.clone();
        writing.spawn(async move {
            for (n, (site, bytes)) in mine.into_iter().enumerate() {
                let due = Duration::from_secs_f64((n * 8 + w) as f64 / f64::from(rate));
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
                sent.lock().unwrap().insert(site.to_string(), Instant::now());
                writer.put(&format!("/v1/bundles/{site}"), bytes).await;
            }
        });
    }
    writing.join_all().await;
    let took = began.elapsed();
    let mut lags: Vec<Duration> = fleet.join_all().await.into_iter().flatten().collect();
    println!(
        "{edges} edges, {:.0} puts/s: from put to visible p50 {:?}, p99 {:?}, at most {:?}; {} MiB of memory at the peak",
        puts as f64 / took.as_secs_f64(),
        percentile(&mut lags, 50),
        percentile(&mut lags, 99),
        percentile(&mut lags, 100),
        store.memory("VmHWM"),
    );
}

/// Puts these bundles, some hundred in a second, until `ends`. Answers how long each took.
///
/// It has a thread to itself: in the queue of those that read for the fleet it would measure how long that one is.
fn writer(
    store: &Store,
    bundles: Vec<(DnsName, Vec<u8>)>,
    ends: Arc<AtomicBool>,
) -> std::thread::JoinHandle<Vec<Duration>> {
    let (address, tls) = (store.platform.addresses["store"], store.tls("certman"));
    let writing = async move {
        let mut writer = Caller::connect(address, tls).await;
        let mut took = Vec::new();
        for (site, bytes) in bundles {
            let began = Instant::now();
            writer.put(&format!("/v1/bundles/{site}"), bytes).await;
            took.push(began.elapsed());
            if ends.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        took
    };
    std::thread::spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(writing))
}

/// Reads like an edge with an empty mirror. Answers the octets, and the cursor from which it follows.
async fn read_all(edge: &mut Caller) -> (usize, String) {
    let snapshot: Snapshot = serde_json::from_slice(&edge.get("/v1/snapshot").await).unwrap();
    let mut octets = 0;
    for segment in snapshot.segments {
        octets += edge.get(&format!("/v1/snapshot/{}", segment.digest)).await.len();
    }
    (octets, snapshot.cursor.to_string())
}

/// The cursor of a page of the feed.
pub fn cursor(page: &[u8]) -> &str {
    let rest = page.strip_prefix(br#"{"cursor":""#).expect("a page begins with its cursor");
    std::str::from_utf8(&rest[..memchr::memchr(b'"', rest).unwrap()]).unwrap()
}

/// The sites of the bundles in a page of the feed.
fn names(page: &[u8]) -> impl Iterator<Item = &str> {
    const BEFORE: &[u8] = br#"{"kind":"bundle","name":""#;
    memmem::find_iter(page, BEFORE).map(move |at| {
        let rest = &page[at + BEFORE.len()..];
        std::str::from_utf8(&rest[..memchr::memchr(b'"', rest).unwrap()]).unwrap()
    })
}

/// Identities of edges, made in memory.
struct Identities {
    ca: Issuer<'static, KeyPair>,
    roots: RootCertStore,
}

impl Identities {
    fn new(store: &Store) -> Self {
        let text = |file: &str| std::fs::read_to_string(store.platform.pki(file)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(text("ca.pem").as_bytes()).unwrap()).unwrap();
        let key = KeyPair::from_pem(&text("ca.key")).unwrap();
        Self { ca: Issuer::from_ca_cert_pem(&text("ca.pem"), key).unwrap(), roots }
    }

    fn edge(&self, n: usize) -> ClientConfig {
        let mut params = CertificateParams::default();
        let id = format!("spiffe://certseal.internal/edge/eu/fleet-{n}");
        params.subject_alt_names.push(SanType::URI(id.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ClientConfig::builder_with_provider(certseal_service::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }
}
