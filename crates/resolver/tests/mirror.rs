//! The items that the mirror takes, those that it refuses, and those that it never forgets.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt;

use certseal_resolver::{Mirror, MirrorError, SealedResolver};
use certseal_seal::{Bundle, Envelope, SigningKey, Stanza, Suite};
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{Base64, Epoch, Event, HttpsMode, KeyId, Kind};
use support::{Draft, Platform, event, handshake, name, only_refusal, page, pool, server};

#[test]
fn an_older_version_is_refused_and_so_is_the_same_version_with_other_bytes() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let (one, two, other_two) =
        (platform.simple("a.example", 1), platform.simple("a.example", 2), platform.simple("a.example", 2));
    assert_eq!(mirror.apply(&page([two.clone()])).unwrap().accepted, 1);
    assert!(only_refusal(&mirror.apply(&page([one])).unwrap()).contains("rolled it back"));
    assert!(only_refusal(&mirror.apply(&page([other_two])).unwrap()).contains("not the same"));
    let again = mirror.apply(&page([two])).unwrap();
    assert_eq!((again.unchanged, again.changed.len()), (1, 0));

    let up = Some("http://127.0.0.1:1");
    let (one, two) =
        (platform.route("a.example", &["a.example"], 1, up), platform.route("a.example", &["a.example"], 2, up));
    mirror.apply(&page([two])).unwrap();
    assert!(only_refusal(&mirror.apply(&page([one])).unwrap()).contains("rolled it back"));
    mirror.apply(&page([platform.accounts(2, &["x"])])).unwrap();
    assert!(only_refusal(&mirror.apply(&page([platform.accounts(1, &["y"])])).unwrap()).contains("rolled it back"));
    assert_eq!(mirror.accounts().unwrap().thumbprints, ["x"]);
}

#[test]
fn a_bundle_goes_when_its_certificate_has_expired_and_not_because_certstore_says_so() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let past = jiff::Timestamp::UNIX_EPOCH;
    let expired = platform.bundle(Draft { not_after: past, ..platform.draft("old.example", &["old.example"], 3) });
    mirror.apply(&page([platform.simple("good.example", 1), expired.clone()])).unwrap();
    assert_eq!(mirror.bundle_count(), 2);

    let deleted =
        |name: &str, version| Event { deleted: true, body: None, ..event(Kind::Bundle, name, version, vec![]) };
    let told = page([deleted("good.example", 1), deleted("old.example", 3), deleted("unknown.example", 1)]);
    let applied = mirror.apply(&told).unwrap();
    assert_eq!((applied.refused.len(), applied.accepted, applied.changed.len()), (0, 1, 1), "{applied:?}");
    assert_eq!(mirror.bundle_count(), 1, "the good one stays");
    // A site that is gone does not come back in an older version.
    let older = platform.bundle(platform.draft("old.example", &["old.example"], 2));
    assert!(only_refusal(&mirror.apply(&page([older])).unwrap()).contains("rolled it back"));
    mirror.apply(&page([platform.bundle(platform.draft("old.example", &["old.example"], 4))])).unwrap();
    assert_eq!(mirror.bundle_count(), 2);
}

