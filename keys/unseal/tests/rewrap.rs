//! Content keys change hands: rewrapping, groups, and stanzas that are not what they seem.

#![allow(clippy::unwrap_used)]

use certseal_seal::{
    Envelope, EnvelopeError, Group, KeyKind, Recipient, SealError, SealRequest, SigningKey, Stanza, Suite,
    TlsPrivateKey, draft, seal,
};
use certseal_unseal::{OpenError, UnsealKey, UnsealKeys};
use certseal_wire::{Digest, Epoch, NameSet};

#[test]
fn a_rewrapped_envelope_opens_with_the_new_key_and_only_its_stanzas_differ() {
    for suite in [Suite::P256, Suite::X25519] {
        let (old, new) = (key("eu", 1, suite), key("eu", 2, suite));
        let envelope = sealed(&[old.recipient()], suite, 1);
        let recipient = new.recipient();
        let stanza = UnsealKeys::from_iter([old]).rewrap(&envelope, &recipient).unwrap();
        let both = envelope.clone().with_stanza(stanza).unwrap();
        let both = Envelope::parse(&both.to_bytes()).unwrap();
        assert!(both.is_rewrap_of(&envelope) && both.stanzas().len() == 2);

        let keys = UnsealKeys::from_iter([new]);
        assert_eq!(keys.open(&both).unwrap().expose_pkcs8(), pkcs8(1));
        let alone = both.without_stanzas(recipient.pool(), |epoch| epoch == Epoch(1)).unwrap();
        assert_eq!(keys.open(&alone).unwrap().expose_pkcs8(), pkcs8(1));
        let error = alone.without_stanzas(recipient.pool(), |epoch| epoch == Epoch(2)).unwrap_err();
        assert!(matches!(error, EnvelopeError::Malformed { .. }), "the last stanza of a pool stays: {error}");
    }
}

#[test]
fn a_stanza_of_another_pool_epoch_or_envelope_does_not_open() {
    let (eu, us) = (key("eu", 1, Suite::P256), key("us", 1, Suite::P256));
    let one = sealed(&[eu.recipient(), us.recipient()], Suite::P256, 1);
    let other = sealed(&[eu.recipient()], Suite::P256, 2);
    let of = |envelope: &Envelope, pool: &str| envelope.stanza(&pool.parse().unwrap(), Epoch(1)).unwrap().clone();
    let eu_key = eu.key_id();
    let keys = UnsealKeys::from_iter([eu]);
    assert!(keys.open(&one).is_ok());
    let disguised = Stanza { pool: "eu".parse().unwrap(), key_id: eu_key, ..of(&one, "us") };
    for stanza in [disguised, of(&other, "eu")] {
        let swapped = one.clone().with_stanza(stanza).unwrap();
        assert_eq!(keys.open(&swapped).err(), Some(OpenError::Failed));
    }
}

#[test]
fn a_forged_stanza_with_a_content_key_of_the_forgers_choice_does_not_open() {
    let eu = key("eu", 1, Suite::P256);
    let genuine = sealed(&[eu.recipient()], Suite::P256, 1);
    // Everything about the stanza is right, but what it holds is not what the payload is committed to.
    let chosen = certseal_seal::Secret::copy_of(&[7; 32]);
    let forged = certseal_seal::seal_stanza(Suite::P256, &eu.recipient(), &genuine.header().scope(), &chosen).unwrap();
    let forged = genuine.clone().with_stanza(forged).unwrap();
    let recipient = key("eu", 2, Suite::P256).recipient();
    let keys = UnsealKeys::from_iter([eu]);
    assert_eq!(keys.open(&forged).err(), Some(OpenError::Failed));
    assert_eq!(keys.rewrap(&forged, &recipient).err(), Some(OpenError::Failed), "nor is it carried on");
}

#[test]
fn a_group_is_sealed_and_opened_with_one_key_agreement_and_every_envelope_has_keys_of_its_own() {
    let (eu, us) = (key("eu", 1, Suite::P256), key("us", 3, Suite::P256));
    let recipients = [eu.recipient(), us.recipient()];
    let mut group = Group::begin(Suite::P256, &recipients).unwrap();
    let issuer = SigningKey::generate().unwrap();
    let envelopes: Vec<_> =
        (1..=5).map(|n| group.seal(&request(&recipients, Suite::P256), &tls_key(n), &issuer).unwrap()).collect();
    assert_eq!(group.sealed(), 5);
    let issuers = [issuer.verifying_key()].into_iter().collect();
    for (n, envelope) in (1..).zip(&envelopes) {
        let again = Envelope::parse(&envelope.to_bytes()).unwrap();
        again.verify(&issuers).unwrap();
        assert_eq!(again.stanzas(), envelopes[0].stanzas(), "one agreement for all");
        for keys in [&UnsealKeys::from_iter([key_again(&eu)]), &UnsealKeys::from_iter([key_again(&us)])] {
            assert_eq!(keys.open(&again).unwrap().expose_pkcs8(), pkcs8(n));
        }
    }
    let commitments: std::collections::HashSet<_> = envelopes.iter().map(|envelope| *envelope.commitment()).collect();
    assert_eq!(commitments.len(), 5);
}

