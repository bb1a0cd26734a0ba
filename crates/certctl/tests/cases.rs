//! The command line as case files say it is: help, errors of arguments with their exit codes, and what works without a daemon.
//!
//! `TRYCMD=overwrite cargo test -p certctl --test cases` writes the outputs in them anew.

#![allow(clippy::unwrap_used)]

#[path = "../../ceremonies/tests/fake/mod.rs"]
mod fake;

use std::{fs, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::get,
};
use certseal_ceremonies::{keys::list_issuer, pki};
use certseal_seal::SigningKey;
use certseal_wire::{AuditCheckpoint, AuditLine, AuditMark, AuditPage, AuditQuery, Cursor, KeyRing};
use jiff::Timestamp;
use trycmd::TestCases;

#[test]
fn the_command_line_is_as_the_cases_say() {
    refuse_settings();
    TestCases::new().case("tests/cases/*.md").case("tests/cases/*.toml");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_certstore_is_as_the_cases_say() {
    refuse_settings();
    let dir = tempfile::tempdir().unwrap();
    pki::init(dir.path(), &Default::default()).unwrap();
    let (url, _shutdown) = fake::serve(dir.path(), "certstore", certstore(dir.path())).await;
    let path = |file: &str| dir.path().join(file).to_str().unwrap().to_owned();
    let cases = TestCases::new();
    cases.env("CERTCTL_STORE", url).env("CERTCTL_STATE", path("state"));
    for (setting, file) in
        [("CA", "ca.pem"), ("CERT", "admin.pem"), ("KEY", "admin.key"), ("SECURITY_PUBLIC", "security.pub")]
    {
        cases.env(format!("CERTCTL_{setting}"), path(file));
    }
    cases.case("tests/cases/online/*.md").case("tests/cases/online/*.toml");
    // The cases are run when this is dropped, which takes its time.
    tokio::task::spawn_blocking(move || drop(cases)).await.unwrap();
}

/// The person who runs the tests may have settings of certctl. Help shows them, and commands follow them.
fn refuse_settings() {
    let set: Vec<_> = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("CERTCTL_")).collect();
    assert!(set.is_empty(), "unset {} before this test", set.join(", "));
}

/// A certstore that keeps the entries of `store.jsonl`, with a checkpoint of the last one.
fn certstore(pki: &std::path::Path) -> Router {
    let key = |file: &str| SigningKey::from_pem(&fs::read_to_string(pki.join(file)).unwrap()).unwrap();
    let (security, issuer) = (key("security.key"), key("issuer.key"));
    let mut ring = KeyRing { version: 1, ..KeyRing::default() };
    list_issuer(&mut ring, &issuer.verifying_key());
    let ring = security.sign(&ring);
    let log = Log::read();
    let checkpoint = issuer.sign(&AuditCheckpoint { head: log.head(), at: Timestamp::now() });
    Router::new()
        .route("/v1/ring", get(move || async move { Json(ring) }))
        .route("/v1/audit/checkpoint", get(move || async move { Json(checkpoint) }))
        .route("/v1/audit", get(page))
        .with_state(Arc::new(log))
}

/// The part of its log that a certstore keeps, and the mark before that.
struct Log {
    start: AuditMark,
    entries: Vec<AuditLine>,
}

impl Log {
    fn read() -> Self {
        let lines = |file: &str| -> Vec<AuditLine> {
            let text = fs::read_to_string(format!("tests/cases/online/audit.in/{file}")).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let before = lines("log/audit-000000000001-000000000002.jsonl");
        Self { start: before.last().unwrap().mark, entries: lines("store.jsonl") }
    }

    fn head(&self) -> AuditMark {
        self.entries.last().unwrap().mark
    }
}

async fn page(State(log): State<Arc<Log>>, Query(query): Query<AuditQuery>) -> Json<AuditPage> {
    let after = query.after.unwrap_or(0);
    let entries = log.entries.iter().filter(|line| line.mark.number > after);
    let entries = entries.take(query.limit.unwrap_or(usize::MAX)).cloned().collect();
    let feed: Cursor = "00000000000000000000000000000007:40".parse().unwrap();
    Json(AuditPage { start: log.start, head: log.head(), entries, feed })
}
