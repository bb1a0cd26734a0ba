//! Puts while others write in between, over damaged records, and with a storage that does not answer.

use axum::response::IntoResponse;

use certseal_store::Table;

use super::*;
use crate::{
    domain::presence,
    tests::{
        faulty::{At, Faulty, vault},
        put_waiting,
    },
};

/// A bundle that comes while its site leaves must not stay for as long as its certificate.
#[test]
fn a_bundle_that_comes_while_its_site_leaves_ends_with_the_site() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, faulty) = vault(dir.path());
    let other = vault.clone();
    faulty.meanwhile(At::BeforeCommit, move || put(&other, Kind::Route, 1, Lasts::UntilDeparted));
    put(&vault, Kind::Bundle, 1, Lasts::Until(FAR));
    assert!(faulty.is_done() && ends_soon(&vault), "{:?}", end(&vault));
}

#[test]
fn a_site_that_leaves_while_its_bundle_comes_takes_the_bundle_along() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, faulty) = vault(dir.path());
    let other = vault.clone();
    faulty.meanwhile(At::BeforeCommit, move || put(&other, Kind::Bundle, 1, Lasts::Until(FAR)));
    put(&vault, Kind::Route, 1, Lasts::UntilDeparted);
    assert!(faulty.is_done() && ends_soon(&vault), "{:?}", end(&vault));
}

/// A route's effect on the bundle rests on the route before it, which another process may replace right after it was read.
#[test]
fn a_site_that_leaves_and_is_back_at_one_time_keeps_no_end_that_does_not_fit_its_route() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, faulty) = vault(dir.path());
    put(&vault, Kind::Route, 1, Lasts::ForEver);
    put(&vault, Kind::Bundle, 1, Lasts::Until(FAR));
    let other = vault.clone();
    faulty.meanwhile(At::AfterGet(ROUTES), move || put(&other, Kind::Route, 2, Lasts::UntilDeparted));
    // The bundle is none that tells its own end: the second attempt, which sees that the site had left, has to ask it.
    let back = put_as(&vault, Kind::Route, 3, Lasts::ForEver).unwrap_err();
    assert!(faulty.is_done() && ends_soon(&vault), "{:?}", end(&vault));
    assert_eq!(back.0.kind, ProblemKind::Internal);
    assert_eq!(vault.get(Kind::Route, SITE).unwrap().unwrap().version, 2, "taken without the bundle's new end");
}

#[test]
fn a_good_record_takes_the_place_of_a_damaged_one() {
    for (kind, table) in [(Kind::Bundle, BUNDLES), (Kind::Route, ROUTES)] {
        let dir = tempfile::tempdir().unwrap();
        let (vault, faulty) = vault(dir.path());
        put(&vault, kind, 4, Lasts::Until(FAR));
        let revision = vault.get(kind, SITE).unwrap().unwrap().revision;
        damage(&faulty, table);
        assert_eq!(vault.get(kind, SITE).err().unwrap().0.kind, ProblemKind::Internal);
        assert!(put_as(&vault, kind, 5, Lasts::Until(FAR)).unwrap().changed, "{kind}");
        let stored = vault.get(kind, SITE).unwrap().unwrap();
        assert_eq!(stored.version, 5);
        assert!(stored.revision > revision + 1, "whoever read the damaged one must not meet its revision again");
    }
}

/// A site whose route cannot be read has not left: its bundle is renewed, and kept.
#[test]
fn a_bundle_is_stored_although_its_route_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, faulty) = vault(dir.path());
    put(&vault, Kind::Route, 1, Lasts::ForEver);
    damage(&faulty, ROUTES);
    assert!(put_as(&vault, Kind::Bundle, 1, Lasts::Until(FAR)).unwrap().changed);
    assert!(!ends_soon(&vault));
}

#[test]
fn a_site_leaves_although_its_bundle_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, faulty) = vault(dir.path());
    put(&vault, Kind::Bundle, 1, Lasts::Until(FAR));
    damage(&faulty, BUNDLES);
    assert!(put_as(&vault, Kind::Route, 1, Lasts::UntilDeparted).unwrap().changed);
    assert_eq!(presence::of_site(&vault, SITE).unwrap(), Presence::Departed);
}

#[test]
fn a_storage_that_fails_is_answered_as_one_that_is_not_there_now() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, faulty) = vault(dir.path());
    put(&vault, Kind::Route, 1, Lasts::ForEver);
    let failed = StoreError::Failed { cause: "canary".into() };
    let database = StoreError::Database { action: "read", cause: "canary".into() };
    for failure in [failed, database] {
        faulty.fail(Some(failure));
        let read = vault.get(Kind::Route, SITE).err().unwrap();
        let written = put_as(&vault, Kind::Route, 2, Lasts::ForEver).unwrap_err();
        for refusal in [read, written, vault.refresh().err().unwrap()] {
            assert!(!refusal.0.detail.contains("canary"), "the cause is for the log: {}", refusal.0.detail);
            assert_eq!(refusal.into_response().status(), 503);
        }
        faulty.fail(None);
    }
    assert_eq!(vault.get(Kind::Route, SITE).unwrap().unwrap().version, 1);
    // A damaged record, which another certstore would find too, is told as it is.
    damage(&faulty, ROUTES);
    assert_eq!(vault.get(Kind::Route, SITE).err().unwrap().into_response().status(), 500);
}

const SITE: &str = "a.example";
/// Seconds since 1970.
const FAR: u64 = 4_000_000_000;

fn put(vault: &Arc<Vault>, kind: Kind, version: u64, lasts: Lasts) {
    assert!(put_as(vault, kind, version, lasts).unwrap().changed);
}

fn put_as(vault: &Arc<Vault>, kind: Kind, version: u64, lasts: Lasts) -> Result<PutOutcome, Refusal> {
    let check = move |_: &Trusted| {
        let pools = vec!["eu".parse().unwrap()];
        let mut checked = Checked::new(kind, SITE.into(), version, pools, version.to_be_bytes().to_vec());
        checked.lasts = lasts;
        Ok(checked)
    };
    put_waiting(vault, Actor::itself(), check)
}

fn damage(faulty: &Faulty, table: Table) {
    faulty.damage(table, SITE.as_bytes());
}

fn end(vault: &Vault) -> Option<u64> {
    vault.get(Kind::Bundle, SITE).unwrap().unwrap().expires_at
}

fn ends_soon(vault: &Vault) -> bool {
    end(vault).is_some_and(|end| end <= now() + vault.retention().departed_seconds)
}