#[test]
fn a_bad_stanza_in_one_envelope_of_a_group_harms_only_that_envelope() {
    let eu = key("eu", 1, Suite::P256);
    let recipients = [eu.recipient()];
    let issuer = SigningKey::generate().unwrap();
    let mut group = Group::begin(Suite::P256, &recipients).unwrap();
    let mut next = || group.seal(&request(&recipients, Suite::P256), &tls_key(1), &issuer).unwrap();
    let (first, second) = (next(), next());
    let mut foreign = Group::begin(Suite::P256, &recipients).unwrap();
    let foreign = foreign.seal(&request(&recipients, Suite::P256), &tls_key(1), &issuer).unwrap();
    let bad = first.clone().with_stanza(foreign.stanzas()[0].clone()).unwrap();

    let keys = UnsealKeys::from_iter([eu]);
    assert_eq!(keys.open(&bad).err(), Some(OpenError::Failed), "before the group is known");
    assert!(keys.open(&second).is_ok());
    assert_eq!(keys.open(&bad).err(), Some(OpenError::Failed), "and after");
    assert!(keys.open(&first).is_ok());
}

#[test]
fn a_group_is_rewrapped_by_one_stanza() {
    let (old, new) = (key("eu", 1, Suite::P256), key("eu", 2, Suite::P256));
    let recipients = [old.recipient()];
    let issuer = SigningKey::generate().unwrap();
    let mut group = Group::begin(Suite::P256, &recipients).unwrap();
    let envelopes: Vec<_> =
        (1..=3).map(|n| group.seal(&request(&recipients, Suite::P256), &tls_key(n), &issuer).unwrap()).collect();
    let stanza = UnsealKeys::from_iter([old]).rewrap(&envelopes[0], &new.recipient()).unwrap();
    let keys = UnsealKeys::from_iter([new]);
    for (n, envelope) in (1..).zip(envelopes) {
        let rewrapped = envelope.with_stanza(stanza.clone()).unwrap();
        assert_eq!(keys.open(&rewrapped).unwrap().expose_pkcs8(), pkcs8(n));
    }
}

#[test]
fn a_group_refuses_other_recipients_and_a_header_cannot_leave_its_group() {
    let (eu, us) = (key("eu", 1, Suite::P256), key("us", 1, Suite::P256));
    let issuer = SigningKey::generate().unwrap();
    let mut group = Group::begin(Suite::P256, &[eu.recipient()]).unwrap();
    let error = group.seal(&request(&[us.recipient()], Suite::P256), &tls_key(1), &issuer).unwrap_err();
    assert_eq!(error, SealError::OtherGroup);

    let envelope = group.seal(&request(&[eu.recipient()], Suite::P256), &tls_key(1), &issuer).unwrap();
    let mut bytes = envelope.to_bytes();
    let group_id = 111..127;
    bytes[group_id.start] ^= 1;
    let moved = Envelope::parse(&bytes).unwrap();
    assert!(moved.verify(&[issuer.verifying_key()].into_iter().collect()).is_err());
    assert_eq!(UnsealKeys::from_iter([eu]).open(&moved).err(), Some(OpenError::Failed));
}

#[test]
fn a_draft_is_signed_elsewhere_and_counts_for_the_issuer_it_names_only() {
    let eu = key("eu", 1, Suite::P256);
    let (issuer, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let recipients = [eu.recipient()];
    let request = request(&recipients, Suite::P256);
    let unsigned = draft(&request, &tls_key(1), issuer.verifying_key().id()).unwrap();
    let unsigned = certseal_seal::Draft::parse(&unsigned.to_bytes()).unwrap();
    let trusted = [issuer.verifying_key(), other.verifying_key()].into_iter().collect();
    assert!(unsigned.clone().sign(&other).verify(&trusted).is_err());
    let signed = unsigned.sign(&issuer);
    signed.verify(&trusted).unwrap();
    assert!(UnsealKeys::from_iter([eu]).open(&signed).is_ok());
    assert!(certseal_seal::Draft::parse(&signed.to_bytes()).is_err(), "signed already");
}

fn sealed(recipients: &[Recipient], suite: Suite, n: u8) -> Envelope {
    seal(&request(recipients, suite), &tls_key(n), &SigningKey::generate().unwrap()).unwrap()
}

fn request(recipients: &[Recipient], suite: Suite) -> SealRequest<'_> {
    static NAMES: std::sync::LazyLock<NameSet> =
        std::sync::LazyLock::new(|| NameSet::try_from(vec!["a.example".parse().unwrap()]).unwrap());
    SealRequest { suite, names: &NAMES, spki: Digest([1; 32]), key_version: 1, recipients }
}

fn tls_key(n: u8) -> TlsPrivateKey {
    TlsPrivateKey::new(KeyKind::EcdsaP256, pkcs8(n))
}

fn pkcs8(n: u8) -> Vec<u8> {
    vec![n; 138]
}

fn key(pool: &str, epoch: u32, suite: Suite) -> UnsealKey {
    UnsealKey::generate(pool.parse().unwrap(), Epoch(epoch), suite).unwrap()
}

fn key_again(key: &UnsealKey) -> UnsealKey {
    UnsealKey::from_pem(&key.expose_pem().unwrap()).unwrap()
}
