//! Envelopes: those that open, and all those that must not.

#![allow(clippy::unwrap_used)]

use certseal_seal::{
    Envelope, EnvelopeError, KeyKind, MAX_ENVELOPE, Recipient, SealError, SealRequest, SigningKey, Suite, SuiteError,
    TlsPrivateKey, VerifyingKeys, seal,
};
use certseal_unseal::{OpenError, UnsealKey, UnsealKeys};
use certseal_wire::{Digest, Epoch, NameSet, PoolName};
use proptest::prelude::*;

const KEY: &[u8] = b"a TLS private key";

/// Octets of the header of an envelope that is in no group.
const HEADER: usize = 111;

#[test]
fn an_envelope_opens_for_every_pool_it_is_sealed_to_in_either_suite() {
    for suite in [Suite::P256, Suite::X25519] {
        let keys = [unseal_key("eu", 1, suite), unseal_key("us", 4, suite)];
        let (envelope, issuers) = sealed(suite, &keys.each_ref().map(UnsealKey::recipient));
        let again = Envelope::parse(&envelope.to_bytes()).unwrap();
        assert_eq!(again, envelope);
        again.verify(&issuers).unwrap();
        for key in keys {
            assert_eq!(UnsealKeys::from_iter([key]).open(&again).unwrap().expose_pkcs8(), KEY);
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let key = unseal_key("eu", 1, Suite::P256);
    let (envelope, issuers) = sealed(Suite::P256, &[key.recipient()]);
    let keys = UnsealKeys::from_iter([key]);
    let bytes = envelope.to_bytes();
    let mut refused = [0; 3];
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let Ok(parsed) = Envelope::parse(&altered) else {
            refused[0] += 1;
            continue;
        };
        assert_eq!(parsed.to_bytes(), altered, "the parser took a second encoding");
        if parsed.verify(&issuers).is_err() {
            refused[1] += 1;
        } else {
            assert!(keys.open(&parsed).is_err(), "bit {bit} could be flipped");
            refused[2] += 1;
        }
    }
    assert_eq!(refused.iter().sum::<usize>(), bytes.len() * 8);
    assert!(refused.iter().all(|count| *count > 0), "parser, signature and opening each refuse some: {refused:?}");
}

#[test]
fn a_failed_opening_says_nothing_but_a_missing_key_is_explained() {
    let key = unseal_key("eu", 1, Suite::P256);
    let (envelope, _) = sealed(Suite::P256, &[key.recipient()]);

    let mut bytes = envelope.to_bytes();
    *bytes.last_mut().unwrap() ^= 1;
    let altered = Envelope::parse(&bytes).unwrap();
    assert_eq!(UnsealKeys::from_iter([key]).open(&altered).err(), Some(OpenError::Failed));

    let wrong_pool = UnsealKeys::from_iter([unseal_key("us", 1, Suite::P256)]);
    assert!(matches!(wrong_pool.open(&envelope).err(), Some(OpenError::WrongPool { .. })));
    let wrong_epoch = UnsealKeys::from_iter([unseal_key("eu", 2, Suite::P256)]);
    assert!(matches!(wrong_epoch.open(&envelope).err(), Some(OpenError::UnknownEpoch { .. })));
    assert_eq!(UnsealKeys::default().open(&envelope).err(), Some(OpenError::NoKey));
}

#[test]
fn a_stanza_of_another_envelope_does_not_open() {
    let key = unseal_key("eu", 1, Suite::P256);
    let (one, _) = sealed(Suite::P256, &[key.recipient()]);
    let (two, _) = sealed(Suite::P256, &[key.recipient()]);
    let (one, two) = (one.to_bytes(), two.to_bytes());
    // Both have the same lengths: the stanza of `two` takes the place of that of `one`.
    let stanza = one.len() - (1 + 2 + 4 + 16 + 65 + 48);
    let swapped = Envelope::parse(&[&one[..stanza], &two[stanza..]].concat()).unwrap();
    assert_eq!(UnsealKeys::from_iter([key]).open(&swapped).err(), Some(OpenError::Failed));
}

#[test]
fn a_payload_and_header_of_another_envelope_do_not_open() {
    let key = unseal_key("eu", 1, Suite::P256);
    let (one, issuers) = sealed(Suite::P256, &[key.recipient()]);
    let (two, _) = sealed(Suite::P256, &[key.recipient()]);
    let (one, two) = (one.to_bytes(), two.to_bytes());
    let swapped = Envelope::parse(&[&one[..HEADER], &two[HEADER..]].concat()).unwrap();
    assert!(matches!(swapped.verify(&issuers), Err(EnvelopeError::Signature(_))));
    assert_eq!(UnsealKeys::from_iter([key]).open(&swapped).err(), Some(OpenError::Failed));
}

#[test]
fn a_signature_of_another_issuer_is_refused() {
    let key = unseal_key("eu", 1, Suite::P256);
    let (envelope, _) = sealed(Suite::P256, &[key.recipient()]);
    let other = VerifyingKeys::from_iter([SigningKey::generate().unwrap().verifying_key()]);
    assert!(matches!(envelope.verify(&other), Err(EnvelopeError::Signature(_))));
}

#[test]
fn an_unknown_suite_or_format_is_named() {
    let (envelope, _) = sealed(Suite::P256, &[unseal_key("eu", 1, Suite::P256).recipient()]);
    let bytes = envelope.to_bytes();
    let with = |at: usize, value: u8| {
        let mut altered = bytes.clone();
        altered[at] = value;
        Envelope::parse(&altered)
    };
    assert_eq!(with(6, 9), Err(EnvelopeError::UnknownSuite(SuiteError(9))));
    assert_eq!(with(4, 3), Err(EnvelopeError::UnknownFormat(3)));
}

#[test]
fn every_truncation_and_every_surplus_is_refused() {
    let (envelope, _) = sealed(Suite::X25519, &[unseal_key("eu", 1, Suite::X25519).recipient()]);
    let bytes = envelope.to_bytes();
    for len in 0..bytes.len() {
        assert!(matches!(Envelope::parse(&bytes[..len]), Err(EnvelopeError::Malformed { .. })), "{len} octets");
    }
    assert!(Envelope::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
    assert_eq!(Envelope::parse(&vec![0; MAX_ENVELOPE + 1]), Err(EnvelopeError::TooLarge(MAX_ENVELOPE + 1)));
}

#[test]
fn sealing_wants_sound_recipients() {
    let eu = unseal_key("eu", 1, Suite::P256).recipient();
    let mixed = unseal_key("us", 1, Suite::X25519).recipient();
    assert_eq!(try_seal(Suite::P256, &[]).err(), Some(SealError::Recipients(0)));
    assert_eq!(try_seal(Suite::P256, &[eu.clone(), eu.clone()]).err(), Some(SealError::Recipients(2)));
    assert_eq!(try_seal(Suite::P256, &vec![eu; 17]).err(), Some(SealError::Recipients(17)));
    assert!(matches!(try_seal(Suite::P256, &[mixed]).err(), Some(SealError::Suite { .. })));
    let pool: PoolName = "eu".parse().unwrap();
    assert!(Recipient::new(pool.clone(), Epoch(1), Suite::P256, vec![4; 64]).is_err());
    let off_curve = Recipient::new(pool, Epoch(1), Suite::P256, vec![4; 65]).unwrap();
    assert!(matches!(try_seal(Suite::P256, &[off_curve]).err(), Some(SealError::BadPublicKey { .. })));
}

proptest! {
    #[test]
    fn the_parser_takes_any_bytes_without_panicking(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(envelope) = Envelope::parse(&bytes) {
            prop_assert_eq!(envelope.to_bytes(), bytes);
        }
    }

    #[test]
    fn altered_envelopes_parse_to_themselves_or_not_at_all(
        cut in 0usize..700, at in 0usize..700, value in any::<u8>(), pool in "[a-z][a-z0-9-]{0,31}",
    ) {
        let key = unseal_key(&pool, 1, Suite::X25519);
        let mut bytes = sealed(Suite::X25519, &[key.recipient()]).0.to_bytes();
        bytes.truncate(cut.max(1));
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(envelope) = Envelope::parse(&bytes) {
            prop_assert_eq!(envelope.to_bytes(), bytes);
        }
    }
}

fn unseal_key(pool: &str, epoch: u32, suite: Suite) -> UnsealKey {
    UnsealKey::generate(pool.parse().unwrap(), Epoch(epoch), suite).unwrap()
}

fn sealed(suite: Suite, recipients: &[Recipient]) -> (Envelope, VerifyingKeys) {
    try_seal(suite, recipients).unwrap()
}

fn try_seal(suite: Suite, recipients: &[Recipient]) -> Result<(Envelope, VerifyingKeys), SealError> {
    let names = NameSet::try_from(vec!["shop.example.com".parse().unwrap()]).unwrap();
    let issuer = SigningKey::generate().unwrap();
    let request = SealRequest { suite, names: &names, spki: Digest([7; 32]), key_version: 1, recipients };
    let envelope = seal(&request, &TlsPrivateKey::new(KeyKind::EcdsaP256, KEY.to_vec()), &issuer)?;
    Ok((envelope, VerifyingKeys::from_iter([issuer.verifying_key()])))
}
