//! The published HPKE vectors, opened as published. See `keys/vectors/README.md`.

#![allow(clippy::unwrap_used)]

use certseal_seal::{
    Secret,
    hpke::{Aead, Kem, KeySchedule},
};
use certseal_unseal::{Agreement, AwsLc, PureP256, decap, open_message};
use serde::Deserialize;

#[test]
fn every_published_case_opens_with_every_agreement() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../vectors/hpke-base.json")).unwrap();
    let (mut agreements, mut messages) = (0, 0);
    for case in &cases {
        for agreement in case.agreements() {
            assert_eq!(agreement.public_key(), hex(&case.pk_rm));
            messages += case.open_all(&*agreement);
            agreements += 1;
        }
    }
    assert_eq!(cases.len(), 4, "P-256 and X25519, each with AES-128-GCM and AES-256-GCM");
    assert_eq!(agreements, 6, "aws-lc for every case, p256 for the two of P-256");
    assert_eq!(messages, 6 * 257);
}

#[derive(Deserialize)]
struct Case {
    kem_id: u16,
    aead_id: u16,
    info: String,
    #[serde(rename = "skRm")]
    sk_rm: String,
    #[serde(rename = "pkRm")]
    pk_rm: String,
    enc: String,
    shared_secret: String,
    key: String,
    base_nonce: String,
    encryptions: Vec<Encryption>,
}

#[derive(Deserialize)]
struct Encryption {
    aad: String,
    ct: String,
    pt: String,
}

impl Case {
    fn kem(&self) -> Kem {
        [Kem::P256, Kem::X25519].into_iter().find(|kem| *kem as u16 == self.kem_id).unwrap()
    }

    fn agreements(&self) -> Vec<Box<dyn Agreement>> {
        let scalar: Secret<32> = Secret::copy_of(&hex(&self.sk_rm).try_into().unwrap());
        let mut all: Vec<Box<dyn Agreement>> = vec![Box::new(AwsLc::new(self.kem(), &scalar).unwrap())];
        if self.kem() == Kem::P256 {
            all.push(Box::new(PureP256::new(&scalar).unwrap()));
        }
        all
    }

    fn open_all(&self, agreement: &dyn Agreement) -> usize {
        let aead = [Aead::Aes128Gcm, Aead::Aes256Gcm].into_iter().find(|a| *a as u16 == self.aead_id).unwrap();
        let shared = decap(agreement, &hex(&self.enc)).unwrap();
        assert_eq!(shared.expose().as_slice(), hex(&self.shared_secret));
        let schedule = KeySchedule::base(self.kem(), aead, &shared, &hex(&self.info));
        let key = hex(&self.key);
        assert_eq!(&schedule.key.expose()[..key.len()], key);
        assert_eq!(schedule.base_nonce.expose().as_slice(), hex(&self.base_nonce));
        for (seq, Encryption { aad, ct, pt }) in self.encryptions.iter().enumerate() {
            let mut ct = hex(ct);
            let plain = open_message(&schedule, seq as u64, &hex(aad), &ct).expect("a genuine message opens");
            assert_eq!(plain.as_slice(), hex(pt));
            ct[0] ^= 1;
            assert!(open_message(&schedule, seq as u64, &hex(aad), &ct).is_none(), "an altered message opened");
        }
        self.encryptions.len()
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}
