//! One million bundles: disk, memory, opening, fetches cold and warm, durable puts, a snapshot, and churn.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use certseal_wire::{Digest, Snapshot};
use tokio::task::JoinSet;

use super::{Store, bundles, is_long, percentile};
use crate::press::site;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_of_many_bundles_opens_answers_and_takes_more() {
    let count = bundles(600);
    let mut store = Store::start().await;
    let began = Instant::now();
    for first in (0..count).step_by(20_000) {
        let made = store.bundles(first..count.min(first + 20_000), 1).await;
        if first == 0 {
            let octets: usize = made.iter().map(|(_, bytes)| bytes.len()).sum();
            println!("bundles of {} octets", octets / made.len());
        }
        store.put(made, 64).await;
    }
    println!(
        "{count} bundles made and stored in {:.0} s: {} MiB on disk, {} MiB of memory",
        began.elapsed().as_secs_f64(),
        store.disk(),
        store.memory("VmRSS")
    );
    let opened = store.restart();
    println!(
        "opened in {:.2} s, to the first connection; {} MiB of memory",
        opened.as_secs_f64(),
        store.memory("VmRSS")
    );

    if is_long() {
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    }
    let seconds = Duration::from_secs(if is_long() { 15 } else { 1 });
    let rate = |fetched: usize| fetched as f64 / seconds.as_secs_f64();
    println!("cold: {:.0} fetches/s of bundles at random", rate(fetch(&store, count, seconds).await));
    // The warm records fit into the memory of the engine.
    let warm = count.min(20_000);
    fetch(&store, warm, seconds).await;
    let fetched = fetch(&store, warm, seconds).await;
    println!("warm: {:.0} fetches/s with {} connections", rate(fetched), connections());
    assert!(fetched > 100, "{fetched}");

    let more = if is_long() { 50_000 } else { 300 };
    for (first, where_) in [(count, "on its core"), (count + more, "with all cores, which it shares with them")] {
        let made = store.bundles(first..first + more, 1).await;
        if first > count {
            store.share_cores();
        }
        let took = store.put(made, 64).await;
        println!("{:.0} durable puts/s with 64 clients, {where_}", more as f64 / took.as_secs_f64());
    }
    store.pin();

    // One edge reads all of it.
    let mut edge = store.caller("edge-eu").await;
    let began = Instant::now();
    let snapshot: Snapshot = serde_json::from_slice(&edge.get("/v1/snapshot").await).unwrap();
    let made = began.elapsed();
    let (mut octets, mut events) = (0, 0);
    for segment in &snapshot.segments {
        let bytes = edge.get(&format!("/v1/snapshot/{}", segment.digest)).await;
        assert_eq!((bytes.len() as u64, certseal_seal::sha256(&bytes)), (segment.octets, segment.digest));
        octets += bytes.len();
        events += segment.events;
    }
    let took = began.elapsed();
    assert!(events as usize >= count + 2 * more, "{events}");
    println!(
        "a snapshot of {events} records ({} MiB): made in {:.1} s, read in {:.1} s ({:.0} records/s); {} MiB of memory \
         at its peak",
        octets >> 20,
        made.as_secs_f64(),
        (took - made).as_secs_f64(),
        events as f64 / took.as_secs_f64(),
        store.memory("VmHWM")
    );
    let distinct: std::collections::HashSet<Digest> = snapshot.segments.iter().map(|segment| segment.digest).collect();
    assert_eq!(distinct.len(), snapshot.segments.len());
}

/// Each fetch waits until it is noted durably: many that wait share a sync of the disk.
fn connections() -> usize {
    if is_long() { 256 } else { 64 }
}

/// Fetches bundles of the first `count` sites, spread evenly. Answers how many.
async fn fetch(store: &Store, count: usize, time: Duration) -> usize {
    let (ends, fetched) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for connection in 0..connections() {
        let mut caller = store.caller("edge-eu").await;
        let (ends, fetched) = (ends.clone(), fetched.clone());
        tasks.spawn(async move {
            // Steps of a prime lead through all of them without an order.
            let mut n = connection * 7_919;
            while !ends.load(Ordering::Relaxed) {
                n = (n + 1_000_003) % count;
                assert!(caller.get(&format!("/v1/bundles/{}", site(n))).await.len() > 1000);
                fetched.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let before = fetched.load(Ordering::Relaxed);
    tokio::time::sleep(time).await;
    let after = fetched.load(Ordering::Relaxed);
    ends.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    after - before
}

/// A fleet of a million sites renews 17,000 bundles in a day: the long run changes 480,000, on few sites, while edges follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_stays_flat_however_much_changes() {
    let (sites, rounds) = if is_long() { (2_000, 240) } else { (100, 12) };
    let store = Store::start().await;
    let start = {
        let mut edge = store.caller("edge-eu").await;
        serde_json::from_slice::<Snapshot>(&edge.get("/v1/snapshot").await).unwrap().cursor
    };
    let ends = Arc::new(AtomicBool::new(false));
    let mut edges = JoinSet::new();
    for _ in 0..20 {
        let (mut edge, ends) = (store.caller("edge-eu").await, ends.clone());
        edges.spawn(async move {
            let (mut cursor, mut read) = (start.to_string(), 0);
            while !ends.load(Ordering::Relaxed) {
                let page = edge.get(&format!("/v1/feed?after={cursor}&wait=1")).await;
                read += page.len();
                cursor = super::fleet::cursor(&page).to_owned();
            }
            read
        });
    }
    let mut memory = Vec::new();
    let mut took = Vec::new();
    for round in 1..=rounds {
        let made = store.bundles(0..sites, round).await;
        took.push(store.put(made, 16).await);
        memory.push(store.memory("VmRSS"));
    }
    ends.store(true, Ordering::Relaxed);
    let read: usize = edges.join_all().await.into_iter().sum();
    // The caches fill in the first half.
    let half = memory.len() / 2;
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    let (middle, end) = (most(&memory[half / 2..half]), most(&memory[half + half / 2..]));
    println!(
        "{} changes of {sites} bundles, {} MiB read by 20 edges: at most {middle} MiB of memory in the second quarter, {end} MiB \
         in the last; a round took {:?} in the middle",
        sites as u64 * rounds,
        read >> 20,
        percentile(&mut took, 50),
    );
    assert!(read > 0);
    assert!(end <= middle + middle / 8 + 16, "memory grows: {memory:?}");
}
