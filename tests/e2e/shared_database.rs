//! Several certstores over one PostgreSQL database: each is as good as the other, and either may die.
//!
//! The processes share nothing but the database. The memory of one of them must never count for more than what is
//! stored: these tests act through one and look through the other.

mod failover;
mod rings;
mod sweeping;

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use certseal_client::StoreClient;
use certseal_seal::SigningKey;
use certseal_wire::{Cursor, FeedQuery};

use crate::{
    audit,
    platform::Platform,
    postgres::Server,
    press::{Press, site},
    process::{Process, free_address, program},
};

/// The two addresses of certstore.
const BOTH: [&str; 2] = ["store", "store-b"];

/// A platform over a database of its own, without the second certstore yet.
async fn platform() -> Platform {
    Platform::start_on(Server::shared().database()).await
}

/// Starts certstore at `store-b`, configured as the one at `store` is.
fn second(platform: &Platform) -> Process {
    let dir = platform.dir.path();
    let text = fs::read_to_string(dir.join("certstore.toml")).unwrap();
    let address = |name: &str| platform.addresses[name].to_string();
    let text = text
        .replace(&address("store"), &address("store-b"))
        .replace(&address("store-telemetry"), &free_address().to_string())
        .replace("certstore-snapshots", "certstore-b-snapshots");
    let config = dir.join("certstore-b.toml");
    fs::write(&config, text).unwrap();
    let mut second =
        Process::start(Command::new(program("certstore")).arg("--config").arg(config), &dir.join("certstore-b.log"));
    second.wait_for(platform.addresses["store-b"]);
    second
}

fn signing_key(platform: &Platform, file: &str) -> SigningKey {
    SigningKey::from_pem(&fs::read_to_string(platform.pki(file)).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_certstore_takes_the_other_hands_out_at_once_and_tells_of_soon() {
    let platform = platform().await;
    let _second = second(&platform);
    let press = Press::new(&platform, &platform.store_as("admin")).await;
    let mut longest = Duration::ZERO;
    for n in 0..10 {
        let (here, there) = (BOTH[n % 2], BOTH[(n + 1) % 2]);
        let reader = platform.stores_as("edge-eu", &[there]);
        let start = reader.snapshot().await.unwrap().cursor;
        let (site, bytes) = (site(n), press.bundle(&site(n), 1, &mut None));
        let heard = tokio::spawn({
            let (reader, name) = (reader.clone(), site.to_string());
            async move { heard(&reader, start, &name).await }
        });
        // Until it waits there.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        platform.stores_as("certman", &[here]).put_bundle(&site, bytes.clone()).await.unwrap();
        assert_eq!(reader.bundle(&site).await.unwrap().unwrap(), bytes);
        let (body, at) = heard.await.unwrap();
        assert_eq!(body, bytes);
        longest = longest.max(at - began);
    }
    println!("put through one certstore, heard of through the other: after {longest:?} at most");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    audit::verified(&platform.store_as("admin")).await;
}

/// Waits for the bundle of a site in the feed: its bytes, and when they came.
async fn heard(reader: &StoreClient, mut cursor: Cursor, name: &str) -> (Vec<u8>, Instant) {
    loop {
        let page = reader.feed(&FeedQuery { after: Some(cursor), limit: None, wait: Some(10) }).await.unwrap();
        let found = page.events.into_iter().find(|event| event.name == name && event.body.is_some());
        if let Some(body) = found.and_then(|event| event.body) {
            return (body.0, Instant::now());
        }
        cursor = page.cursor;
    }
}
