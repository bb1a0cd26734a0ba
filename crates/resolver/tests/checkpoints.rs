//! A store that withholds news is seen: by what a checkpoint lists, and by its date.

#![allow(clippy::unwrap_used)]

mod support;

use certseal_seal::SigningKey;
use certseal_wire::{Checkpoint, Event, Kind};
use jiff::Timestamp;
use support::{Platform, checkpoint, name, only_refusal, page, pool, signed};

const UP: Option<&str> = Some("http://127.0.0.1:1");

#[test]
fn what_a_checkpoint_lists_and_the_feed_did_not_bring_is_missing_until_it_comes() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let route = |version| platform.route("a.example", &["a.example"], version, UP);
    // The control: an item that came, in the version that is listed or in a newer one, is not missing.
    let feed = [
        route(2),
        platform.simple("a.example", 1),
        platform.checkpoint(1, &[(Kind::Ring, "", 1), (Kind::Route, "a.example", 1), (Kind::Bundle, "a.example", 1)]),
    ];
    assert_eq!(mirror.apply(&page(feed)).unwrap().accepted, 3);
    assert_eq!((mirror.awaited(10), mirror.awaited_count()), (vec![], 0));

    let listed = [
        (Kind::Ring, "", 2),
        (Kind::Route, "a.example", 3),
        (Kind::Bundle, "a.example", 2),
        (Kind::Bundle, "b.example", 1),
    ];
    mirror.apply(&page([platform.checkpoint(2, &listed)])).unwrap();
    let names = || mirror.awaited(10).iter().map(ToString::to_string).collect::<Vec<_>>();
    let (a, b, ring) = ("bundle a.example version 2", "bundle b.example version 1", "ring  version 2");
    assert_eq!(names(), [a, b, ring, "route a.example version 3"]);
    assert_eq!(mirror.awaited(2).len(), 2);

    // It stays missing when later checkpoints do not list it any more, and after a restart.
    mirror.apply(&page([platform.checkpoint(3, &[])])).unwrap();
    drop(mirror);
    let mirror = platform.open(dir.path());
    let names = || mirror.awaited(10).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(mirror.awaited_count(), 4);

    mirror.apply(&page([route(4), platform.ring(2, &[&platform.issuer])])).unwrap();
    assert_eq!(names(), [a, b]);
    // A refused item goes on missing, and an older version does not help.
    let altered = Event { body: Some(certseal_wire::Base64(b"x".to_vec())), ..platform.simple("b.example", 1) };
    mirror.apply(&page([altered])).unwrap();
    assert_eq!((names(), mirror.refused_count()), (vec![a.to_owned(), b.to_owned()], 1));
    mirror.apply_items(&[platform.simple("a.example", 2), platform.simple("b.example", 1)]).unwrap();
    assert_eq!((names(), mirror.refused_count()), (vec![], 0));
}

#[test]
fn a_checkpoint_counts_only_from_the_issuer_for_this_pool_and_forwards() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let missing: &[_] = &[(Kind::Route, "a.example", 1)];
    mirror.apply(&page([platform.checkpoint(5, &[])])).unwrap();
    let us = Checkpoint { pool: pool("us"), ..checkpoint(6, missing) };
    let stranger = SigningKey::generate().unwrap();
    for (case, bad, reason) in [
        ("older", platform.checkpoint(4, missing), "rolled it back"),
        ("rewritten", platform.checkpoint(5, missing), "not the same"),
        ("another pool's", signed(Kind::Checkpoint, "eu", 6, &platform.issuer, &us), "the checkpoint of pool us"),
        ("under another name", Event { name: "us".into(), ..platform.checkpoint(6, missing) }, "of pool eu"),
        ("a stranger's", signed(Kind::Checkpoint, "eu", 6, &stranger, &checkpoint(6, missing)), "none of the trusted"),
        ("no pool", Event { name: "../eu".into(), ..platform.checkpoint(6, missing) }, "expected a pool name"),
        ("another kind", Event { kind: Kind::Checkpoint, name: "eu".into(), ..platform.accounts(6, &[]) }, "altered"),
    ] {
        let refused = mirror.apply(&page([bad])).unwrap();
        assert!(only_refusal(&refused).contains(reason), "{case}: {refused:?}");
        assert_eq!(mirror.checkpoint_issued_at(), Some(Timestamp::from_second(5 * 60).unwrap()), "{case}");
        assert_eq!(mirror.awaited_count(), 0, "{case}");
    }
    // The control: the next genuine one counts.
    mirror.apply(&page([platform.checkpoint(6, missing)])).unwrap();
    assert_eq!(mirror.awaited_count(), 1);
    assert_eq!(mirror.checkpoint_issued_at(), Some(Timestamp::from_second(6 * 60).unwrap()));
}

#[test]
fn the_bundle_of_a_site_that_has_left_is_not_missing() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let route = |version, up| platform.route("a.example", &["a.example"], version, up);
    let bundle: &[_] = &[(Kind::Bundle, "a.example", 1)];
    // Whether it left before the checkpoint came or after: certstore hands the bundle out no more.
    mirror.apply(&page([platform.checkpoint(1, bundle)])).unwrap();
    assert_eq!(mirror.awaited_count(), 1);
    mirror.apply(&page([route(1, None), platform.checkpoint(2, bundle)])).unwrap();
    assert_eq!(mirror.awaited_count(), 0);

    // A site that comes back has both: the route, and its bundle.
    let back: &[_] = &[(Kind::Bundle, "a.example", 1), (Kind::Route, "a.example", 2)];
    mirror.apply(&page([platform.checkpoint(3, back)])).unwrap();
    assert_eq!(mirror.awaited_count(), 2);
    mirror.apply(&page([route(2, UP)])).unwrap();
    assert_eq!(mirror.awaited_count(), 1);
    mirror.apply(&page([platform.simple("a.example", 1)])).unwrap();
    assert_eq!(mirror.awaited_count(), 0);
    assert!(mirror.route(&name("a.example")).is_some());
}
