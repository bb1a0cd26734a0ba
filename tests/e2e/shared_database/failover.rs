//! Either certstore is killed or stopped while sites are added, an edge follows, and others read.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use certseal_client::StoreClient;
use certseal_wire::{AuditAction, AuditOutcome, Cursor, DnsName, FeedQuery};
use tokio::task::JoinSet;

use super::{BOTH, platform, second};
use crate::{
    audit,
    edge::eventually,
    platform::Platform,
    press::{Press, site},
    team::Load,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn either_certstore_is_killed_and_all_goes_on_through_the_other_with_nothing_lost() {
    let mut platform = platform().await;
    let mut other = second(&platform);
    let root = platform.pki("local-ca.pem");
    let first: DnsName = "first.customers.test".parse().unwrap();
    served(&platform, &first).await;
    let visitors = Load::start(&platform, std::slice::from_ref(&first), &root);
    let traffic = Traffic::start(&platform).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    // A cursor that only the first one has handed out so far.
    let of_first = platform.stores_as("edge-eu", &["store"]).snapshot().await.unwrap().cursor;
    platform.certstore.kill();
    let at_other = platform.stores_as("edge-eu", &["store-b"]);
    read(&at_other, of_first).await.expect("a cursor of the other certstore counts");
    tokio::time::sleep(Duration::from_secs(2)).await;
    served(&platform, &"while-one-is-gone.customers.test".parse().unwrap()).await;

    platform.restart_certstore();
    other.kill();
    let at_first = platform.stores_as("edge-eu", &["store"]);
    read(&at_first, of_first).await.expect("a cursor from before a restart counts");
    tokio::time::sleep(Duration::from_secs(2)).await;
    served(&platform, &"while-the-other-is-gone.customers.test".parse().unwrap()).await;

    let done = traffic.stop().await;
    check(&platform, &done, Duration::from_secs(5)).await;
    let (handshakes, failed) = visitors.stop().await;
    assert_eq!(failed, 0, "{failed} of {handshakes} handshakes failed\n{}", platform.edge.log());
    assert!(!platform.edge.log().contains("beginning with a snapshot"), "{}", platform.edge.log());
}

/// One that hangs takes connections and answers nothing: only the clients' patience tells. It does the requests of that
/// time when it goes on, long after the other one has.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "a stage of its own in test.sh: most of its time it waits for answers that do not come"]
async fn a_certstore_is_frozen_and_all_goes_on_through_the_other_also_when_it_goes_on() {
    let platform = platform().await;
    let _other = second(&platform);
    let root = platform.pki("local-ca.pem");
    let first: DnsName = "first.customers.test".parse().unwrap();
    served(&platform, &first).await;
    let visitors = Load::start(&platform, std::slice::from_ref(&first), &root);
    let traffic = Traffic::start(&platform).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let of_first = platform.stores_as("edge-eu", &["store"]).snapshot().await.unwrap().cursor;

    platform.certstore.signal("STOP");
    let at_other = platform.stores_as("edge-eu", &["store-b"]);
    read(&at_other, of_first).await.expect("a cursor of the other certstore counts");
    let name: DnsName = "while-one-is-frozen.customers.test".parse().unwrap();
    platform.add_site(&name).await;
    // certman and the edge each notice by a call of theirs that is not answered.
    eventually(Duration::from_secs(90), || platform.curl(&root, &name).status.success());

    let before = traffic.done.lock().unwrap().acknowledged.len();
    platform.certstore.signal("CONT");
    let at_first = platform.stores_as("edge-eu", &["store"]);
    let went_on = Instant::now();
    while !read(&at_first, of_first).await.expect("a cursor from before the freeze counts").contains(name.as_str()) {
        assert!(went_on.elapsed() < Duration::from_secs(10), "it does not tell of what the other one took meanwhile");
    }
    served(&platform, &"afterwards.customers.test".parse().unwrap()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(traffic.done.lock().unwrap().acknowledged.len() > before);

    let done = traffic.stop().await;
    // A call's patience, and the time after which the database ends a transaction in whose middle the first one was.
    check(&platform, &done, Duration::from_secs(15 + 10 + 5)).await;
    let (handshakes, failed) = visitors.stop().await;
    assert_eq!(failed, 0, "{failed} of {handshakes} handshakes failed\n{}", platform.edge.log());
    assert!(!platform.edge.log().contains("beginning with a snapshot"), "{}", platform.edge.log());
}

/// All that was acknowledged is there, was told of, and stands once in the audit log, which is one chain; and nobody
/// waited for longer than `longest`.
async fn check(platform: &Platform, done: &Done, longest: Duration) {
    println!(
        "{} puts acknowledged, {} reads; the longest time without an answer: puts {:?}, reads {:?}; {} calls failed",
        done.acknowledged.len(),
        done.reads,
        done.longest_put,
        done.longest_read,
        done.failed
    );
    assert!(done.acknowledged.len() > 100 && done.reads > 100, "there was too little going on");
    assert_eq!(done.failed, 0, "clients that know both addresses notice nothing but a pause");
    assert!(done.longest_put.max(done.longest_read) < longest);

    let store = platform.store_as("admin");
    for (site, bytes) in &done.acknowledged {
        assert_eq!(store.bundle(site).await.unwrap().as_deref(), Some(bytes.as_slice()), "{site}");
    }
    let missed: Vec<_> = done.acknowledged.iter().filter(|(site, _)| !done.heard.contains(site.as_str())).collect();
    assert!(missed.is_empty(), "{} of {} events were missed", missed.len(), done.acknowledged.len());
    let records = audit::verified(&store).await;
    for (site, _) in &done.acknowledged {
        let puts = records.iter().filter(|record| {
            record.action == AuditAction::PutBundle
                && record.outcome == AuditOutcome::Done
                && record.targets.contains(&site.to_string())
        });
        assert_eq!(puts.count(), 1, "{site}");
    }
}

/// Adds a site, and waits until the edge serves it.
async fn served(platform: &Platform, name: &DnsName) {
    let root = platform.pki("local-ca.pem");
    platform.add_site(name).await;
    platform.wait_active(name, 1).await;
    eventually(Duration::from_secs(20), || platform.curl(&root, name).status.success());
}

/// The names that the feed tells of after a cursor, up to its end.
async fn read(store: &StoreClient, mut cursor: Cursor) -> Result<HashSet<String>, certseal_client::ClientError> {
    let mut names = HashSet::new();
    loop {
        let page = store.feed(&FeedQuery { after: Some(cursor), limit: None, wait: Some(0) }).await?;
        names.extend(page.events.into_iter().map(|event| event.name));
        cursor = page.cursor;
        if page.end {
            return Ok(names);
        }
    }
}

/// Those who put, read and follow all the time, and know both addresses.
struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Done>>,
    tasks: JoinSet<()>,
    follower: tokio::task::JoinHandle<HashSet<String>>,
}

#[derive(Default)]
struct Done {
    acknowledged: Vec<(DnsName, Vec<u8>)>,
    reads: usize,
    failed: usize,
    longest_put: Duration,
    longest_read: Duration,
    heard: HashSet<String>,
}

impl Traffic {
    async fn start(platform: &Platform) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Done::default())));
        let press = Arc::new(Press::new(platform, &platform.store_as("admin")).await);
        let start = platform.store_as("edge-eu").snapshot().await.unwrap().cursor;
        let mut tasks = JoinSet::new();
        for writer in 0..2 {
            let store = platform.stores_as("certman", &BOTH);
            tasks.spawn(put(store, press.clone(), writer, stop.clone(), done.clone()));
            tasks.spawn(fetch(platform.stores_as("admin", &BOTH), writer, stop.clone(), done.clone()));
        }
        let follower = tokio::spawn(follow(platform.stores_as("edge-eu", &BOTH), start, stop.clone()));
        Self { stop, done, tasks, follower }
    }

    async fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        let heard = self.follower.await.unwrap();
        Done { heard, ..std::mem::take(&mut *self.done.lock().unwrap()) }
    }
}

