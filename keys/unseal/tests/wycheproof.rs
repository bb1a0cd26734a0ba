//! Wycheproof's vectors for the primitives that opening rests on: key agreement and AES-GCM.

#![allow(clippy::unwrap_used)]

use certseal_seal::{
    Secret,
    hpke::{Aead, Kem, KeySchedule},
};
use certseal_unseal::{Agreement, AwsLc, PureP256, open_message};
use wycheproof::{TestResult, aead, ecdh, xdh};

#[test]
fn p256_agreements_give_the_right_secret_or_none() {
    let set = ecdh::TestSet::load(ecdh::TestName::EcdhSecp256r1Ecpoint).unwrap();
    let mut agreed = 0;
    let mut refused = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let scalar = scalar(&test.private_key);
        let agreements: [Box<dyn Agreement>; 2] =
            [Box::new(AwsLc::new(Kem::P256, &scalar).unwrap()), Box::new(PureP256::new(&scalar).unwrap())];
        for agreement in agreements {
            match agreement.agree(&test.public_key) {
                Ok(secret) => {
                    assert!(!test.result.must_fail(), "case {} was accepted: {}", test.tc_id, test.comment);
                    assert_eq!(secret.expose().as_slice(), test.shared_secret.as_slice(), "case {}", test.tc_id);
                    agreed += 1;
                }
                Err(_) => {
                    // HPKE's one form of a P-256 key is uncompressed (RFC 9180, 7.1.1).
                    let other_form = test.public_key.len() != 65;
                    assert!(test.result != TestResult::Valid || other_form, "case {} was refused", test.tc_id);
                    refused += 1;
                }
            }
        }
    }
    assert!(agreed > 400 && refused > 20, "{agreed} agreed, {refused} refused");
}

#[test]
fn x25519_agreement_gives_the_right_secret_or_none() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let mut agreed = 0;
    let mut refused = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let agreement = AwsLc::new(Kem::X25519, &scalar(&test.private_key)).unwrap();
        match agreement.agree(&test.public_key) {
            Ok(secret) => {
                assert!(!test.result.must_fail(), "case {} was accepted: {}", test.tc_id, test.comment);
                assert_eq!(secret.expose().as_slice(), test.shared_secret.as_slice(), "case {}", test.tc_id);
                agreed += 1;
            }
            Err(_) => {
                // An output of zeros is refused (RFC 7748, 6.1), and so is a key of another length.
                let zero = test.shared_secret.iter().all(|octet| *octet == 0);
                assert!(zero || test.result != TestResult::Valid, "case {} was refused", test.tc_id);
                refused += 1;
            }
        }
    }
    assert!(agreed > 400 && refused > 20, "{agreed} agreed, {refused} refused");
}

#[test]
fn aes_gcm_opens_what_is_genuine_and_nothing_else() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let mut opened = 0;
    let mut refused = 0;
    for group in set.test_groups.iter().filter(|group| group.nonce_size == 96 && group.tag_size == 128) {
        let aead = match group.key_size {
            128 => Aead::Aes128Gcm,
            256 => Aead::Aes256Gcm,
            _ => continue,
        };
        for test in &group.tests {
            let mut key = [0; 32];
            key[..test.key.len()].copy_from_slice(&test.key);
            let base_nonce = Secret::copy_of(test.nonce.as_slice().try_into().unwrap());
            let schedule = KeySchedule { aead, key: Secret::copy_of(&key), base_nonce };
            let ciphertext = [test.ct.as_slice(), test.tag.as_slice()].concat();
            match open_message(&schedule, 0, &test.aad, &ciphertext) {
                Some(plain) => {
                    assert!(!test.result.must_fail(), "case {} was opened: {}", test.tc_id, test.comment);
                    assert_eq!(plain.as_slice(), test.pt.as_slice(), "case {}", test.tc_id);
                    opened += 1;
                }
                None => {
                    assert_ne!(test.result, TestResult::Valid, "case {} was refused", test.tc_id);
                    refused += 1;
                }
            }
        }
    }
    assert!(opened > 50 && refused > 30, "{opened} opened, {refused} refused");
}

/// A scalar as it stands in the vectors, with or without leading zeros, in 32 octets.
fn scalar(bytes: &[u8]) -> Secret<32> {
    let significant = &bytes[bytes.len().saturating_sub(32)..];
    let mut scalar = [0; 32];
    scalar[32 - significant.len()..].copy_from_slice(significant);
    Secret::copy_of(&scalar)
}
