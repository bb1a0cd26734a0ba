//! OCSP answers: which certificate they go with, until when, and which ones the mirror takes.

#![allow(clippy::unwrap_used)]

mod support;

use certseal_resolver::{Mirror, MirrorError};
use certseal_seal::SigningKey;
use certseal_wire::{Event, HttpsMode, Kind, Route, Staple};
use jiff::{SignedDuration, Timestamp};
use support::{Platform, event, handshake, name, name_set, only_refusal, page, pool, server};

fn far() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24)
}

#[test]
fn an_answer_goes_with_its_certificate_and_with_no_other() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let resolver = platform.resolver(&mirror);
    let answer = || resolver.certificate(&name("a.example")).unwrap().ocsp.clone();
    let (first, second) = (platform.simple("a.example", 1), platform.simple("a.example", 2));
    mirror.apply(&page([first.clone()])).unwrap();
    assert_eq!(answer(), None);
    // What is in the cache gives way to each newer answer.
    for version in [1, 2] {
        let staple = platform.staple(&first, version, far());
        let applied = mirror.apply(&page([staple.clone()])).unwrap();
        assert_eq!((applied.accepted, applied.changed.len()), (1, 1), "{applied:?}");
        assert_eq!(answer(), Some(format!("answer {version}").into_bytes()));
        for again in [staple.clone(), Event { body: None, ..staple }] {
            let applied = mirror.apply(&page([again])).unwrap();
            assert_eq!((applied.unchanged, applied.changed.len()), (1, 0), "{applied:?}");
        }
    }
    // The next certificate has none until its own comes.
    mirror.apply(&page([second.clone()])).unwrap();
    assert_eq!(answer(), None);
    mirror.apply(&page([platform.staple(&second, 3, far())])).unwrap();
    assert_eq!(answer(), Some(b"answer 3".to_vec()));
    // It is there after a restart.
    drop(resolver);
    drop(mirror);
    let mirror = platform.open(dir.path());
    assert!(platform.resolver(&mirror).certificate(&name("a.example")).unwrap().ocsp.is_some());
}

#[test]
fn no_answer_is_served_that_has_run_out_and_the_opened_key_stays() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let resolver = platform.resolver(&mirror);
    let server = server(resolver.clone(), &rustls::version::TLS13);
    let bundle = platform.simple("a.example", 1);
    let end = Timestamp::now() + SignedDuration::from_secs(2);
    mirror.apply(&page([bundle.clone(), platform.staple(&bundle, 1, end)])).unwrap();
    let has_answer = || resolver.certificate(&name("a.example")).unwrap().ocsp.is_some();
    handshake(&server, &platform.client(), "a.example").unwrap();
    assert!(has_answer());
    while Timestamp::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(!has_answer());
    handshake(&server, &platform.client(), "a.example").unwrap();
    assert_eq!(resolver.counts().unsealed, 1);
    // Nor one that had run out before it was loaded.
    mirror.apply(&page([platform.staple(&bundle, 2, end)])).unwrap();
    assert!(!has_answer());
    mirror.apply(&page([platform.staple(&bundle, 3, far())])).unwrap();
    assert!(has_answer(), "the control");
}

#[test]
fn an_answer_is_taken_from_an_issuer_that_counts_for_its_site_and_pool_and_never_in_an_older_version() {
    let platform = Platform::new();
    let bundle = platform.simple("a.example", 1);
    let good = || platform.answer(&bundle, 2, far());
    let stranger = SigningKey::generate().unwrap();
    let foreign = support::signed(Kind::Staple, "a.example", 2, &stranger, &good());
    let older = platform.answer(&bundle, 1, far());
    let other = Staple { response: certseal_wire::Base64(b"other".to_vec()), ..platform.answer(&bundle, 2, far()) };
    let cases: Vec<(Event, &str)> = vec![
        (foreign, "none of the trusted ones"),
        (Event { name: "b.example".into(), ..platform.staple_of(good()) }, "a.example"),
        (platform.staple_of(Staple { pools: vec![pool("us")], ..good() }), "may not serve it"),
        (platform.staple_of(older), "rolled it back"),
        (platform.staple_of(other), "not the same"),
        (event(Kind::Staple, "a.example", 3, b"nonsense".to_vec()), "as JSON"),
        (Event { body: None, version: 3, ..platform.staple_of(good()) }, "did not hand it out"),
    ];
    for (bad, reason) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mirror = platform.mirror(dir.path());
        let resolver = platform.resolver(&mirror);
        mirror.apply(&page([bundle.clone(), platform.staple_of(good())])).unwrap();
        let refused = mirror.apply(&page([bad])).unwrap();
        assert!(only_refusal(&refused).contains(reason), "{reason}: {refused:?}");
        assert_eq!(resolver.certificate(&name("a.example")).unwrap().ocsp, Some(b"answer 2".to_vec()), "{reason}");
        assert_eq!(mirror.refused_count(), 1);
        // certstore has it no more: nothing is lost with it.
        mirror.forgive_unknown(&mirror.refused(None, 10)).unwrap();
        assert_eq!(mirror.refused_count(), 0, "{reason}");
        assert_eq!(mirror.apply(&page([platform.staple(&bundle, 4, far())])).unwrap().accepted, 1, "the control");
    }
}

