//! An issuer that is listed no more leaves nothing behind that stands in the way of the next one.

#![allow(clippy::unwrap_used)]

mod support;

use certseal_seal::SigningKey;
use certseal_wire::Kind;
use support::{Draft, Platform, checkpoint, handshake, name, only_refusal, page, server, signed};

const UP: Option<&str> = Some("http://127.0.0.1:1");

/// Every kind of record at the highest version that there is, signed by an issuer whose key was taken; then the ring
/// without it.
#[test]
fn versions_that_cannot_be_exceeded_end_with_the_issuer_that_signed_them() {
    let (mut platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let server = server(platform.resolver(&mirror), &rustls::version::TLS13);
    mirror.apply(&page([platform.simple("a.example", 3), platform.route("a.example", &["a.example"], 3, UP)])).unwrap();
    mirror.apply(&page([platform.accounts(3, &["ours"]), platform.checkpoint(3, &[])])).unwrap();
    let forged = [
        platform.simple("a.example", u64::MAX),
        platform.route("a.example", &["a.example"], u64::MAX, None),
        platform.accounts(u64::MAX, &["theirs"]),
        platform.checkpoint(u64::MAX, &[(Kind::Bundle, "b.example", u64::MAX)]),
    ];
    assert_eq!(mirror.apply(&page(forged)).unwrap().refused.len(), 0);
    assert_eq!(mirror.awaited_count(), 1);
    let taken = std::mem::replace(&mut platform.issuer, SigningKey::generate().unwrap());
    let honest = |platform: &Platform| {
        [
            platform.simple("a.example", 4),
            platform.route("a.example", &["a.example"], 4, UP),
            platform.accounts(4, &["ours"]),
            platform.checkpoint(4, &[]),
        ]
    };
    // The control: while the issuer is listed, the honest one is kept out by what it signed.
    mirror.apply(&page([platform.ring(2, &[&taken, &platform.issuer])])).unwrap();
    assert_eq!(mirror.apply(&page(honest(&platform))).unwrap().refused.len(), 4);
    assert!(handshake(&server, &platform.client(), "a.example").is_err(), "the site was said to have left");

    mirror.apply(&page([platform.ring(3, &[&platform.issuer])])).unwrap();
    assert_eq!(mirror.awaited_count(), 0, "what only the issuer listed who is gone is not awaited");
    let applied = mirror.apply(&page(honest(&platform))).unwrap();
    assert_eq!((applied.accepted, applied.refused.len()), (4, 0), "{applied:?}");
    handshake(&server, &platform.client(), "a.example").unwrap();
    assert_eq!(mirror.accounts().unwrap().thumbprints, ["ours"]);
    assert_eq!(mirror.route(&name("a.example")).unwrap().version, 4);
    // And from there on, nothing goes back.
    let older = platform.route("a.example", &["a.example"], 3, UP);
    assert!(only_refusal(&mirror.apply(&page([older])).unwrap()).contains("rolled it back"));
}

#[test]
fn up_to_the_floor_that_the_security_team_signs_older_versions_stay_out() {
    let (mut platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let route = |platform: &Platform, version| platform.route("a.example", &["a.example"], version, UP);
    mirror.apply(&page([route(&platform, 7)])).unwrap();
    mirror.apply(&page([platform.route("b.example", &["b.example"], u64::MAX, UP)])).unwrap();
    let taken = std::mem::replace(&mut platform.issuer, SigningKey::generate().unwrap());
    platform.floor = 100;
    mirror.apply(&page([platform.ring(2, &[&platform.issuer])])).unwrap();
    for (version, taken) in [(6, false), (7, false), (8, true)] {
        assert_eq!(mirror.apply(&page([route(&platform, version)])).unwrap().accepted == 1, taken, "version {version}");
    }
    for (version, taken) in [(100, false), (101, true)] {
        let route = platform.route("b.example", &["b.example"], version, UP);
        assert_eq!(mirror.apply(&page([route])).unwrap().accepted == 1, taken, "version {version}");
    }
    drop(taken);
}

#[test]
fn what_two_issuers_signed_is_one_line_of_versions_while_both_are_listed() {
    let (mut platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    mirror.apply(&page([platform.simple("a.example", 1), platform.simple("b.example", 1)])).unwrap();
    let server = server(platform.resolver(&mirror), &rustls::version::TLS13);
    let before = std::mem::replace(&mut platform.issuer, SigningKey::generate().unwrap());
    mirror.apply(&page([platform.ring(2, &[&before, &platform.issuer])])).unwrap();
    for site in ["a.example", "b.example"] {
        handshake(&server, &platform.client(), site).unwrap();
    }
    assert_eq!(mirror.apply(&page([platform.simple("a.example", 2)])).unwrap().accepted, 1);
    let older = platform.bundle(Draft { issuer: &before, ..platform.draft("a.example", &["a.example"], 1) });
    assert!(only_refusal(&mirror.apply(&page([older])).unwrap()).contains("rolled it back"));
    mirror.apply(&page([platform.ring(3, &[&platform.issuer])])).unwrap();
    handshake(&server, &platform.client(), "a.example").unwrap();
    assert!(handshake(&server, &platform.client(), "b.example").is_err(), "nobody signed it who counts");
}

/// The thief's version hid that the honest one's was missing.
#[test]
fn what_a_checkpoint_lists_is_missed_once_the_mark_that_hid_it_counts_no_more() {
    let (mut platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    mirror.apply(&page([platform.route("a.example", &["a.example"], u64::MAX, UP)])).unwrap();
    let taken = std::mem::replace(&mut platform.issuer, SigningKey::generate().unwrap());
    mirror.apply(&page([platform.ring(2, &[&taken, &platform.issuer])])).unwrap();
    mirror.apply(&page([platform.checkpoint(1, &[(Kind::Route, "a.example", 3)])])).unwrap();
    assert_eq!(mirror.awaited_count(), 0);
    mirror.apply(&page([platform.ring(3, &[&platform.issuer])])).unwrap();
    assert_eq!(mirror.awaited_count(), 1);
    mirror.apply(&page([platform.route("a.example", &["a.example"], 3, UP)])).unwrap();
    assert_eq!(mirror.awaited_count(), 0);
}

/// The awaited changes of a listed issuer may not be forgotten.
#[test]
fn what_an_issuer_awaits_stays_awaited_when_another_one_goes() {
    let (mut platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let before = std::mem::replace(&mut platform.issuer, SigningKey::generate().unwrap());
    mirror.apply(&page([platform.ring(2, &[&before, &platform.issuer])])).unwrap();
    let of = |key: &SigningKey, version, site| {
        signed(Kind::Checkpoint, "eu", version, key, &checkpoint(version, &[(Kind::Route, site, 1)]))
    };
    mirror.apply(&page([of(&before, 1, "a.example")])).unwrap();
    mirror.apply(&page([of(&platform.issuer, 2, "b.example")])).unwrap();
    mirror.apply(&page([platform.ring(3, &[&platform.issuer])])).unwrap();
    let awaited: Vec<_> = mirror.awaited(9).into_iter().map(|change| change.name).collect();
    assert_eq!(awaited, ["b.example"]);
}
