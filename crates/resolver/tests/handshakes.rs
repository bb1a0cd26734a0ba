//! Keys are opened by full handshakes of known names, once, and by nothing else.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use certseal_resolver::Counts;
use certseal_seal::{KeyKind, Suite};
use certseal_unseal::UnsealKey;
use certseal_wire::{Epoch, Event};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use rustls::{
    HandshakeKind, SignatureAlgorithm, SignatureScheme,
    version::{TLS12, TLS13},
};
use support::{Draft, Platform, handshake, name, page, pool, server};

#[test]
fn a_key_is_unsealed_once_for_many_handshakes() {
    for version in [&TLS12, &TLS13] {
        let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
        let mirror = platform.mirror(dir.path());
        mirror.apply(&page([platform.bundle(platform.draft("a.example", &["a.example", "*.a.example"], 1))])).unwrap();
        let resolver = platform.resolver(&mirror);
        let server = server(resolver.clone(), version);
        assert_eq!(resolver.counts(), Counts::default());
        for host in ["a.example", "x.a.example", "y.a.example", "a.example"] {
            // A new client each time, which has nothing to resume.
            assert_eq!(handshake(&server, &platform.client(), host).unwrap().0, HandshakeKind::Full);
        }
        let counts = resolver.counts();
        assert_eq!((counts.unsealed, counts.misses, counts.hits), (1, 1, 3), "{counts:?}");
    }
}

#[test]
fn resumptions_and_unknown_names_open_nothing() {
    for version in [&TLS12, &TLS13] {
        let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
        let mirror = platform.mirror(dir.path());
        let bundles = ["a.example", "b.example"].map(|site| platform.simple(site, 1));
        mirror.apply(&page(bundles)).unwrap();
        let resolver = platform.resolver(&mirror);
        let server = server(resolver.clone(), version);
        let client = platform.client();
        handshake(&server, &client, "a.example").unwrap();

        // The keys' cache begins anew, the tickets stay good.
        mirror.apply(&page([platform.simple("a.example", 2)])).unwrap();
        assert_eq!(handshake(&server, &client, "a.example").unwrap().0, HandshakeKind::Resumed);
        assert_eq!(resolver.counts().unsealed, 1, "a resumption unsealed a key");

        for unknown in ["c.example", "x.a.example", "127.0.0.1"] {
            assert!(handshake(&server, &client, unknown).is_err(), "{unknown}");
        }
        let counts = resolver.counts();
        assert_eq!((counts.unsealed, counts.unknown_names), (1, 3), "{counts:?}");

        // The control: another full handshake does open a key.
        handshake(&server, &platform.client(), "a.example").unwrap();
        assert_eq!(resolver.counts().unsealed, 2);
    }
}

#[test]
fn a_renewed_bundle_is_served_as_soon_as_it_is_there() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let server = server(platform.resolver(&mirror), &TLS13);
    let mut leaves = Vec::new();
    for version in 1..=3 {
        mirror.apply(&page([platform.simple("a.example", version)])).unwrap();
        leaves.push(handshake(&server, &platform.client(), "a.example").unwrap().1);
    }
    leaves.dedup();
    assert_eq!(leaves.len(), 3, "an older certificate was served");
}

#[test]
fn an_old_bundle_is_not_kept_however_loading_and_renewal_meet() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    mirror.apply(&page([platform.simple("a.example", 1)])).unwrap();
    let resolver = platform.resolver(&mirror);
    let site = name("a.example");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(resolver.certificate(&site).is_some());
                }
            });
        }
        let mut before = resolver.certificate(&site).unwrap();
        let stale = (2..100).any(|version| {
            mirror.apply(&page([platform.simple("a.example", version)])).unwrap();
            let after = resolver.certificate(&site).unwrap();
            let stale = after.cert == before.cert;
            before = after;
            stale
        });
        done.store(true, Ordering::Relaxed);
        assert!(!stale, "an old certificate was served after its renewal");
    });
}

#[test]
fn an_rsa_key_signs_too() {
    for version in [&TLS12, &TLS13] {
        let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
        let mirror = platform.mirror(dir.path());
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let draft = Draft { key, kind: KeyKind::Rsa, ..platform.draft("a.example", &["a.example"], 1) };
        mirror.apply(&page([platform.bundle(draft)])).unwrap();
        let resolver = platform.resolver(&mirror);
        handshake(&server(resolver.clone(), version), &platform.client(), "a.example").unwrap();
        assert_eq!(resolver.counts().unsealed, 1);
    }
}

