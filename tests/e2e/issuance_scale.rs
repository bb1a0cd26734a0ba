//! Many names get their certificates: how many a second, and what each costs.
//!
//! `CERTSEAL_ISSUED_NAMES=10000` makes it long; figures come from
//! `cargo test --release --test e2e -- issuance_scale --nocapture`, after `cargo build --release --workspace --bins`.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use certseal_wire::DnsName;

use crate::{
    platform::{Authority, Platform},
    twin_ca::{Terms, TwinCa},
};

/// The CA validates over the edge's HTTP side, and has no limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_of_new_names_gets_each_its_certificate_once() {
    let count: u32 = env::var("CERTSEAL_ISSUED_NAMES").map_or(200, |count| count.parse().unwrap());
    let workers = env::var("CERTSEAL_ACME_WORKERS").unwrap_or_else(|_| "16".into());
    let twin = TwinCa::start(Terms::default());
    let directory = twin.directory();
    let authority = Authority::Acme { directory: &directory, roots: &twin.tls_root };
    let mut platform = Platform::start_with_http(authority, twin.http).await;
    platform.configure_certman(&format!("workers = {workers}\nrequests_per_second = 100000"));
    let busy = |platform: &Platform| {
        [&platform.certman, &platform.certstore, &platform.edge].map(|daemon| daemon.processor_time().as_secs_f64())
    };
    let (before, began) = (busy(&platform), Instant::now());
    let next = Arc::new(AtomicU32::new(0));
    let platform_calls = (0..4).map(|_| {
        let (certman, next) = (platform.certman_as("platform"), next.clone());
        let request = platform.request(&name(0));
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                let name = name(number);
                let names = vec![name.clone()].try_into().unwrap();
                certman.put_site(&name, &certseal_wire::SiteRequest { names, ..request.clone() }).await.unwrap();
            }
        })
    });
    for call in platform_calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    let added = began.elapsed().as_secs_f64();
    platform.wait_certificates(count).await;
    let seconds = began.elapsed().as_secs_f64();
    let counted = |name| platform.certman_counter(name) / f64::from(count);
    let requests = counted("certman_acme_requests_total") + counted("certman_acme_nonce_requests_total");
    let commits = counted("certman_journal_commits_total");
    let after = busy(&platform);
    let [man, store, edge] = [0, 1, 2].map(|daemon| 1000.0 * (after[daemon] - before[daemon]) / f64::from(count));
    let ca = 1000.0 * twin.processor_time().as_secs_f64() / f64::from(count);
    println!(
        "{count} certificates in {seconds:.1} s ({added:.1} s of it until all names were added), {:.0} a second; for each \
         {requests:.2} requests to the CA and {commits:.2} commits; milliseconds of processor time: certman {man:.2}, \
         certstore {store:.2}, edge {edge:.2}, the CA {ca:.2}",
        f64::from(count) / seconds
    );
    let log = twin.log();
    let happened = |what| log.iter().filter(|(_, _, happened)| *happened == what).count();
    assert_eq!(happened("issued"), count as usize, "each once");
    let again = happened("failed");
    assert!(again <= count as usize / 50, "{again} validations failed");
    assert!(requests <= 8.0, "{requests} requests for a certificate");
    assert!(commits <= 6.5, "{commits} commits for a certificate");
}

fn name(number: u32) -> DnsName {
    format!("www.shop-{number}.test").parse().unwrap()
}