#[test]
fn an_answer_goes_with_its_site_or_at_its_end_and_not_because_certstore_says_so() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let resolver = platform.resolver(&mirror);
    let (names, up): (&[&str], _) = (&["a.example"], Some("http://127.0.0.1:1"));
    let bundle = platform.simple("a.example", 1);
    let has_answer = || resolver.certificate(&name("a.example")).unwrap().ocsp.is_some();
    let first = page([platform.route("a.example", names, 1, up), bundle.clone(), platform.staple(&bundle, 1, far())]);
    mirror.apply(&first).unwrap();
    let deleted = |version| Event { deleted: true, body: None, ..event(Kind::Staple, "a.example", version, vec![]) };
    assert_eq!(mirror.apply(&page([deleted(1)])).unwrap().accepted, 0);
    assert!(has_answer(), "it is good, and stays");
    mirror.apply(&page([platform.staple(&bundle, 2, Timestamp::now())])).unwrap();
    assert_eq!(mirror.apply(&page([deleted(2)])).unwrap().accepted, 1, "it has run out");
    assert_eq!(mirror.apply(&page([deleted(2)])).unwrap().accepted, 0);

    // The site goes to another pool: certstore announces its answers, and does not hand them out any more.
    mirror.apply(&page([platform.staple(&bundle, 3, far())])).unwrap();
    let moved = Route {
        site: name("a.example"),
        names: name_set(names),
        version: 2,
        pools: vec![pool("us")],
        upstreams: vec!["http://127.0.0.1:1".parse::<certseal_wire::Upstream>().unwrap().into()],
        https: HttpsMode::Redirect,
    };
    mirror.apply(&page([support::signed(Kind::Route, "a.example", 2, &platform.issuer, &moved)])).unwrap();
    let announced = Event { body: None, version: 4, ..platform.staple(&bundle, 3, far()) };
    let applied = mirror.apply(&page([announced])).unwrap();
    assert_eq!((applied.refused.len(), mirror.refused_count()), (0, 0), "{applied:?}");
    // An answer for a site that is not here waits for nothing, and keeps its version.
    assert_eq!(mirror.apply(&page([platform.staple(&bundle, 5, far())])).unwrap().refused.len(), 0);
    let back = page([platform.route("a.example", names, 3, up), bundle.clone()]);
    mirror.apply(&back).unwrap();
    assert!(!has_answer());
    assert!(
        only_refusal(&mirror.apply(&page([platform.staple(&bundle, 4, far())])).unwrap()).contains("rolled it back")
    );
    mirror.apply(&page([platform.staple(&bundle, 6, far())])).unwrap();
    assert!(has_answer());
}

/// A mirror of the release before has no table for them.
#[test]
fn a_mirror_of_the_release_before_is_taken_over_and_keeps_its_pool() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let bundle = platform.simple("a.example", 1);
    platform.mirror(dir.path()).apply(&page([bundle.clone()])).unwrap();
    let before = || {
        let database = redb::Database::open(dir.path().join("mirror.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let staples: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("staples");
        assert!(transaction.delete_table(staples).unwrap());
        transaction.commit().unwrap();
    };
    before();
    let other_pool = Mirror::open(dir.path(), pool("us"), platform.security.verifying_key());
    assert!(matches!(other_pool, Err(MirrorError::Pool { .. })));
    before();
    let mirror = platform.open(dir.path());
    assert_eq!(mirror.bundle_count(), 1);
    mirror.apply(&page([platform.staple(&bundle, 1, far())])).unwrap();
    assert!(platform.resolver(&mirror).certificate(&name("a.example")).unwrap().ocsp.is_some());
}