/// The signature schemes of a client that knows RSA only.
const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];

/// As modern clients have it: the order is no preference of ours.
const ANY: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];

#[test]
fn a_site_with_two_certificates_is_served_with_the_one_that_the_client_can_use() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    let rsa = |site: &str| {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        platform.bundle(Draft { key, kind: KeyKind::Rsa, ..platform.draft(site, &["a.example"], 1) })
    };
    let resolver = platform.resolver(&mirror);
    let served = |schemes| {
        let certified = resolver.certificate_for(&name("a.example"), schemes);
        certified.map(|certified| (certified.key.algorithm(), certified.cert[0].clone()))
    };
    let kind = |schemes| served(schemes).map(|(algorithm, _)| algorithm);
    let (ecdsa, rsa_only) = (Some(SignatureAlgorithm::ECDSA), Some(SignatureAlgorithm::RSA));

    mirror.apply(&page([platform.simple("a.example", 1)])).unwrap();
    assert_eq!((kind(ANY), kind(RSA)), (ecdsa, ecdsa), "one is all that there is");
    let companion = rsa("_rsa.a.example");
    mirror.apply(&page([companion])).unwrap();
    assert_eq!((kind(ANY), kind(RSA)), (ecdsa, rsa_only), "the companion came last");
    mirror.apply(&page([platform.simple("a.example", 2)])).unwrap();
    assert_eq!((kind(ANY), kind(RSA)), (ecdsa, rsa_only), "the site came last");

    // The name is another site's by now: nothing of the one before is served, whatever the client can use.
    mirror.apply(&page([platform.bundle(platform.draft("b.example", &["b.example", "a.example"], 1))])).unwrap();
    let (newest, any) = (served(RSA).unwrap(), served(ANY).unwrap());
    assert_eq!((newest.0, &newest), (SignatureAlgorithm::ECDSA, &any));
    mirror.apply(&page([rsa("_rsa.b.example")])).unwrap();
    assert_eq!((kind(ANY), kind(RSA)), (ecdsa, rsa_only));
    let (other, own) = (served(ANY).unwrap(), resolver.certificate(&name("b.example")).unwrap().cert[0].clone());
    assert_eq!(other.1, own);
}

#[test]
fn a_key_that_cannot_be_used_fails_once_and_harms_only_its_name() {
    let platform = Platform::new();
    let draft = || platform.draft("bad.example", &["bad.example"], 1);
    let other_epoch = UnsealKey::generate(pool("eu"), Epoch(2), Suite::P256).unwrap().recipient();
    let cases: [(&str, Event); 4] = [
        (
            "another key",
            platform.bundle(Draft { sealed: Some(KeyPair::generate().unwrap().serialize_der()), ..draft() }),
        ),
        ("no key", platform.bundle(Draft { sealed: Some(b"nonsense".to_vec()), ..draft() })),
        ("another kind", platform.bundle(Draft { kind: KeyKind::Rsa, ..draft() })),
        ("an epoch that is not loaded", platform.bundle(Draft { sealed_to: other_epoch, ..draft() })),
    ];
    for (case, bad) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mirror = platform.mirror(dir.path());
        mirror.apply(&page([bad, platform.simple("good.example", 1)])).unwrap();
        let resolver = platform.resolver(&mirror);
        let server = server(resolver.clone(), &TLS13);
        for _ in 0..3 {
            assert!(handshake(&server, &platform.client(), "bad.example").is_err(), "{case}");
        }
        assert!(handshake(&server, &platform.client(), "good.example").is_ok(), "{case}");
        let counts = resolver.counts();
        assert_eq!((counts.unseal_failures, counts.unsealed), (1, 1), "{case}: {counts:?}");
        // Nothing is opened to find out which certificate it is.
        assert!(resolver.certificate(&name("bad.example")).is_some());
    }
}

#[test]
fn names_are_found_whatever_their_case() {
    let (platform, dir) = (Platform::new(), tempfile::tempdir().unwrap());
    let mirror = platform.mirror(dir.path());
    mirror.apply(&page([platform.simple("a.example", 1)])).unwrap();
    let server = server(platform.resolver(&mirror), &TLS13);
    assert!(handshake(&server, &platform.client(), "A.Example").is_ok());
}
