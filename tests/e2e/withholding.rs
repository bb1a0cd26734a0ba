//! A store that withholds news can stop an edge from learning them, and cannot hide that it does.

use std::time::{Duration, Instant};

use certseal_wire::{Change, Checkpoint, DnsName, Kind, SiteRequest};

use crate::{
    edge::{eventually, with_one_site},
    hostile_store::{HostileStore, Hostility},
    platform::Platform,
    process::free_address,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_withholds_one_sites_news_is_seen_until_it_hands_them_out() {
    let (mut platform, name) = with_one_site().await;
    let root = platform.pki("local-ca.pem");
    // The control: with an honest store a change is followed, and nothing is missing.
    platform.certctl(&["site", "renew", name.as_str()]);
    platform.wait_active(&name, 2).await;
    stays_small(&platform, Duration::from_secs(3));

    let hostile = HostileStore::start(&platform, Hostility::Withhold(name.clone())).await;
    platform.lead_edge_to(hostile.address);
    let nowhere = format!("http://{}", free_address()).parse().unwrap();
    let request = SiteRequest { upstream: nowhere, ..platform.request(&name) };
    platform.certman_as("platform").put_site(&name, &request).await.unwrap();
    let other: DnsName = "other.customers.test".parse().unwrap();
    platform.add_site(&other).await;
    platform.wait_active(&other, 1).await;
    eventually(Duration::from_secs(10), || platform.edge_gauge(WITHHELD) > 0.0);
    assert_eq!(platform.edge_gauge(WITHHELD), 1.0, "{}", platform.edge.log());
    assert!(hostile.acted() > 0, "it was not asked for what is missing");
    let missing = format!("route {name} version 2");
    assert!(platform.edge.log().contains(&missing), "{}", platform.edge.log());
    // It costs nothing else: the site is served as before, the other one too, and the edge is ready.
    eventually(Duration::from_secs(5), || platform.curl(&root, &other).status.success());
    let served = platform.curl(&root, &name);
    assert!(String::from_utf8_lossy(&served.stdout).starts_with("hello from"), "{served:?}");
    assert!(platform.is_ready("edge-telemetry"));

    // The feed was read on behind what is missing; an honest store has it by name.
    platform.lead_edge_to(platform.addresses["store"]);
    eventually(Duration::from_secs(10), || platform.edge_gauge(WITHHELD) == 0.0);
    eventually(Duration::from_secs(5), || !platform.curl(&root, &name).stdout.starts_with(b"hello from"));
    stays_small(&platform, Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_freezes_the_feed_is_seen_by_the_age_of_the_checkpoint() {
    let (mut platform, name) = with_one_site().await;
    stays_small(&platform, Duration::from_secs(5));

    let hostile = HostileStore::start(&platform, Hostility::Freeze).await;
    platform.lead_edge_to(hostile.address);
    eventually(Duration::from_secs(20), || platform.edge_gauge(AGE) > 2.0 * SMALL);
    // Nothing else shows it: the store answers, and has nothing to say.
    assert!(platform.edge_gauge("certedge_feed_silence_seconds") < SMALL);
    assert_eq!(platform.edge_gauge(WITHHELD), 0.0);
    assert!(platform.curl(&platform.pki("local-ca.pem"), &name).status.success());
    assert!(platform.is_ready("edge-telemetry"));

    platform.lead_edge_to(platform.addresses["store"]);
    eventually(Duration::from_secs(10), || platform.edge_gauge(AGE) < SMALL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_moved_to_another_pool_meanwhile_is_no_false_alarm() {
    let (mut platform, name) = with_one_site().await;
    let root = platform.pki("local-ca.pem");
    platform.edge.kill();
    // The route that says so is replaced by a further one, and the feed keeps the newest only.
    for pool in ["eu", "us", "us"] {
        let request = SiteRequest {
            pools: vec![pool.parse().unwrap()],
            upstream: format!("http://{}", free_address()).parse().unwrap(),
            ..platform.request(&name)
        };
        platform.certman_as("platform").put_site(&name, &request).await.unwrap();
        platform.wait_active(&name, 1).await;
    }
    // The pool that was left is told so: version 3 is the first route without it.
    let (eu, store) = ("eu".parse().unwrap(), platform.store_as("admin"));
    let left = Change { kind: Kind::Route, name: name.to_string(), version: 3 };
    let began = Instant::now();
    loop {
        let signed = store.checkpoint(&eu).await.unwrap().unwrap();
        let checkpoint: Checkpoint = serde_json::from_slice(&signed.payload.0).unwrap();
        if checkpoint.changes.contains(&left) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{checkpoint:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    platform.restart_edge();
    eventually(Duration::from_secs(10), || !platform.curl(&root, &name).status.success());
    stays_small(&platform, Duration::from_secs(3));
}

/// Waits for a checkpoint, and then watches for some time that it is followed by others and that nothing is missing.
fn stays_small(platform: &Platform, time: Duration) {
    eventually(Duration::from_secs(10), || platform.edge_gauge(AGE) < SMALL);
    let began = Instant::now();
    while began.elapsed() < time {
        let (age, withheld) = (platform.edge_gauge(AGE), platform.edge_gauge(WITHHELD));
        assert!(age < SMALL && withheld == 0.0, "age {age} s, {withheld} withheld\n{}", platform.edge.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

const AGE: &str = "certedge_checkpoint_age_seconds";
const WITHHELD: &str = "certedge_withheld_items";

/// Seconds that the age of a checkpoint stays below: they come once a second, and the machine may be busy.
const SMALL: f64 = 4.0;
