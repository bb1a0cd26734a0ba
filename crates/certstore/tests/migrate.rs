//! The subcommand that moves the data, run as an operator runs it.
#![allow(clippy::unwrap_used)]

#[path = "../../store/tests/support/postgres.rs"]
mod postgres;

use std::process::{Command, Output};

use certseal_store::{PostgresOptions, PostgresStore, SledOptions, SledStore, Storage, StoreError, Table, Write};

use postgres::Server;

#[test]
fn data_moves_from_a_directory_to_a_database() {
    let (directory, database) = (tempfile::tempdir().unwrap(), Server::shared().database());
    let url = database.uri();
    let store = SledStore::open(directory.path(), SledOptions::default()).unwrap();
    store.commit(Write::put(TABLE, "a", 7, "v").event("a7").into()).unwrap();
    let head = store.head().unwrap();
    let from = format!("sled:{}", directory.path().display());

    let refused = migrate(&from, &url);
    assert!(!refused.status.success(), "a store that is in use was moved");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use"));
    drop(store);

    let moved = migrate(&from, &url);
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    assert!(String::from_utf8_lossy(&moved.stdout).starts_with("moved 1 records, 1 events and 0 audit entries"));
    let store = PostgresStore::open(PostgresOptions::new(&url)).unwrap();
    assert_eq!(store.head().unwrap(), head);
    assert_eq!(store.get(TABLE, b"a").unwrap().unwrap().version, 7);

    let left = SledStore::open(directory.path(), SledOptions::default()).map(drop);
    assert!(matches!(left, Err(StoreError::Moved { to, .. }) if to.starts_with("postgres://certseal@")));
    let again = migrate(&from, &url);
    assert!(!again.status.success());
    let missing = migrate("sled:/nowhere/at/all", &url);
    assert!(!missing.status.success());
}

fn migrate(from: &str, to: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_certstore")).args(["migrate", "--from", from, "--to", to]).output().unwrap()
}

const TABLE: Table = Table::new("t");