/// Each bad bundle comes between two good ones, which must be taken, with the cursor.
#[test]
fn a_bad_bundle_harms_only_its_name() {
    let platform = Platform::new();
    let stranger = SigningKey::generate().unwrap();
    let us = UnsealKey::generate(pool("us"), Epoch(1), Suite::P256).unwrap().recipient();
    let next = UnsealKey::generate(pool("eu"), Epoch(2), Suite::P256).unwrap().recipient();
    let names: &[&str] = &["bad.example"];
    let draft = || platform.draft("bad.example", names, 2);
    let good = platform.bundle(draft());
    let altered = |at: usize| {
        let mut body = good.body.clone().unwrap().0;
        body[at] ^= 1;
        event(Kind::Bundle, "bad.example", 2, body)
    };
    let cases: Vec<(&str, Event, &str)> = vec![
        ("statement altered", altered(20), "altered"),
        ("stanza altered", altered_stanza(&good), "could not be opened"),
        ("not a bundle", event(Kind::Bundle, "bad.example", 2, b"nonsense".to_vec()), "CSBU"),
        ("another issuer's", platform.bundle(Draft { issuer: &stranger, ..draft() }), "none of the trusted ones"),
        ("another pool's", platform.bundle(Draft { pools: &["us"], ..draft() }), "may not serve it"),
        (
            "sealed to an epoch that is not loaded",
            platform.bundle(Draft { sealed_to: next, ..draft() }),
            "[2] of pool eu",
        ),
        ("sealed to another pool", platform.bundle(Draft { sealed_to: us, ..draft() }), "not sealed to pool eu"),
        ("another site's", Event { name: "bad.example".into(), ..platform.simple("x.example", 1) }, "x.example"),
        ("without a body", Event { body: None, ..good.clone() }, "did not hand it out"),
        ("a route in its place", Event { kind: Kind::Bundle, ..platform.route("bad.example", names, 2, None) }, "CSBU"),
    ];
    for (case, bad, reason) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mirror = platform.mirror(dir.path());
        let resolver = platform.resolver(&mirror);
        mirror.apply(&page([platform.bundle(platform.draft("bad.example", names, 1))])).unwrap();
        let before = resolver.certificate(&name("bad.example")).unwrap();

        let feed = page([platform.simple("one.example", 1), bad, platform.simple("two.example", 1)]);
        let applied = mirror.apply(&feed).unwrap();
        assert_eq!((applied.accepted, applied.refused.len()), (2, 1), "{case}: {applied:?}");
        assert!(applied.refused[0].reason.contains(reason), "{case}: {applied:?}");
        assert_eq!(mirror.cursor(), Some(feed.cursor), "{case}: the cursor did not advance");
        assert_eq!((mirror.refused_count(), mirror.refused_total()), (1, 1), "{case}");
        assert!(
            resolver.certificate(&name("one.example")).is_some()
                && resolver.certificate(&name("two.example")).is_some()
        );
        let after = resolver.certificate(&name("bad.example")).unwrap();
        assert_eq!(after.cert, before.cert, "{case}: the older bundle is not served any more");

        // The control: a good item under the same name is taken, and the refusal forgotten.
        assert_eq!(mirror.apply(&page([good.clone()])).unwrap().accepted, 1, "{case}");
        assert_eq!(mirror.refused_count(), 0, "{case}");
    }
}

/// No signature covers the stanzas: a store can alter them in a bundle that is otherwise genuine.
#[test]
fn a_bundle_whose_stanza_was_altered_is_withheld_until_the_genuine_one_comes() {
    let platform = Platform::new();
    let (old, new) = (platform.simple("a.example", 1), platform.simple("a.example", 2));
    let feed = || page([old.clone(), platform.checkpoint(1, &[(Kind::Bundle, "a.example", 2)])]);
    let dir = tempfile::tempdir().unwrap();
    let mirror = platform.mirror(dir.path());
    let server = server(platform.resolver(&mirror), &rustls::version::TLS13);
    mirror.apply(&feed()).unwrap();
    let serve = || handshake(&server, &platform.client(), "a.example");
    let served = serve().unwrap();

    let refused = mirror.apply(&page([altered_stanza(&new)])).unwrap();
    assert!(only_refusal(&refused).contains("could not be opened"));
    assert_eq!(serve().unwrap(), served, "the older bundle is not served any more");
    assert_eq!((mirror.awaited_count(), mirror.refused_count()), (1, 1));
    assert_eq!(
        mirror.apply_items(std::slice::from_ref(&new)).unwrap().accepted,
        1,
        "the genuine one was taken for a rewritten one"
    );
    assert_ne!(serve().unwrap(), served);
    assert_eq!((mirror.awaited_count(), mirror.refused_count()), (0, 0));

    // The control: a mirror without keys takes it, and the site cannot be served until the genuine one comes.
    let dir = tempfile::tempdir().unwrap();
    let mirror = platform.mirror(dir.path());
    mirror.apply(&feed()).unwrap();
    assert_eq!(mirror.apply(&page([altered_stanza(&new)])).unwrap().accepted, 1);
    let server = support::server(platform.resolver(&mirror), &rustls::version::TLS13);
    let serve = || handshake(&server, &platform.client(), "a.example");
    assert!(serve().is_err());
    assert_eq!(mirror.apply(&page([new])).unwrap().accepted, 1);
    assert!(serve().is_ok());
}

