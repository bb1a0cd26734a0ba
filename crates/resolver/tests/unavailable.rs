//! An unseal key that cannot be reached for a while: nothing is decided until it is back.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use certseal_resolver::{MirrorError, SealedResolver};
use certseal_seal::{Recipient, Secret, hpke::Kem};
use certseal_unseal::{Agreement, AgreementFailed, AwsLc, UnsealKey, UnsealKeys};
use certseal_wire::{Epoch, Event};
use rustls::version::TLS13;
use support::{Draft, Platform, handshake, name, only_refusal, page, pool, server};

/// A key in a token that can be taken away. Only the fault is made up: its answers come from aws-lc.
struct Removable {
    key: AwsLc,
    is_away: Arc<AtomicBool>,
}

impl Removable {
    fn keys(is_away: &Arc<AtomicBool>) -> (UnsealKeys, Recipient) {
        let key = AwsLc::new(Kem::P256, &Secret::copy_of(&[7; 32])).unwrap();
        let removable = Box::new(Self { key, is_away: is_away.clone() });
        let key = UnsealKey::with_agreement(pool("eu"), Epoch(1), removable).unwrap();
        let recipient = key.recipient();
        (UnsealKeys::from_iter([key]), recipient)
    }
}

impl Agreement for Removable {
    fn kem(&self) -> Kem {
        self.key.kem()
    }

    fn public_key(&self) -> &[u8] {
        self.key.public_key()
    }

    fn agree(&self, peer: &[u8]) -> Result<Secret<32>, AgreementFailed> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(AgreementFailed::Unavailable("taken away".to_owned()));
        }
        self.key.agree(peer)
    }
}

#[test]
fn a_handshake_that_finds_no_token_fails_and_a_later_one_opens_the_key() {
    let (platform, dir, is_away) = (Platform::new(), tempfile::tempdir().unwrap(), Arc::default());
    let (keys, recipient) = Removable::keys(&is_away);
    let mirror = platform.mirror(dir.path());
    let resolver = SealedResolver::new(mirror.clone(), keys, 1 << 20).unwrap();
    mirror.apply(&page([bundle(&platform, "a.example", &recipient)])).unwrap();
    let server = server(resolver.clone(), &TLS13);

    is_away.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        handshake(&server, &platform.client(), "a.example").unwrap_err();
    }
    assert_eq!((resolver.counts().unsealed, resolver.counts().unseal_failures), (0, 2));

    is_away.store(false, Ordering::Relaxed);
    handshake(&server, &platform.client(), "a.example").unwrap();
    // A key that is open stays open.
    is_away.store(true, Ordering::Relaxed);
    handshake(&server, &platform.client(), "a.example").unwrap();
    assert_eq!(resolver.counts().unsealed, 1);
}

#[test]
fn bundles_that_come_while_the_token_is_away_are_not_refused_and_the_page_comes_again() {
    let (platform, dir, is_away) = (Platform::new(), tempfile::tempdir().unwrap(), Arc::default());
    let (keys, recipient) = Removable::keys(&is_away);
    let mirror = platform.mirror(dir.path());
    let resolver = SealedResolver::new(mirror.clone(), keys, 1 << 20).unwrap();
    let before = mirror.cursor();
    let feed = page(["a.example", "b.example"].map(|site| bundle(&platform, site, &recipient)));

    is_away.store(true, Ordering::Relaxed);
    let error = mirror.apply(&feed).unwrap_err();
    assert!(matches!(error, MirrorError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("cannot be reached: taken away"), "{error}");
    assert!(mirror.apply_items(&feed.events).is_err());
    assert_eq!((mirror.cursor(), mirror.refused_count(), mirror.refused_total()), (before, 0, 0));
    assert!(mirror.is_empty() && resolver.certificate(&name("a.example")).is_none());

    is_away.store(false, Ordering::Relaxed);
    assert_eq!(mirror.apply(&feed).unwrap().accepted, 2);
    assert_eq!(mirror.cursor(), Some(feed.cursor));

    // The control: with the token there, a bundle that does not open is refused, and the page is taken.
    let stranger = UnsealKey::generate(pool("eu"), Epoch(1), certseal_seal::Suite::P256).unwrap().recipient();
    assert!(
        only_refusal(&mirror.apply(&page([bundle(&platform, "c.example", &stranger)])).unwrap()).contains("epochs")
    );
}

fn bundle(platform: &Platform, site: &str, recipient: &Recipient) -> Event {
    platform.bundle(Draft { sealed_to: recipient.clone(), ..platform.draft(site, &[site], 1) })
}
