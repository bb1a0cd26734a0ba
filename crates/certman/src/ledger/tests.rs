use std::sync::Arc;

use certseal_issuance::{AuthorityId, Step, budget::OrderKind};
use certseal_wire::{DnsName, NameSet, SiteRequest};
use jiff::SignedDuration;

use super::*;

fn now() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn account() -> AccountRef {
    AccountRef { authority: AuthorityId("https://ca.example/directory".into()), thumbprint: Some("print".into()) }
}

fn rules() -> Rules {
    Rules {
        limits: [(account().authority, Limits::letsencrypt())].into(),
        suffixes: Arc::new(Suffixes::new(None).unwrap()),
    }
}

/// A site that is about to order, in the journal.
fn added(journal: &Journal, name: &str) -> Entry {
    let name: DnsName = name.parse().unwrap();
    let request = SiteRequest::new(
        NameSet::try_from(vec![name.clone()]).unwrap(),
        "http://127.0.0.1:1".parse().unwrap(),
        vec!["eu".parse().unwrap()],
    );
    let order = Some(Step::Vouched { account: account() });
    let site = Site { route_stored: true, order, ..Site::new(name, request) };
    journal.write(None, &site, Writer::Request, &[]).unwrap().unwrap()
}

fn reserve() -> Booking {
    Booking::Reserve { account: account(), kind: OrderKind::New, lane: Lane::NewSite, again: false }
}

fn moment(now: Timestamp) -> Moment {
    Moment { now, chance: 0.0 }
}

async fn reserved(ledger: &Ledger, entry: &Entry, now: Timestamp) -> bool {
    let written = ledger.book(entry.clone(), entry.site.clone(), reserve(), moment(now)).await.unwrap().unwrap();
    written.site.reserved.is_some_and(|reserved| reserved.ready)
}

fn left(ledger: &Ledger, limit: LimitName, now: Timestamp) -> Vec<(String, u32)> {
    let standing = ledger.standing(&account().authority, now, 3).unwrap();
    let of_limit = standing.fullest.into_iter().filter(|(bucket, _)| bucket.limit == limit);
    of_limit.map(|(bucket, left)| (bucket.subject.to_string(), left)).collect()
}

#[tokio::test]
async fn room_is_taken_in_one_transaction_with_the_site_and_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let ledger = Ledger::start(journal.clone(), rules());
    let entries: Vec<Entry> = (0..120).map(|n| added(&journal, &format!("shop-{n}.example.co.uk"))).collect();
    // All at once: they share transactions, and still no more than fifty have the room of one registered domain.
    let asks = entries.iter().map(|entry| {
        let (ledger, entry) = (ledger.clone(), entry.clone());
        tokio::spawn(async move { reserved(&ledger, &entry, now()).await })
    });
    let mut granted = 0;
    for ask in asks.collect::<Vec<_>>() {
        granted += usize::from(ask.await.unwrap());
    }
    // The last one of fifty waits a minute.
    assert_eq!(granted, 49);
    assert_eq!(left(&ledger, LimitName::CertificatesPerDomain, now()), [("example.co.uk".to_owned(), 1)]);
    assert_eq!(left(&ledger, LimitName::NewOrders, now()), [(String::new(), 251)]);
    let in_journal = |entry: &&Entry| journal.read(&entry.site.site).unwrap().unwrap().site.reserved.is_some();
    assert_eq!(entries.iter().filter(in_journal).count(), 49, "each has its room in its record");
    drop((ledger, journal));
    // The task may hold the journal a moment longer.
    let journal = loop {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        if let Ok(journal) = Journal::open(dir.path()) {
            break journal;
        }
    };
    let ledger = Ledger::start(journal.clone(), rules());
    assert!(!reserved(&ledger, &added(&journal, "late.example.co.uk"), now()).await);
    assert!(reserved(&ledger, &added(&journal, "shop.example.com"), now()).await);
    let later = now() + SignedDuration::from_hours(4);
    assert!(reserved(&ledger, &added(&journal, "later.example.co.uk"), later).await);
}

#[tokio::test]
async fn two_ledgers_never_take_the_same_room_and_one_that_was_outrun_takes_none() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    // Two that know nothing of each other; this is about the books, not about who works on which site.
    let ledgers = [0, 1].map(|_| Ledger::start(journal.clone(), rules()));
    let entries: Vec<Entry> = (0..100).map(|n| added(&journal, &format!("shop-{n}.example.org"))).collect();
    let asks = entries.iter().enumerate().map(|(n, entry)| {
        let (ledger, entry) = (ledgers[n % 2].clone(), entry.clone());
        tokio::spawn(async move { reserved(&ledger, &entry, now()).await })
    });
    let mut granted = 0;
    for ask in asks.collect::<Vec<_>>() {
        granted += usize::from(ask.await.unwrap());
    }
    // The last one of fifty waits a minute.
    assert_eq!(granted, 49);
    // Somebody changes a site between its decision and its booking.
    let entry = added(&journal, "shop.example.net");
    let changed = Site { owner: Some("ann".into()), ..entry.site.clone() };
    journal.write(Some(&entry), &changed, Writer::Request, &[]).unwrap().unwrap();
    let outrun = ledgers[0].book(entry.clone(), entry.site.clone(), reserve(), moment(now())).await.unwrap();
    assert!(outrun.is_none());
    assert_eq!(left(&ledgers[0], LimitName::NewOrders, now()), [(String::new(), 251)], "nothing was taken");
}

#[tokio::test]
async fn buckets_that_are_empty_again_are_forgotten_and_long_subjects_are_kept_short() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let ledger = Ledger::start(journal.clone(), rules());
    let entry = added(&journal, "shop.example.com");
    let long: Vec<DnsName> = (0..20).map(|n| format!("a-rather-long-label-{n}.example.com").parse().unwrap()).collect();
    let names = NameSet::try_from([long, vec![entry.site.site.clone()]].concat()).unwrap();
    let site = Site { names, ..entry.site.clone() };
    let entry = journal.write(Some(&entry), &site, Writer::Request, &[]).unwrap().unwrap();
    assert!(reserved(&ledger, &entry, Timestamp::now()).await);
    let rows = || journal.storage().scan(BUDGET, None, 100).unwrap();
    assert!(rows().iter().all(|(key, _)| key.len() < 600), "a key is too long for an index");
    let [(subject, 4)] = &left(&ledger, LimitName::CertificatesPerNameSet, Timestamp::now())[..] else { panic!() };
    assert!(subject.starts_with("a-rather-long-label-0") && subject.ends_with("..."), "{subject}");
    let count = rows().len();
    forget_expired(&*journal.storage(), BUDGET, Timestamp::now());
    assert_eq!(rows().len(), count, "something stands in each");
    forget_expired(&*journal.storage(), BUDGET, Timestamp::now() + SignedDuration::from_hours(24 * 30));
    assert_eq!(rows().len(), 0);
}