#[test]
fn a_bundle_that_was_rewrapped_is_taken_and_what_was_rolled_back_or_forged_is_not() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let [next, next_again] = [(); 2].map(|()| UnsealKey::from_pem(&platform.next_pem).unwrap());
    let stranger = UnsealKey::generate(pool("eu"), Epoch(3), Suite::P256).unwrap();
    let rewrapped = |event: &Event, to: &UnsealKey| {
        rewrap(event, |envelope| {
            let stanza = platform.unseal_keys().rewrap(&envelope, &to.recipient()).unwrap();
            envelope.with_stanza(stanza).unwrap()
        })
    };
    let stripped = |event: &Event, epoch: u32| {
        rewrap(event, |envelope| envelope.without_stanzas(&pool("eu"), |found| found == Epoch(epoch)).unwrap())
    };
    let old = platform.simple("a.example", 1);
    let both = rewrapped(&old, &next);
    let new = stripped(&both, 1);

    let mirror = platform.mirror(dir.path());
    let keys = UnsealKeys::from_iter([UnsealKey::from_pem(&platform.unseal_pem).unwrap(), next]);
    let server = server(SealedResolver::new(mirror.clone(), keys, 1 << 20).unwrap(), &rustls::version::TLS13);
    // Nothing signs what a stanza says of its epoch: one that nobody can open must not keep out what follows.
    let junk = rewrap(&old, |envelope| {
        let stanza = Stanza { epoch: Epoch(u32::MAX), key_id: KeyId([9; 16]), ..envelope.stanzas()[0].clone() };
        envelope.with_stanza(stanza).unwrap()
    });
    for (step, event) in [&old, &junk, &both, &new].into_iter().enumerate() {
        assert_eq!(mirror.apply(&page([event.clone()])).unwrap().accepted, 1, "step {step}");
        assert_eq!(mirror.apply(&page([event.clone()])).unwrap().unchanged, 1, "step {step}, again");
        handshake(&server, &platform.client(), "a.example").unwrap();
    }
    assert!(only_refusal(&mirror.apply(&page([old.clone()])).unwrap()).contains("sealed to epoch 1"));
    let elsewhere = stripped(&rewrapped(&old, &stranger), 1);
    assert!(only_refusal(&mirror.apply(&page([elsewhere])).unwrap()).contains("sealed to no listed epoch"));
    // The stanza of another bundle in the place of ours: of the right pool, epoch and key, and yet not for this one.
    let foreign = stripped(&rewrapped(&platform.simple("b.example", 1), &next_again), 1);
    let swapped = rewrap(&new, |envelope| envelope.with_stanza(envelope_of(&foreign).stanzas()[0].clone()).unwrap());
    assert!(only_refusal(&mirror.apply(&page([swapped])).unwrap()).contains("could not be opened"));
    handshake(&server, &platform.client(), "a.example").unwrap();
}

/// Nothing signs stanzas: one under a key that is loaded, with the highest epoch that there is, would pass for the newest.
#[test]
fn a_forged_epoch_keeps_out_no_genuine_stanza() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let load = |pem: &String| UnsealKey::from_pem(pem).unwrap();
    let keys = UnsealKeys::from_iter([load(&platform.unseal_pem), load(&platform.next_pem)]);
    let server = server(SealedResolver::new(mirror.clone(), keys, 1 << 20).unwrap(), &rustls::version::TLS13);
    let old = platform.simple("a.example", 1);
    let forged = rewrap(&old, |envelope| {
        let stanza = envelope.stanzas()[0].clone();
        envelope.with_stanza(Stanza { epoch: Epoch(u32::MAX), ..stanza }).unwrap()
    });
    // Also when it comes first.
    assert!(only_refusal(&mirror.apply(&page([forged.clone()])).unwrap()).contains("it is forged"));
    mirror.apply(&page([old.clone()])).unwrap();
    assert!(only_refusal(&mirror.apply(&page([forged])).unwrap()).contains("it is forged"));
    let genuine = rewrap(&old, |envelope| {
        let stanza = platform.unseal_keys().rewrap(&envelope, &load(&platform.next_pem).recipient()).unwrap();
        envelope.with_stanza(stanza).unwrap()
    });
    assert_eq!(mirror.apply(&page([genuine])).unwrap().accepted, 1);
    handshake(&server, &platform.client(), "a.example").unwrap();
}

