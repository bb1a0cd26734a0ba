//! Backups: a store that was lost comes back from its file, in either engine, and a store moves from one to the other;
//! edges and certman go on by themselves.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use certseal_wire::{AuditAction, BackupRecord, DnsName, EdgeReport, ProblemKind, Renewal, RestoreRequest};
use jiff::Timestamp;

use crate::{
    audit,
    bad_input::refused,
    edge::{eventually, eventually_async},
    platform::{Authority, Platform},
    postgres::{Database, Server},
    process::{program, run},
    team::Load,
    tls_client::Connection,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_lost_comes_back_while_edge_and_certman_go_on_by_themselves() {
    let mut platform = Platform::start(Authority::Local).await;
    let root = platform.pki("local-ca.pem");
    let kept = sites(&platform, "kept", 3).await;
    let file = backup(&platform);
    let lost = sites(&platform, "lost", 1).await.remove(0);
    let all = [kept.clone(), vec![lost.clone()]].concat();
    let visitors = Load::start(&platform, &all, &root);
    let before = platform.store_as("admin").snapshot().await.unwrap().cursor;

    platform.certstore.kill();
    fs::remove_dir_all(platform.dir.path().join("certstore")).unwrap();
    platform.restart_certstore();
    let admin = platform.store_as("admin");
    assert_ne!(admin.snapshot().await.unwrap().cursor.epoch, before.epoch);
    // An edge that the backup does not know comes before the restore does.
    report(&platform, "us").await;
    refuses_damage(&platform, &file).await;
    // It serves nobody but who restores.
    let records = first_records(&file, 1);
    admin.restore(&RestoreRequest { records }).await.unwrap();
    for identity in ["edge-eu", "certman", "admin"] {
        refused(platform.store_as(identity).ring().await, ProblemKind::Unavailable, "being restored");
    }
    restore(&platform, &file);

    // The edge read everything anew, and kept what is only in its mirror.
    let after = admin.snapshot().await.unwrap().cursor;
    assert_ne!(after.epoch, before.epoch);
    for site in &kept {
        assert!(admin.bundle(site).await.unwrap().is_some(), "{site}");
    }
    let new = sites(&platform, "new", 1).await.remove(0);
    assert!(platform.curl(&root, &lost).status.success(), "{}", platform.edge.log());
    renewed(&platform, &kept[0]).await;
    // certman puts again what came after the backup.
    eventually_async("the lost site is back", async || {
        admin.bundle(&lost).await.unwrap().is_some() && admin.route(&lost).await.unwrap().is_some()
    })
    .await;
    renewed(&platform, &lost).await;
    let (handshakes, failed) = visitors.stop().await;
    println!("{handshakes} handshakes from before the loss until after the restore, {failed} of them failed");
    assert_eq!(failed, 0, "{}", platform.edge.log());
    // An edge that begins with an empty mirror has them all.
    platform.edge.kill();
    let mirror = platform.dir.path().join("mirror");
    if mirror.is_dir() { fs::remove_dir_all(mirror) } else { fs::remove_file(mirror) }.unwrap();
    platform.restart_edge();
    for site in all.iter().chain([&new]) {
        eventually(Duration::from_secs(20), || platform.curl(&root, site).status.success());
    }

    // The log of the new store is sound, and certman goes on looking at it.
    let verify = platform.certctl(&["audit", "verify"]);
    assert!(verify.status.success(), "{verify:?}");
    assert!(platform.certman.log().contains("certstore came back from a backup"), "{}", platform.certman.log());
    eventually_async("certman signs the new log", async || admin.audit_checkpoint().await.unwrap().is_some()).await;
    assert!(!platform.certman.log().contains("somebody may have tampered"), "{}", platform.certman.log());

    // There is something in it now.
    let again = platform.certctl(&["backup", "restore", file.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && text.contains("empty store only"), "{text}");
    admin.ring().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_the_embedded_store_comes_back_in_postgresql() {
    let database = Server::shared().database();
    let mut platform = Platform::start(Authority::Local).await;
    let root = platform.pki("local-ca.pem");
    let kept = sites(&platform, "kept", 3).await;
    let file = backup(&platform);
    let visitors = Load::start(&platform, &kept, &root);
    platform.certstore.kill();
    configure(&platform, &database);
    platform.restart_certstore();
    restore(&platform, &file);
    sites(&platform, "new", 1).await;
    renewed(&platform, &kept[0]).await;
    let verify = platform.certctl(&["audit", "verify"]);
    assert!(verify.status.success(), "{verify:?}");
    // And back from there.
    let second = platform.dir.path().join("second.backup");
    assert!(platform.certctl(&["backup", "create", "--to", second.to_str().unwrap()]).status.success());
    let (handshakes, failed) = visitors.stop().await;
    assert_eq!(failed, 0, "{failed} of {handshakes} handshakes failed\n{}", platform.edge.log());
    platform.certstore.kill();
    platform.edge.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_moves_to_postgresql_keeps_its_epoch_and_the_cursors_of_edges() {
    let database = Server::shared().database();
    let mut platform = Platform::start(Authority::Local).await;
    let root = platform.pki("local-ca.pem");
    let moved = sites(&platform, "moved", 3).await;
    let visitors = Load::start(&platform, &moved, &root);
    let before = platform.store_as("admin").snapshot().await.unwrap().cursor;
    platform.certstore.kill();
    let data = platform.dir.path().join("certstore");
    run(Command::new(program("certstore")).args([
        "migrate",
        "--from",
        &format!("sled:{}", data.display()),
        "--to",
        &database.uri(),
    ]));
    configure(&platform, &database);
    platform.restart_certstore();

    sites(&platform, "new", 1).await;
    renewed(&platform, &moved[0]).await;
    let (handshakes, failed) = visitors.stop().await;
    assert_eq!(failed, 0, "{failed} of {handshakes} handshakes failed\n{}", platform.edge.log());
    // Also after a restart of the edge.
    platform.edge.kill();
    platform.restart_edge();
    sites(&platform, "newest", 1).await;
    let admin = platform.store_as("admin");
    let records = audit::verified(&admin).await;
    let by_edge = |record: &&certseal_wire::AuditRecord| {
        record.by == "edge/eu/edge-1" && record.action == AuditAction::ReadSealed
    };
    let reads: Vec<_> = records.iter().filter(by_edge).filter_map(|record| record.detail.as_deref()).collect();
    let snapshots = reads.iter().filter(|detail| detail.starts_with("snapshot")).count();
    assert!(snapshots <= 1 && reads.iter().any(|detail| detail.starts_with("feed")), "{reads:?}");
    assert!(!platform.edge.log().contains("beginning with a snapshot"), "{}", platform.edge.log());
    assert_eq!(admin.snapshot().await.unwrap().cursor.epoch, before.epoch);
    assert!(!platform.certman.log().contains("came back from a backup"), "{}", platform.certman.log());
    platform.certstore.kill();
}

/// Adds sites, and waits until the edge serves them.
async fn sites(platform: &Platform, prefix: &str, count: usize) -> Vec<DnsName> {
    let names: Vec<DnsName> = (0..count).map(|n| format!("{prefix}-{n}.customers.test").parse().unwrap()).collect();
    for name in &names {
        platform.add_site(name).await;
    }
    for name in &names {
        platform.wait_active(name, 1).await;
        eventually(Duration::from_secs(20), || platform.curl(&platform.pki("local-ca.pem"), name).status.success());
    }
    names
}

/// Renews a site, and waits until the edge serves the new certificate.
async fn renewed(platform: &Platform, name: &DnsName) {
    let root = platform.pki("local-ca.pem");
    let served = async || Connection::open(platform.addresses["https"], name, &root).await.unwrap().chain[0].clone();
    let before = served().await;
    let certman = platform.certman_as("platform");
    let version = certman.site(name).await.unwrap().unwrap().version;
    certman.renew(name, &Renewal::default()).await.unwrap();
    platform.wait_active(name, version + 1).await;
    eventually_async("the renewed certificate is served", async || served().await != before).await;
}

/// Makes a backup and verifies it.
fn backup(platform: &Platform) -> PathBuf {
    let file = platform.dir.path().join("certstore.backup");
    let path = file.to_str().unwrap();
    let created = platform.certctl(&["backup", "create", "--to", path]);
    assert!(created.status.success(), "{created:?}");
    let verified = platform.certctl(&["backup", "verify", path]);
    assert!(verified.status.success(), "{verified:?}");
    file
}

fn restore(platform: &Platform, file: &Path) {
    let restored = platform.certctl(&["backup", "restore", file.to_str().unwrap()]);
    assert!(restored.status.success(), "{restored:?}\n{}", platform.certstore.log());
}

/// A backup with one wrong octet is refused before certstore hears of it.
async fn refuses_damage(platform: &Platform, file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = platform.dir.path().join("damaged.backup");
    fs::write(&damaged, bytes).unwrap();
    let outcome = platform.certctl(&["backup", "restore", damaged.to_str().unwrap()]);
    assert!(!outcome.status.success(), "{outcome:?}");
    // It serves, and is as empty as before.
    assert!(platform.store_as("admin").ring().await.unwrap().is_none());
    let records = audit::verified(&platform.store_as("admin")).await;
    assert!(records.iter().all(|record| record.action != AuditAction::Restore));
}

/// The first records in a backup.
fn first_records(file: &Path, count: usize) -> Vec<BackupRecord> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).take(count).collect()
}

/// An edge of `pool` says how it is.
async fn report(platform: &Platform, pool: &str) {
    let report = EdgeReport {
        pool: pool.parse().unwrap(),
        name: "edge-1".into(),
        at: Timestamp::now(),
        program: "test".into(),
        ring: 1,
        keys: Vec::new(),
        caught_up: true,
        cursor: None,
        bundles: 0,
        refused: 0,
        drill: None,
    };
    platform.store_as(&format!("edge-{pool}")).report(&report).await.unwrap();
}

/// Has certstore keep its data in the database, from its next start on.
fn configure(platform: &Platform, database: &Database) {
    let config = platform.dir.path().join("certstore.toml");
    let text = fs::read_to_string(&config).unwrap();
    let old = text.lines().find(|line| line.starts_with("data_dir = ")).unwrap();
    let snapshots = platform.dir.path().join("snapshots");
    let new = format!("postgres = {{ url = \"{}\" }}\nsnapshot_dir = \"{}\"", database.url(), snapshots.display());
    fs::write(&config, text.replace(old, &new)).unwrap();
}
