use super::*;
use crate::tests::{put, vault};

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

/// It harms its own name only: the others' events come, by the tail and from the store.
#[tokio::test]
async fn a_damaged_record_does_not_stop_the_feed() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, faulty) = crate::tests::faulty::vault(dir.path());
    let feed = feed_of(vault);
    let start = feed.tail().end();
    put(&feed.vault, Kind::Bundle, 1, &["eu"]);
    put(&feed.vault, Kind::Route, 1, &["eu"]);
    faulty.damage(crate::records::BUNDLES, b"a.example");
    let stored = feed.stored_page(&Role::Admin, Cursor { epoch: start.epoch, seq: start.seq }, MAX_EVENTS).unwrap();
    feed.catch_up().unwrap();
    let told = feed.tail().page(&Role::Admin, start.seq, MAX_EVENTS).unwrap();
    // Both are told of, and only the sound one comes with its record.
    for page in [stored, told] {
        assert_eq!((page.count, page.bundles), (2, 0));
        let page: certseal_wire::FeedPage = serde_json::from_slice(&page.rendered()).unwrap();
        let inline: Vec<_> = page.events.iter().map(|event| (event.kind, event.body.is_some())).collect();
        assert_eq!(inline, [(Kind::Bundle, false), (Kind::Route, true)]);
    }
    put(&feed.vault, Kind::Bundle, 2, &["eu"]);
    let seq = feed.tail().end().seq;
    feed.catch_up().unwrap();
    assert_eq!(feed.tail().page(&Role::Admin, seq, MAX_EVENTS).unwrap().bundles, 1, "a good one in its place");
}

fn feed(dir: &std::path::Path) -> Arc<Feed> {
    feed_of(vault(dir))
}

fn feed_of(vault: Arc<Vault>) -> Arc<Feed> {
    let reads = ReadLog::start(vault.clone());
    Arc::new(Feed::new(vault, Arc::new(Admission::new()), reads).unwrap())
}

async fn read(feed: &Arc<Feed>, role: Role, after: Cursor) -> Result<Page, Refusal> {
    let caller = certseal_wire::Caller { role, name: "x".into() };
    feed.clone().look(&Actor { caller, from: None }, after, MAX_EVENTS).await
}