/// A name that moved to another site, and back when that one leaves or does not count.
#[test]
fn a_name_falls_back_to_who_claimed_it_before() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let server = server(platform.resolver(&mirror), &rustls::version::TLS13);
    let up = Some("http://127.0.0.1:1");
    let shop = "shop.example";
    for site in ["a.example", "b.example"] {
        let bundle = platform.bundle(platform.draft(site, &[site, shop], 1));
        mirror.apply(&page([bundle, platform.route(site, &[site, shop], 1, up)])).unwrap();
    }
    assert_eq!(mirror.route(&name(shop)).unwrap().site, name("b.example"));
    handshake(&server, &platform.client(), shop).unwrap();
    mirror.apply(&page([platform.route("b.example", &["b.example", shop], 2, None)])).unwrap();
    assert_eq!(mirror.route(&name(shop)).unwrap().site, name("a.example"));
    handshake(&server, &platform.client(), shop).unwrap();
    mirror.apply(&page([platform.route("a.example", &["a.example", shop], 2, None)])).unwrap();
    assert!(mirror.route(&name(shop)).is_none());
    assert!(handshake(&server, &platform.client(), shop).is_err());
}

#[test]
fn a_site_that_had_an_envelope_never_goes_back_to_a_legacy_key_also_after_it_left() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let up = Some("http://127.0.0.1:1");
    mirror.apply(&page([platform.simple("a.example", 1), platform.route("a.example", &["a.example"], 1, up)])).unwrap();
    mirror.apply(&page([platform.route("a.example", &["a.example"], 2, None)])).unwrap();
    assert!(mirror.is_empty());
    mirror.apply(&page([platform.route("a.example", &["a.example"], 3, up)])).unwrap();
    let legacy = platform.legacy("a.example", 2);
    assert!(only_refusal(&mirror.apply(&page([legacy])).unwrap()).contains("nothing goes back to legacy formats"));
    // The control: a site without that past.
    assert_eq!(mirror.apply(&page([platform.legacy("b.example", 2)])).unwrap().accepted, 1);
}

#[test]
fn a_name_that_is_none_is_refused_and_not_remembered() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let up = Some("http://127.0.0.1:1");
    for event in [
        platform.simple("a.example", 1),
        platform.route("a.example", &["a.example"], 1, up),
        platform.checkpoint(1, &[]),
    ] {
        for body in [event.body.clone(), None] {
            let bad = Event { name: "../etc".into(), body, ..event.clone() };
            assert_eq!(mirror.apply(&page([bad.clone()])).unwrap().refused.len(), 1, "{bad:?}");
            assert_eq!(mirror.refused_count(), 0, "{bad:?}");
        }
    }
    // Of ring and account list there is one, however a store calls them.
    for name in ["x", "y", ""] {
        let nothing = |kind| Event { body: None, ..event(kind, name, 9, Vec::new()) };
        mirror.apply(&page([nothing(Kind::Ring), nothing(Kind::Accounts)])).unwrap();
        assert_eq!(mirror.refused_count(), 2, "{name}");
    }
    let renamed = |event: Event| Event { name: "z".into(), ..event };
    let good = [renamed(platform.ring(2, &[&platform.issuer])), renamed(platform.accounts(1, &[]))];
    assert_eq!(mirror.apply(&page(good)).unwrap().accepted, 2);
    assert_eq!(mirror.refused_count(), 0);
}