async fn put(store: StoreClient, press: Arc<Press>, writer: usize, stop: Arc<AtomicBool>, done: Arc<Mutex<Done>>) {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let site = site(writer * 100_000 + n);
        let (press, name) = (press.clone(), site.clone());
        let bytes = tokio::task::spawn_blocking(move || press.bundle(&name, 1, &mut None)).await.unwrap();
        let began = Instant::now();
        while let Err(error) = store.put_bundle(&site, bytes.clone()).await {
            println!("put: {error}");
            done.lock().unwrap().failed += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut done = done.lock().unwrap();
        done.longest_put = done.longest_put.max(began.elapsed());
        done.acknowledged.push((site, bytes));
    }
}

async fn fetch(store: StoreClient, reader: usize, stop: Arc<AtomicBool>, done: Arc<Mutex<Done>>) {
    let mut answered = Instant::now();
    for n in reader.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let known = {
            let done = done.lock().unwrap();
            let count = done.acknowledged.len();
            (count > 0).then(|| done.acknowledged[n * 7_919 % count].clone())
        };
        let Some((site, bytes)) = known else {
            answered = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        match store.bundle(&site).await {
            Ok(found) => assert_eq!(found.as_deref(), Some(bytes.as_slice()), "{site}"),
            Err(error) => {
                println!("read: {error}");
                done.lock().unwrap().failed += 1;
                continue;
            }
        }
        let mut done = done.lock().unwrap();
        done.reads += 1;
        done.longest_read = done.longest_read.max(answered.elapsed());
        answered = Instant::now();
    }
}

/// Follows the feed to its end after the stop. Its cursor goes from one certstore to the other, and must always count.
async fn follow(store: StoreClient, mut cursor: Cursor, stop: Arc<AtomicBool>) -> HashSet<String> {
    let mut heard = HashSet::new();
    loop {
        let is_last = stop.load(Ordering::Relaxed);
        // The tail of a certstore is a moment behind what another one has written.
        if is_last {
            tokio::time::sleep(Duration::from_secs(1)).await;
            heard.extend(read(&store, cursor).await.unwrap());
            return heard;
        }
        let page = store.feed(&FeedQuery { after: Some(cursor), limit: None, wait: Some(1) }).await.unwrap();
        heard.extend(page.events.into_iter().filter(|event| event.body.is_some()).map(|event| event.name));
        cursor = page.cursor;
    }
}
