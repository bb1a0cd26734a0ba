//! The audit log: complete, chained, witnessed.

use std::time::{Duration, Instant};

use certseal_client::StoreClient;
use certseal_seal::{VerifyingKey, VerifyingKeys, sha256};
use certseal_wire::{
    AuditAction, AuditCheckpoint, AuditLine, AuditMark, AuditOutcome, AuditQuery, AuditRecord, Digest, DnsName,
};

use crate::{
    platform::{Authority, Platform},
    tls_client::Connection,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_and_every_read_of_a_sealed_key_is_in_the_log_which_is_a_chain_that_certman_signs() {
    let mut platform = Platform::start(Authority::Local).await;
    let name: DnsName = "audited.customers.test".parse().unwrap();
    // An edge that begins later would read the bundle in its snapshot.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !platform.is_ready("edge-telemetry") {
        assert!(Instant::now() < deadline, "{}", platform.edge.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    platform.add_site(&name).await;
    platform.wait_active(&name, 1).await;
    let root = platform.pki("local-ca.pem");
    let deadline = Instant::now() + Duration::from_secs(20);
    while Connection::open(platform.addresses["https"], &name, &root).await.is_err() {
        assert!(Instant::now() < deadline, "{}", platform.edge.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let admin = platform.store_as("admin");
    admin.bundle(&name).await.unwrap().unwrap();
    // Refused requests are noted too.
    let ring = admin.ring().await.unwrap().unwrap();
    platform.store_as("edge-eu").put_ring(&ring).await.unwrap_err();
    // So is a request for another pool's site, though its caller is told that it is not there. A site that nobody has
    // is no refusal.
    let other: DnsName = "nobodys.customers.test".parse().unwrap();
    for site in [&name, &other] {
        assert!(platform.store_as("edge-us").bundle(site).await.unwrap().is_none());
        assert!(platform.store_as("edge-us").route(site).await.unwrap().is_none());
    }
    assert!(platform.store_as("edge-us").checkpoint(&"eu".parse().unwrap()).await.unwrap().is_none());

    let records = verified(&platform.store_as("admin")).await;
    let did = |by: &'static str, action: AuditAction, outcome: AuditOutcome| {
        records.iter().filter(move |record| record.by == by && record.action == action && record.outcome == outcome)
    };
    let on_site = |record: &&AuditRecord| record.targets.contains(&name.to_string());
    assert_eq!(did("issuer/certman-1", AuditAction::PutRoute, AuditOutcome::Done).filter(on_site).count(), 1);
    let put = did("issuer/certman-1", AuditAction::PutBundle, AuditOutcome::Done).find(on_site).unwrap();
    let bundle = admin.bundle(&name).await.unwrap().unwrap();
    assert_eq!((put.version, put.digest), (Some(1), Some(sha256(&bundle))));
    assert_eq!(put.from.map(|from| from.is_loopback()), Some(true));
    assert_eq!(did("admin/admin-1", AuditAction::ReadSealed, AuditOutcome::Done).filter(on_site).count(), 1);
    let mut by_edge = did("edge/eu/edge-1", AuditAction::ReadSealed, AuditOutcome::Done);
    let is_page = |record: &AuditRecord| record.detail.as_ref().is_some_and(|detail| detail.contains("1 bundles"));
    assert!(by_edge.any(is_page), "the edge read it in the feed");
    assert_eq!(did("admin/admin-1", AuditAction::PutRing, AuditOutcome::Done).count(), 2);
    assert!(did("edge/eu/edge-1", AuditAction::ReportEdge, AuditOutcome::Done).count() >= 1);
    let refused = did("edge/eu/edge-1", AuditAction::Other, AuditOutcome::Refused).next().unwrap();
    assert_eq!(refused.detail.as_deref(), Some("PUT /v1/ring: 403 Forbidden"));
    let asked = did("edge/us/edge-1", AuditAction::Other, AuditOutcome::Refused);
    let asked: Vec<_> = asked.map(|record| (record.detail.as_deref().unwrap(), record.targets.as_slice())).collect();
    let (site, pool) = ([name.to_string()], ["eu".to_owned()]);
    let expected: [(&str, &[String]); 3] = [
        ("the bundle of another pool", &site),
        ("the route of another pool", &site),
        ("the checkpoint of another pool", &pool),
    ];
    assert_eq!(asked, expected);

    // certman signs what it saw, and a killed certstore goes on with the same chain.
    let before = platform.store_as("certman").audit(&AuditQuery::default()).await.unwrap().head;
    platform.certstore.kill();
    platform.restart_certstore();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(Some(signed)) = platform.store_as("admin").audit_checkpoint().await {
            let issuer = VerifyingKey::from_pem(&std::fs::read_to_string(platform.pki("issuer.pub")).unwrap()).unwrap();
            let checkpoint: AuditCheckpoint = VerifyingKeys::from_iter([issuer]).verify(&signed).unwrap();
            if checkpoint.head.number > before.number {
                let lines = lines(&platform.store_as("admin")).await;
                let at = lines.iter().find(|line| line.mark.number == checkpoint.head.number).unwrap();
                assert_eq!(at.mark, checkpoint.head);
                break;
            }
        }
        assert!(Instant::now() < deadline, "certman does not go on: {}", platform.certman.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = verified(&platform.store_as("admin")).await;
    assert!(after.len() > records.len() && after[..records.len()] == records[..], "the log was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_entries_move_into_files_and_the_chain_goes_on() {
    let mut platform = Platform::start(Authority::Local).await;
    let files = platform.dir.path().join("audit");
    platform.configure_certstore(&format!(
        "[audit_files]\ndirectory = \"{}\"\nkeep_entries = 5\nentries_per_file = 10\n",
        files.display()
    ));
    let admin = platform.store_as("admin");
    let deadline = Instant::now() + Duration::from_secs(60);
    let start = loop {
        let page = admin.audit(&AuditQuery::default()).await.unwrap();
        if page.start.number >= 20 {
            break page.start;
        }
        assert!(Instant::now() < deadline, "{}", platform.certstore.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let mut names: Vec<_> = std::fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let moved: Vec<AuditLine> = names
        .iter()
        .take(start.number as usize / 10)
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<AuditLine>>()
        })
        .collect();
    assert_eq!(moved.last().unwrap().mark, start, "the files end where the store begins");
    check_chain(Digest([0; 32]), 0, &moved);
    verified(&platform.store_as("admin")).await;
}

/// All that the store has of the log, after a look at its chain.
pub async fn verified(store: &StoreClient) -> Vec<AuditRecord> {
    loop {
        let start = start(store).await;
        let lines = lines(store).await;
        // Entries that moved into a file between two pages are not a hole.
        if start != self::start(store).await {
            continue;
        }
        check_chain(start.hash, start.number, &lines);
        return lines.iter().map(|line| serde_json::from_str(&line.entry).unwrap()).collect();
    }
}

/// Where what the store has of the log begins.
async fn start(store: &StoreClient) -> AuditMark {
    store.audit(&AuditQuery { after: None, limit: Some(1) }).await.unwrap().start
}

async fn lines(store: &StoreClient) -> Vec<AuditLine> {
    let (mut lines, mut after) = (Vec::new(), None);
    loop {
        let page = store.audit(&AuditQuery { after, limit: Some(7) }).await.unwrap();
        let Some(last) = page.entries.last() else { return lines };
        after = Some(last.mark.number);
        lines.extend(page.entries);
    }
}

/// The chain as its documentation says, computed here once more.
fn check_chain(mut hash: Digest, mut number: u64, lines: &[AuditLine]) {
    assert!(!lines.is_empty());
    for line in lines {
        number += 1;
        let number_bytes = number.to_be_bytes();
        hash = sha256(&[b"certseal audit v1".as_slice(), &hash.0, &number_bytes, line.entry.as_bytes()].concat());
        assert_eq!((line.mark.number, line.mark.hash), (number, hash), "{}", line.entry);
    }
}