#[test]
fn refused_items_are_remembered_up_to_a_bound_and_all_counted() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let bad = |index: usize| event(Kind::Bundle, &format!("s{index}.example"), 1, b"nonsense".to_vec());
    let applied = mirror.apply(&page((0..10_100).map(bad))).unwrap();
    assert_eq!((applied.refused.len(), mirror.refused_total(), mirror.refused_count()), (10_100, 10_100, 10_000));
    // An item that is refused already is refused again, and a good one is taken.
    mirror.apply(&page([bad(0), platform.simple("s1.example", 1)])).unwrap();
    assert_eq!(mirror.refused_count(), 9_999);
}

#[test]
fn what_certstore_does_not_know_is_forgiven_unless_it_was_here() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    mirror.apply(&page([platform.simple("a.example", 1)])).unwrap();
    let bad = |site: &str| event(Kind::Bundle, site, 2, b"nonsense".to_vec());
    mirror.apply(&page([bad("a.example"), bad("b.example")])).unwrap();
    mirror.forgive_unknown(&mirror.refused(None, 10)).unwrap();
    let left: Vec<String> = mirror.refused(None, 10).into_iter().map(|refused| refused.name).collect();
    assert_eq!(left, ["a.example"]);
}

#[test]
fn only_the_security_teams_newest_ring_counts() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    mirror.apply(&page([platform.ring(3, &[&platform.issuer])])).unwrap();

    let forger = Platform::new();
    assert!(
        only_refusal(&mirror.apply(&page([forger.ring(9, &[&forger.issuer])])).unwrap()).contains("does not count")
    );
    assert!(only_refusal(&mirror.apply(&page([platform.ring(2, &[])])).unwrap()).contains("rolled it back"));
    assert!(only_refusal(&mirror.apply(&page([platform.ring(3, &[])])).unwrap()).contains("not the same"));
    assert_eq!(mirror.ring().unwrap().version, 3);
    assert_eq!(mirror.apply(&page([platform.simple("a.example", 1)])).unwrap().accepted, 1, "the old ring is gone");
}

#[test]
fn what_was_refused_is_accepted_under_a_ring_that_lists_its_issuer() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let next = SigningKey::generate().unwrap();
    let bundle = platform.bundle(Draft { issuer: &next, ..platform.draft("a.example", &["a.example"], 1) });
    mirror.apply(&page([bundle.clone()])).unwrap();
    let refused = mirror.refused(None, 10);
    assert_eq!((refused[0].kind, refused[0].name.as_str()), (Kind::Bundle, "a.example"));
    assert!(mirror.refused(Some(&refused[0]), 10).is_empty());

    // The ring counts first, wherever it stands in the page.
    let applied = mirror.apply(&page([bundle, platform.ring(2, &[&platform.issuer, &next])])).unwrap();
    assert!(applied.ring_changed && applied.refused.is_empty(), "{applied:?}");
    assert_eq!(mirror.refused_count(), 0);
    assert!(platform.resolver(&mirror).certificate(&name("a.example")).is_some());
}

#[test]
fn an_issuer_that_leaves_the_ring_counts_for_nothing_any_more() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let up = Some("http://127.0.0.1:1");
    let route = platform.route("a.example", &["a.example"], 1, up);
    mirror.apply(&page([platform.simple("a.example", 1), route, platform.accounts(1, &["x"])])).unwrap();
    let resolver = platform.resolver(&mirror);
    let served = || (resolver.certificate(&name("a.example")).is_some(), mirror.route(&name("a.example")).is_some());
    assert_eq!((served(), mirror.accounts().is_some()), ((true, true), true));

    mirror.apply(&page([platform.ring(2, &[&SigningKey::generate().unwrap()])])).unwrap();
    assert_eq!((served(), mirror.accounts().is_some()), ((false, false), false));
    mirror.apply(&page([platform.ring(3, &[&platform.issuer])])).unwrap();
    assert_eq!((served(), mirror.accounts().is_some()), ((true, true), true), "nothing was dropped unsigned");
}

