use std::path::Path;

use certseal_store::Transaction;

use super::*;
use crate::{
    records::{MARKS, RESTORING},
    tests::faulty::{At, vault},
};

/// Records of a backup are counted before any of them is deleted, and the audit log stays together.
#[test]
fn nothing_is_swept_while_a_backup_is_being_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, _) = vault(&dir.path().join("data"));
    expire_one_of_each(&vault);
    let files = audit_files(&dir.path().join("files"));
    for _ in 0..10 {
        vault.commit(AuditNote::new(&Actor::itself(), AuditAction::Other), Transaction::default()).unwrap();
    }
    let before = vault.storage().head().unwrap();
    // Another process began it: this one has not heard of it yet.
    vault.commit_unaudited(restoring().into()).unwrap();
    assert!(!vault.is_restoring());
    sweep(&vault, Some(&files));
    assert_eq!(expired(&vault), [1; 5]);
    assert!(!files.directory.exists());
    assert_eq!(vault.storage().head().unwrap().seq, before.seq + 1, "the mark itself");

    // The control: when the restore has ended, all of that is swept.
    vault.commit_unaudited(Write::delete(MARKS, RESTORING).into()).unwrap();
    sweep(&vault, Some(&files));
    assert_eq!(expired(&vault), [0; 5]);
    assert!(files.directory.read_dir().unwrap().count() > 0);
}

#[test]
fn a_restore_that_begins_in_the_middle_of_a_sweep_keeps_what_it_would_have_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, faulty) = vault(dir.path());
    expire_one_of_each(&vault);
    let other = vault.clone();
    faulty.meanwhile(At::BeforeCommit, move || {
        other.commit_unaudited(restoring().into()).unwrap();
    });
    sweep(&vault, None);
    assert!(faulty.is_done());
    assert_eq!(expired(&vault), [1; 5]);
}

#[test]
fn a_tombstone_outlives_a_restore_too() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, faulty) = vault(dir.path());
    let tombstone = Write::put(BUNDLES, "a.example", 2, Stored::encode(1, &[], &[])).expires_at(1);
    vault.commit_unaudited(tombstone.into()).unwrap();
    let other = vault.clone();
    faulty.meanwhile(At::BeforeCommit, move || {
        other.commit_unaudited(restoring().into()).unwrap();
    });
    sweep(&vault, None);
    assert_eq!(expired(&vault), [0, 0, 1, 0, 0]);
}

/// They come first, and there are more of them than one batch takes.
#[test]
fn bundles_that_are_not_ours_stay_and_hold_up_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, _) = vault(dir.path());
    let foreign = BATCH + 7;
    let put = |name: String, value| Write::put(BUNDLES, name, 1, value);
    let not_ours = |n| put(format!("foreign-{n:03}.example"), vec![1]).expires_at(1);
    vault.commit_unaudited((0..foreign).map(not_ours).collect()).unwrap();
    let ours = |n| put(format!("s{n:03}.example"), Stored::encode(1, &[], b"x")).expires_at(2);
    vault.commit_unaudited((0..foreign).map(ours).collect()).unwrap();
    vault.commit_unaudited(put("old.example".into(), Stored::encode(1, &[], &[])).expires_at(3).into()).unwrap();
    let elsewhere = [CHALLENGES, EDGES, ROUTES].map(|table| Write::put(table, "a.example", 1, "x").expires_at(4));
    vault.commit_unaudited(elsewhere.into_iter().collect()).unwrap();

    let bury_bundles: Batch = |vault, expired| bury(vault, Kind::Bundle, expired);
    assert_eq!(sweep_table(&vault, BUNDLES, bury_bundles).unwrap(), foreign);
    let buried = vault.storage().get(BUNDLES, b"s506.example").unwrap().unwrap();
    assert!(Stored::decode(&buried).unwrap().is_tombstone());
    assert!(vault.storage().get(BUNDLES, b"old.example").unwrap().is_none());
    sweep(&vault, None);
    let left = |table| vault.storage().expired(table, now(), 10_000).unwrap().len();
    assert_eq!(TABLES.map(left), [0, 0, foreign, 0, 0]);
    // With nothing else to do, and while nothing else happens, a sweep writes nothing.
    let head = vault.storage().head().unwrap();
    sweep(&vault, None);
    assert_eq!(vault.storage().head().unwrap(), head);
}

fn expire_one_of_each(vault: &Vault) {
    let write = |table| Write::put(table, "a.example", 1, Stored::encode(1, &[], b"x")).expires_at(1);
    vault.commit_unaudited(TABLES.map(write).into_iter().collect()).unwrap();
}

/// How much there is to sweep, by table.
fn expired(vault: &Vault) -> [usize; 5] {
    TABLES.map(|table| vault.storage().expired(table, now(), 10).unwrap().len())
}

fn restoring() -> Write {
    Write::put(MARKS, RESTORING, 1, Vec::new())
}

fn audit_files(directory: &Path) -> AuditFiles {
    AuditFiles { directory: directory.to_owned(), keep_entries: 2, entries_per_file: 4 }
}

const TABLES: [Table; 5] = [CHALLENGES, EDGES, BUNDLES, ROUTES, STAPLES];
