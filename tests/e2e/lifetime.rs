//! Records that nobody needs any more disappear by themselves, and everybody hears of it.

use std::time::{Duration, Instant};

use certseal_client::{ClientError, StoreClient};
use certseal_wire::{Cursor, DeletionQuery, DnsName, Event, FeedQuery, Kind, ProblemKind};

use crate::platform::{Authority, Platform};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_leaves_takes_its_sealed_key_along() {
    let mut platform = Platform::start(Authority::Local).await;
    platform.configure_certstore("[retention]\ndeparted_seconds = 6\ntombstone_seconds = 6\n");
    let (stays, leaves): (DnsName, DnsName) =
        ("stays.customers.test".parse().unwrap(), "leaves.customers.test".parse().unwrap());
    for site in [&stays, &leaves] {
        platform.add_site(site).await;
        platform.wait_active(site, 1).await;
    }
    let store = platform.store_as("admin");
    let before = store.snapshot().await.unwrap().cursor;
    platform.certman_as("platform").remove_site(&leaves).await.unwrap();
    let list = until("its end is announced", async || {
        let list = store.deletions(&DeletionQuery { within: Some(3600), limit: None }).await.unwrap().deletions;
        (!list.is_empty()).then_some(list)
    })
    .await;
    assert_eq!((list.len(), &list[0].site, list[0].departed), (1, &leaves, true));
    assert!(store.bundle(&leaves).await.unwrap().is_some(), "it can still come back");
    let all = store.deletions(&DeletionQuery::default()).await.unwrap().deletions;
    assert_eq!((all.len(), &all[1].site, all[1].departed), (2, &stays, false), "after its certificate");

    until("it is deleted", async || store.bundle(&leaves).await.unwrap().is_none().then_some(())).await;
    let is_told = |event: &Event| event.kind == Kind::Bundle && event.name == leaves.as_str() && event.deleted;
    assert!(events(&store, before).await.unwrap().iter().any(is_told), "the feed tells of it");
    assert!(store.bundle(&stays).await.unwrap().is_some());

    // Once the tombstone is gone too, a reader that did not hear of it has to begin anew.
    until("the tombstone is gone", async || match events(&store, before).await {
        Err(ClientError::Refused(problem)) if problem.kind == ProblemKind::Gone => Some(()),
        other => {
            other.unwrap();
            // The events in memory reach back further: only a restart forgets them.
            platform.certstore.kill();
            platform.restart_certstore();
            None
        }
    })
    .await;
    let snapshot = platform.snapshot_as("admin").await;
    assert!(snapshot.iter().all(|event| event.kind != Kind::Bundle || event.name != leaves.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_comes_back_in_time_keeps_its_bundle() {
    let mut platform = Platform::start(Authority::Local).await;
    platform.configure_certstore("[retention]\ndeparted_seconds = 30\n");
    let site: DnsName = "returns.customers.test".parse().unwrap();
    platform.add_site(&site).await;
    platform.wait_active(&site, 1).await;
    let store = platform.store_as("admin");
    let end = async || store.deletions(&DeletionQuery::default()).await.unwrap().deletions[0].at;
    let at_first = end().await;
    platform.certman_as("platform").remove_site(&site).await.unwrap();
    until("it ends sooner", async || (end().await < at_first).then_some(())).await;
    platform.add_site(&site).await;
    until("it is kept again", async || (end().await >= at_first).then_some(())).await;
}

async fn events(store: &StoreClient, after: Cursor) -> Result<Vec<Event>, ClientError> {
    Ok(store.feed(&FeedQuery { after: Some(after), limit: None, wait: None }).await?.events)
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