#[test]
fn a_site_leaves_by_a_signed_route_only_and_comes_back_by_one() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let (names, up): (&[&str], _) = (&["a.example", "*.a.example"], Some("http://127.0.0.1:1"));
    let bundle = platform.bundle(platform.draft("a.example", names, 1));
    let first = platform.route("a.example", names, 1, up);
    mirror.apply(&page([bundle.clone(), first.clone()])).unwrap();
    let resolver = platform.resolver(&mirror);
    let served = |host: &str| (resolver.certificate(&name(host)).is_some(), mirror.route(&name(host)).is_some());
    assert_eq!((served("a.example"), served("x.a.example")), ((true, true), (true, true)));
    assert_eq!((served("y.x.a.example"), served("b.example")), ((false, false), (false, false)));

    // Reading the feed anew, and finding nothing there, drops nothing.
    mirror.reset_cursor().unwrap();
    assert_eq!(mirror.cursor(), None);
    mirror.apply(&page([])).unwrap();
    assert_eq!(served("a.example"), (true, true));

    mirror.apply(&page([platform.route("a.example", names, 2, None)])).unwrap();
    assert_eq!((served("a.example"), served("x.a.example")), ((false, false), (false, false)));
    assert!(mirror.is_empty());
    // The marks stay: neither the old route nor the old bundle brings it back.
    assert!(only_refusal(&mirror.apply(&page([first])).unwrap()).contains("rolled it back"));
    mirror.apply(&page([bundle.clone()])).unwrap();
    assert_eq!(served("a.example"), (false, false));

    let back = mirror.apply(&page([platform.route("a.example", names, 3, up)])).unwrap();
    assert_eq!(back.missing, [name("a.example")], "its bundle has to be asked for");
    assert_eq!(mirror.refused(None, 10).len(), 1, "and is, after a crash too");
    assert_eq!(mirror.apply_items(&[bundle]).unwrap().accepted, 1);
    assert_eq!((served("a.example"), mirror.refused_count()), ((true, true), 0));
}

#[test]
fn a_route_that_does_not_list_the_pool_any_more_drops_the_site() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let up = Some("http://127.0.0.1:1");
    mirror.apply(&page([platform.simple("a.example", 1), platform.route("a.example", &["a.example"], 1, up)])).unwrap();
    let moved = certseal_wire::Route {
        site: name("a.example"),
        names: support::name_set(&["a.example"]),
        version: 2,
        pools: vec![pool("us")],
        upstreams: vec!["http://127.0.0.1:1".parse::<certseal_wire::Upstream>().unwrap().into()],
        https: HttpsMode::Redirect,
    };
    mirror.apply(&page([support::signed(Kind::Route, "a.example", 2, &platform.issuer, &moved)])).unwrap();
    assert!(mirror.is_empty() && mirror.route(&name("a.example")).is_none());

    // certstore announces the site's next bundle, which is for other pools, without its body.
    let elsewhere = Event { body: None, ..platform.simple("a.example", 2) };
    assert!(mirror.apply(&page([elsewhere])).unwrap().refused.is_empty());
}

#[test]
fn a_name_that_moved_to_another_site_stays_there_when_the_first_site_leaves() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let up = Some("http://127.0.0.1:1");
    mirror.apply(&page([platform.route("a.example", &["a.example", "x.example"], 1, up)])).unwrap();
    mirror.apply(&page([platform.route("b.example", &["b.example", "x.example"], 1, up)])).unwrap();
    mirror.apply(&page([platform.route("a.example", &["a.example"], 2, None)])).unwrap();
    assert_eq!(mirror.route(&name("x.example")).unwrap().site, name("b.example"));
    // A name that a renewed route does not list any more leads nowhere.
    mirror.apply(&page([platform.route("b.example", &["b.example"], 2, up)])).unwrap();
    assert!(mirror.route(&name("x.example")).is_none());
}

