//! Issuance by a real ACME CA, seen by real clients.

use std::{
    env,
    time::{Duration, Instant},
};

use certseal_wire::DnsName;

use crate::{
    fault_proxy::{FaultProxy, Hold},
    pebble::Pebble,
    platform::{Authority, Platform},
    tls_client::Connection,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_names_are_issued_over_http_01_and_one_is_renewed_with_connections_open() {
    let pebble = Pebble::start(5);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let names: Vec<DnsName> = (1..=20).map(|number| format!("shop-{number}.customers.test").parse().unwrap()).collect();
    for name in &names {
        platform.add_site(name).await;
    }
    let root = pebble.issuing_root();
    for name in &names {
        platform.wait_active(name, 1).await;
        served_within_two_seconds(&platform, name, &root, 1).await;
        let output = platform.curl(&root, name);
        let body = String::from_utf8_lossy(&output.stdout);
        assert!(body.starts_with(&format!("hello from {name} over https")), "{output:?}");
    }

    // A control: the same client does not accept the chain under another root.
    let other_root = platform.pki("ca.pem");
    assert!(!platform.curl(&other_root, &names[0]).status.success());

    let name = &names[0];
    let mut open = Connection::open(platform.addresses["https"], name, &root).await.unwrap();
    let first = open.chain[0].clone();
    let output = platform.certctl(&["site", "renew", name.as_str()]);
    assert!(output.status.success(), "{output:?}");
    platform.wait_active(name, 2).await;
    let renewed = served_within_two_seconds(&platform, name, &root, 2).await;
    assert_ne!(first, renewed.chain[0], "the old certificate is still served");
    assert_eq!(open.get().await.unwrap().status(), 200, "the connection from before the renewal was dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_survives_sigkill_at_every_step_with_one_key() {
    let pebble = Pebble::start(0);
    let proxy = FaultProxy::start(&pebble).await;
    let authority = Authority::Acme { directory: &proxy.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let steps = [
        Hold { path: "/order-plz", after: true },
        Hold { path: "/chalZ/", after: false },
        Hold { path: "/finalize-order/", after: false },
        Hold { path: "/finalize-order/", after: true },
        Hold { path: "/certZ/", after: true },
    ];
    for (number, hold) in steps.into_iter().enumerate() {
        let name: DnsName = format!("kill-{number}.customers.test").parse().unwrap();
        proxy.hold(hold);
        platform.add_site(&name).await;
        proxy.wait_held().await;
        platform.certman.kill();
        platform.restart_certman();
        let status = platform.wait_active(&name, 1).await;
        assert_eq!(status.version, 1, "{hold:?}");
        assert_eq!(proxy.csrs(), 1, "killed at {hold:?}, the order went on with another key");
        served_within_two_seconds(&platform, &name, &pebble.issuing_root(), 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_order_is_explained_leaves_nothing_pending_and_succeeds_once_the_cause_is_gone() {
    let pebble = Pebble::start(0);
    let proxy = FaultProxy::start(&pebble).await;
    let authority = Authority::Acme { directory: &proxy.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let name: DnsName = "broken.customers.test".parse().unwrap();
    pebble.dns("set-servfail", name.as_str());
    platform.add_site(&name).await;
    let diagnosis = loop {
        let status = platform.certman_as("platform").site(&name).await.unwrap().unwrap();
        if let Some(diagnosis) = status.order.and_then(|order| order.diagnosis) {
            break diagnosis;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(diagnosis.contains(name.as_str()) && diagnosis.contains("urn:ietf:params:acme:error:"), "{diagnosis}");
    pebble.dns("clear-servfail", name.as_str());
    platform.wait_active(&name, 1).await;

    // A site that leaves in the middle of its order: its pending authorizations at the CA are deactivated.
    let name: DnsName = "fickle.customers.test".parse().unwrap();
    pebble.dns("set-servfail", name.as_str());
    proxy.hold(Hold { path: "/chalZ/", after: false });
    platform.add_site(&name).await;
    proxy.wait_held().await;
    platform.certman_as("platform").remove_site(&name).await.unwrap();
    proxy.release();
    let began = Instant::now();
    while proxy.deactivated() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was deactivated\n{}", platform.certman.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One request at a time: while one order looks for authorizations to use again and another one's is read, Pebble 2.10 may
/// stand still for good, each holding a lock that the other waits for. `CERTSEAL_ACME_WORKERS` tries one's luck.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_takes_eight_requests_and_hardly_a_nonce() {
    let count = env::var("CERTSEAL_ACME_NAMES").map_or(30, |count| count.parse::<u32>().unwrap());
    let pebble = Pebble::start(0);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let workers = env::var("CERTSEAL_ACME_WORKERS").unwrap_or_else(|_| "1".into());
    platform.configure_certman(&format!("workers = {workers}"));
    let certman = platform.certman_as("platform");
    let began = Instant::now();
    for number in 0..count {
        let name = format!("n-{number}.customers.test").parse().unwrap();
        certman.put_site(&name, &platform.request(&name)).await.unwrap();
    }
    let certificates = || platform.certman_counter("certman_certificates_total");
    while certificates() < f64::from(count) {
        assert!(began.elapsed() < Duration::from_secs(60 + u64::from(count)), "{}", platform.certman.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let counted = |name| platform.certman_counter(name) / f64::from(count);
    let (others, nonces) = (counted("certman_acme_requests_total"), counted("certman_acme_nonce_requests_total"));
    println!(
        "{count} certificates in {seconds:.1} s, {:.0} a second; for each {others:.2} requests and {nonces:.2} for nonces",
        f64::from(count) / seconds
    );
    assert_eq!(certificates(), f64::from(count), "each once");
    assert!(others + nonces <= 8.0, "{others} + {nonces} requests for a certificate");
    assert!(nonces <= (others + nonces) / 20.0, "{nonces} of {others} requests for a certificate are for nonces");
}

/// A new certificate is served within 2 s of being stored. Opens a connection that sees `version`.
async fn served_within_two_seconds(
    platform: &Platform,
    name: &DnsName,
    root: &std::path::Path,
    version: u64,
) -> Connection {
    let stored = platform.store_as("admin").bundle(name).await.unwrap().unwrap();
    let bundle = certseal_seal::Bundle::parse(&stored).unwrap();
    assert_eq!(bundle.sealed().envelope().unwrap().header().key_version, version);
    let leaf = &bundle.chain()[0];
    let began = Instant::now();
    loop {
        match Connection::open(platform.addresses["https"], name, root).await {
            Ok(connection) if connection.chain[0].as_ref() == leaf => return connection,
            other => {
                let waited = began.elapsed();
                let error = other.map(drop).err();
                assert!(
                    waited < Duration::from_secs(2),
                    "not served after {waited:?}: {error:?}\n{}",
                    platform.edge.log()
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
