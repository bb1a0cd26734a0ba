use super::*;
use crate::vault::tests::{put, vault};

#[tokio::test]
async fn a_cursor_that_this_feed_never_gave_out_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let feed = feed(dir.path());
    let Position { epoch, seq } = feed.vault.storage().head().unwrap();
    assert!(read(&feed, Role::Admin, Cursor { epoch, seq }).await.unwrap().end);
    for cursor in [Cursor { epoch, seq: seq + 1 }, Cursor { epoch, seq: u64::MAX }, Cursor { epoch: [7; 16], seq }] {
        assert_eq!(read(&feed, Role::Admin, cursor).await.err().unwrap().0.kind, ProblemKind::Gone);
    }
}

#[tokio::test]
async fn the_tail_tells_what_the_store_tells() {
    let dir = tempfile::tempdir().unwrap();
    let feed = feed(dir.path());
    let start = feed.tail().end();
    for version in 1..=3 {
        put(&feed.vault, Kind::Bundle, version, &["eu"]);
        put(&feed.vault, Kind::Route, version, &["eu", "us"]);
    }
    let cursor = Cursor { epoch: start.epoch, seq: start.seq };
    for role in ["edge/eu", "edge/us", "admin"] {
        let role: Role = role.parse().unwrap();
        let stored = feed.stored_page(&role, cursor, MAX_EVENTS).unwrap();
        assert_eq!(stored.count, if role == "edge/us".parse().unwrap() { 1 } else { 2 });
        feed.catch_up().unwrap();
        let told = feed.tail().page(&role, cursor.seq, MAX_EVENTS).unwrap();
        assert_eq!((told.count, told.bundles), (stored.count, stored.bundles));
        assert_eq!(told.rendered(), stored.rendered());
    }
}

#[tokio::test]
async fn a_reader_behind_the_tail_is_served_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let before = feed(dir.path());
    let start = before.tail().end();
    put(&before.vault, Kind::Route, 1, &["eu"]);
    // Another process: its tail begins after that.
    let after = Arc::new(Feed::new(before.vault.clone(), before.admission.clone(), before.reads.clone()).unwrap());
    let cursor = Cursor { epoch: start.epoch, seq: start.seq };
    assert!(after.tail().page(&Role::Admin, cursor.seq, 10).is_none());
    assert_eq!(read(&after, Role::Admin, cursor).await.unwrap().count, 1);
}

fn feed(dir: &std::path::Path) -> Arc<Feed> {
    let vault = vault(dir);
    let reads = ReadLog::start(vault.clone());
    Arc::new(Feed::new(vault, Arc::new(Admission::new()), reads).unwrap())
}

async fn read(feed: &Arc<Feed>, role: Role, after: Cursor) -> Result<Page, Refusal> {
    let caller = certseal_wire::Caller { role, name: "x".into() };
    feed.clone().look(&Actor { caller, from: None }, after, MAX_EVENTS).await
}