#[test]
fn a_new_route_is_followed_at_once() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    for (version, up) in [(1, "http://127.0.0.1:1"), (2, "http://127.0.0.1:2")] {
        mirror.apply(&page([platform.route("a.example", &["a.example"], version, Some(up))])).unwrap();
        assert_eq!(mirror.route(&name("a.example")).unwrap().upstreams[0].origin.to_string(), up);
    }
}

#[test]
fn everything_is_there_after_reopening() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("mirror");
    let feed = page([
        platform.simple("a.example", 2),
        platform.route("a.example", &["a.example"], 1, Some("http://127.0.0.1:1")),
        platform.accounts(1, &["x"]),
        event(Kind::Bundle, "bad.example", 1, b"nonsense".to_vec()),
    ]);
    let mirror = platform.mirror(&path);
    mirror.apply(&feed).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(path.join("mirror.redb")).unwrap().permissions().mode() & 0o777, 0o600);
    let second = Mirror::open(&path, pool("eu"), platform.security.verifying_key());
    assert!(matches!(second, Err(MirrorError::Unopened { .. })), "two processes opened one mirror");
    drop(mirror);

    let mirror = platform.open(&path);
    assert_eq!(mirror.cursor(), Some(feed.cursor));
    assert_eq!((mirror.ring().unwrap().version, mirror.refused_count()), (1, 1));
    assert_eq!(mirror.accounts().unwrap().thumbprints, ["x"]);
    assert!(mirror.route(&name("a.example")).is_some());
    assert!(platform.resolver(&mirror).certificate(&name("a.example")).is_some());
    let rolled_back = mirror.apply(&page([platform.simple("a.example", 1)])).unwrap();
    assert!(only_refusal(&rolled_back).contains("rolled it back"), "the marks are gone");
    drop(mirror);

    let other_pool = Mirror::open(&path, pool("us"), platform.security.verifying_key());
    assert!(matches!(other_pool, Err(MirrorError::Pool { .. })));
    let other_team = Mirror::open(&path, pool("eu"), Platform::new().security.verifying_key()).unwrap();
    assert!(other_team.ring().is_none(), "a ring counts that the pinned key did not sign");
}

#[test]
fn an_unseal_key_of_another_pool_is_refused() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let key = UnsealKey::generate(pool("us"), Epoch(1), Suite::P256).unwrap();
    let keys = certseal_unseal::UnsealKeys::from_iter([key]);
    let refused = certseal_resolver::SealedResolver::new(platform.mirror(dir.path()), keys, 1 << 20);
    assert!(matches!(refused, Err(MirrorError::Pool { .. })));
}

#[test]
fn an_event_that_announces_what_is_held_needs_no_body() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let bundle = platform.simple("a.example", 1);
    mirror.apply(&page([bundle.clone()])).unwrap();
    assert_eq!(mirror.apply(&page([Event { body: None, ..bundle.clone() }])).unwrap().unchanged, 1);
    let newer = Event { body: None, version: 2, ..bundle.clone() };
    assert!(only_refusal(&mirror.apply(&page([newer])).unwrap()).contains("did not hand it out"));
    let garbage = Event { body: Some(Base64(b"x".to_vec())), digest: certseal_seal::sha256(b"x"), ..bundle };
    assert_eq!(mirror.apply(&page([garbage])).unwrap().refused.len(), 1);
}

/// The bundle with one bit of its last stanza altered, as the feed announces it: stanzas come last.
/// The same bundle with other stanzas.
fn rewrap(event: &Event, change: impl Fn(Envelope) -> Envelope) -> Event {
    let bundle = Bundle::parse(&event.body.as_ref().unwrap().0).unwrap();
    let bytes = bundle.with_sealed(change(envelope_of(event))).to_bytes().unwrap();
    support::event(Kind::Bundle, &event.name, event.version, bytes)
}

fn envelope_of(event: &Event) -> Envelope {
    Bundle::parse(&event.body.as_ref().unwrap().0).unwrap().sealed().envelope().unwrap().clone()
}

fn altered_stanza(bundle: &Event) -> Event {
    let mut body = bundle.body.clone().unwrap().0;
    *body.last_mut().unwrap() ^= 1;
    event(Kind::Bundle, &bundle.name, bundle.version, body)
}
