//! Records of an earlier and of a later release: the mirror takes the former, and is not stopped by the latter.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use certseal_seal::SigningKey;
use certseal_wire::{Document, Event, Kind, Scheme};
use redb::{ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{Platform, event, name, only_refusal, page, signed};

/// A route as the first release signed it.
#[derive(Serialize, Deserialize)]
struct FirstRoute {
    site: String,
    names: Vec<String>,
    version: u64,
    pools: Vec<String>,
    upstream: Option<String>,
}

impl Document for FirstRoute {
    const LABEL: &'static str = "certseal route v1";
}

/// A route of the second form, with whatever members.
#[derive(Serialize, Deserialize)]
struct LaterRoute {
    /// First, as in every document that has more than one form.
    format: String,
    #[serde(flatten)]
    members: Value,
}

impl Document for LaterRoute {
    const LABEL: &'static str = "certseal route v2";
}

fn first(issuer: &SigningKey, version: u64, upstream: Option<&str>) -> Event {
    let site = "a.example".to_owned();
    let (names, pools) = (vec![site.clone()], vec!["eu".to_owned()]);
    let route = FirstRoute { site, names, version, pools, upstream: upstream.map(str::to_owned) };
    signed(Kind::Route, "a.example", version, issuer, &route)
}

/// A route with other members than those of this release.
fn later(issuer: &SigningKey, version: u64, more: Value) -> Event {
    let mut members = json!({
        "site": "a.example", "names": ["a.example"], "version": version, "pools": ["eu"],
        "upstreams": [{"origin": "http://127.0.0.1:2", "weight": 1}], "https": "redirect",
    });
    members.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    signed(Kind::Route, "a.example", version, issuer, &LaterRoute { format: "2".to_owned(), members })
}

#[test]
fn a_route_of_the_first_release_counts_and_is_followed_by_one_of_this() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    mirror.apply(&page([platform.simple("a.example", 1)])).unwrap();
    let up = Some("http://127.0.0.1:1");
    assert_eq!(mirror.apply(&page([first(&platform.issuer, 1, up)])).unwrap().accepted, 1);
    let route = mirror.route(&name("a.example")).unwrap();
    assert_eq!(route.upstreams[0].origin.authority(), "127.0.0.1:1");
    let up = Some("http://127.0.0.1:2");
    assert_eq!(mirror.apply(&page([platform.route("a.example", &["a.example"], 2, up)])).unwrap().accepted, 1);
    // Back again: an earlier certman goes on where this one was.
    assert_eq!(mirror.apply(&page([first(&platform.issuer, 3, None)])).unwrap().accepted, 1);
    assert!(mirror.is_empty() && mirror.route(&name("a.example")).is_none());
    // The forms do not pass for each other, though both are of one version.
    let mut forged: certseal_wire::Signed =
        serde_json::from_slice(&first(&platform.issuer, 4, up).body.unwrap().0).unwrap();
    let text = String::from_utf8(forged.payload.0).unwrap().replacen('{', r#"{"format":"2","#, 1);
    forged.payload.0 = text.into_bytes();
    let forged = event(Kind::Route, "a.example", 4, serde_json::to_vec(&forged).unwrap());
    assert!(only_refusal(&mirror.apply(&page([forged])).unwrap()).contains("altered"));
}

#[test]
fn what_a_later_route_has_is_ignored_unless_it_is_critical_and_then_the_route_before_stays() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let up = Some("http://127.0.0.1:1");
    mirror.apply(&page([platform.simple("a.example", 1), platform.route("a.example", &["a.example"], 1, up)])).unwrap();
    let version = || mirror.route(&name("a.example")).unwrap().version;

    let applied = mirror.apply(&page([later(&platform.issuer, 2, json!({"hsts": {"max_age": 300}}))])).unwrap();
    assert_eq!((applied.accepted, version()), (1, 2), "{applied:?}");
    let critical = json!({"rewrite": [1], "crit": ["rewrite"]});
    let applied = mirror.apply(&page([later(&platform.issuer, 3, critical)])).unwrap();
    assert!(only_refusal(&applied).contains("rewrite"), "{applied:?}");
    let tls = json!({"upstreams": [{"origin": "https://127.0.0.1:3", "weight": 1, "server_name": "b.example"}]});
    let applied = mirror.apply(&page([later(&platform.issuer, 3, tls)])).unwrap();
    assert!(only_refusal(&applied).contains("TLS"), "{applied:?}");
    assert_eq!(version(), 2);
    // It is remembered, and asked for again by the release that understands it.
    assert_eq!(mirror.refused_count(), 1);
    let route = mirror.route(&name("a.example")).unwrap();
    assert!(route.upstreams.iter().all(|upstream| upstream.origin.scheme() == Scheme::Http));
}

#[test]
fn records_of_an_unknown_kind_are_passed_over_and_read_by_the_release_that_knows_them() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let up = Some("http://127.0.0.1:1");
    let unknown: Kind = "fleet-ticket-keys".parse().unwrap();
    let events = [
        platform.simple("a.example", 1),
        event(unknown, "eu", 1, vec![0; 8]),
        event(unknown, "..%", 2, vec![0; 8]),
        platform.route("a.example", &["a.example"], 1, up),
        platform.checkpoint(1, &[(unknown, "eu", 1), (Kind::Route, "b.example", 1)]),
    ];
    let applied = mirror.apply(&page(events)).unwrap();
    assert_eq!((applied.accepted, applied.passed_over, applied.refused.len()), (3, 2, 0), "{applied:?}");
    assert_eq!((mirror.passed_over_total(), mirror.awaited_count()), (2, 1));
    assert!(mirror.route(&name("a.example")).is_some() && mirror.cursor().is_some());
    drop(mirror);

    // The same release again has nothing to read anew.
    let mirror = platform.open(dir.path());
    assert!(mirror.cursor().is_some());
    drop(mirror);
    assert_eq!(passed_over(dir.path(), None), "fleet-ticket-keys");
    // A release that knows the kind: here one that this release knows, in its place.
    passed_over(dir.path(), Some("later\nroute"));
    let mirror = platform.open(dir.path());
    assert_eq!(mirror.cursor(), None, "the feed is read from its start");
    assert!(mirror.route(&name("a.example")).is_some(), "and what was there is served meanwhile");
    drop(mirror);
    assert_eq!(passed_over(dir.path(), None), "later");
}

/// certstore chooses the words.
#[test]
fn of_unknown_kinds_no_more_are_remembered_than_a_release_could_bring() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let events: Vec<_> = (0..100).map(|n| event(format!("kind-{n}").parse().unwrap(), "eu", 1, vec![0])).collect();
    assert_eq!(mirror.apply(&page(events)).unwrap().passed_over, 100);
    drop(mirror);
    assert_eq!(passed_over(dir.path(), None).lines().count(), 64);
}

/// Reads the kinds that the mirror's file remembers as passed over; and puts another list there.
fn passed_over(dir: &Path, replaced: Option<&str>) -> String {
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    let database = redb::Database::open(dir.join("mirror.redb")).unwrap();
    if let Some(replaced) = replaced {
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("passed over", replaced.as_bytes()).unwrap();
        transaction.commit().unwrap();
    }
    let table = database.begin_read().unwrap().open_table(META).unwrap();
    let row = table.get("passed over").unwrap().unwrap();
    String::from_utf8(row.value().to_vec()).unwrap()
}
