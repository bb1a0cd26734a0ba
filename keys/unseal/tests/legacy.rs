//! Keys as platforms sealed them before: every accepted form opens, and nothing else does.

#![allow(clippy::unwrap_used)]

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    encoding::AsDer,
    rsa::{
        KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPublicEncryptingKey,
        PrivateDecryptingKey,
    },
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use certseal_seal::{EnvelopeError, KeyKind, LegacyKey, LegacySuite, Sealed};
use certseal_unseal::{LegacyKeyError, LegacyUnsealKey, OpenError, UnsealKeys};
use certseal_wire::KeyId;

#[test]
fn what_a_platform_wrapped_with_rsa_opens_with_either_digest_and_with_no_other_key() {
    for (suite, oaep) in
        [(LegacySuite::RsaOaepSha256, &OAEP_SHA256_MGF1SHA256), (LegacySuite::RsaOaepSha1, &OAEP_SHA1_MGF1SHA1)]
    {
        let (ours, theirs) = (Rsa::generate(), Rsa::generate());
        let pkcs8 = tls_key();
        let blob = ours.wrap(oaep, &pkcs8);
        let keys = UnsealKeys::default().with_legacy([ours.key(suite)]);
        let sealed = Sealed::from(LegacyKey::new(suite, ours.key(suite).id(), blob.clone()).unwrap());
        let opened = keys.open_sealed(&Sealed::parse(&sealed.to_bytes()).unwrap()).unwrap();
        assert_eq!((opened.kind(), opened.expose_pkcs8()), (KeyKind::EcdsaP256, pkcs8.as_slice()));

        for bit in [0, 8 * 255, 8 * 256, 8 * (256 + 12), 8 * blob.len() - 1] {
            let mut altered = blob.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let altered = LegacyKey::new(suite, ours.key(suite).id(), altered).unwrap();
            assert_eq!(keys.open_sealed(&altered.into()).err(), Some(OpenError::Failed), "bit {bit}");
        }
        let foreign = UnsealKeys::default().with_legacy([theirs.key(suite)]);
        assert!(matches!(foreign.open_sealed(&sealed).err(), Some(OpenError::UnknownLegacyKey { .. })));
        assert!(matches!(UnsealKeys::default().open_sealed(&sealed).err(), Some(OpenError::UnknownLegacyKey { .. })));
    }
}

#[test]
fn what_the_ecies_crate_wrote_opens() {
    let (secret, public) = ecies::utils::generate_keypair();
    let hex: String = secret.serialize().iter().map(|octet| format!("{octet:02x}")).collect();
    let suite = LegacySuite::EciesSecp256k1;
    let pkcs8 = tls_key();
    let blob = ecies::encrypt(&public.serialize(), &pkcs8).unwrap();
    for file in [hex.as_bytes(), format!("0x{hex}\n").as_bytes(), &secret.serialize()] {
        let key = LegacyUnsealKey::from_file(suite, file).unwrap();
        let sealed = LegacyKey::new(suite, key.id(), blob.clone()).unwrap().into();
        let keys = UnsealKeys::default().with_legacy([key]);
        assert_eq!(keys.open_sealed(&sealed).unwrap().expose_pkcs8(), pkcs8);
        let mut altered = blob.clone();
        altered[70] ^= 1;
        let altered = LegacyKey::new(suite, keys.legacy()[0].id(), altered).unwrap().into();
        assert_eq!(keys.open_sealed(&altered).err(), Some(OpenError::Failed));
    }
}

/// PKCS#8, SEC 1 and PKCS#1, for both kinds of key.
#[test]
fn pem_of_every_usual_kind_is_taken() {
    let rsa = Rsa::generate();
    let suite = LegacySuite::RsaOaepSha256;
    let keys = UnsealKeys::default().with_legacy([rsa.key(suite)]);
    let open = |plain: &[u8]| {
        let blob = rsa.wrap(&OAEP_SHA256_MGF1SHA256, plain);
        keys.open_sealed(&LegacyKey::new(suite, rsa.key(suite).id(), blob).unwrap().into())
    };
    let pkcs8 = tls_key();
    let sec1 = &pkcs8[pkcs8.len() - 109..]; // behind version, algorithm and the OCTET STRING's own header
    for (tag, contents, kind) in [
        ("PRIVATE KEY", pkcs8.as_slice(), KeyKind::EcdsaP256),
        ("EC PRIVATE KEY", sec1, KeyKind::EcdsaP256),
        ("RSA PRIVATE KEY", rsa.pkcs1(), KeyKind::Rsa),
        ("PRIVATE KEY", &rsa.pkcs8, KeyKind::Rsa),
    ] {
        let opened = open(pem::encode(&pem::Pem::new(tag, contents)).as_bytes()).unwrap();
        assert_eq!(opened.kind(), kind, "{tag}");
        match kind {
            KeyKind::EcdsaP256 => drop(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, opened.expose_pkcs8()).expect("a P-256 key"),
            ),
            KeyKind::Rsa => drop(PrivateDecryptingKey::from_pkcs8(opened.expose_pkcs8()).expect("an RSA key")),
        }
    }
    for bad in [b"-----".as_slice(), b"no key", &pem::encode(&pem::Pem::new("DSA PRIVATE KEY", sec1)).into_bytes()] {
        assert_eq!(open(bad).err(), Some(OpenError::Failed));
    }
}

#[test]
fn files_and_blobs_that_are_none_are_refused_with_what_was_expected() {
    let scalar_of_zeros = [0; 32];
    for file in [b"".as_slice(), b"-----BEGIN PRIVATE KEY-----", &scalar_of_zeros, b"0xzz", &[b'f'; 64]] {
        assert_eq!(
            LegacyUnsealKey::from_file(LegacySuite::EciesSecp256k1, file).err(),
            Some(LegacyKeyError::NotSecp256k1)
        );
        let error = LegacyUnsealKey::from_file(LegacySuite::RsaOaepSha256, file).err();
        assert_eq!(error, Some(LegacyKeyError::NotRsa));
    }
    let id = KeyId([0; 16]);
    for suite in LegacySuite::ALL {
        assert!(matches!(LegacyKey::new(suite, id, vec![0; 60]), Err(EnvelopeError::Malformed { .. })));
        assert!(matches!(LegacyKey::new(suite, id, vec![0; 20_000]), Err(EnvelopeError::TooLarge(_))));
        let bytes = LegacyKey::new(suite, id, vec![0; 400]).unwrap().to_bytes();
        for len in 0..bytes.len() {
            assert!(LegacyKey::parse(&bytes[..len]).is_err());
        }
        assert!(LegacyKey::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}

struct Rsa {
    private: PrivateDecryptingKey,
    pkcs8: Vec<u8>,
}

impl Rsa {
    fn generate() -> Self {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&private).unwrap().as_ref().to_vec();
        Self { private, pkcs8 }
    }

    fn key(&self, suite: LegacySuite) -> LegacyUnsealKey {
        let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", self.pkcs8.as_slice()));
        let key = LegacyUnsealKey::from_file(suite, pem.as_bytes()).unwrap();
        let pkcs1 = pem::encode(&pem::Pem::new("RSA PRIVATE KEY", self.pkcs1()));
        assert_eq!(LegacyUnsealKey::from_file(suite, pkcs1.as_bytes()).unwrap().id(), key.id());
        key
    }

    /// The octets inside PKCS#8, behind the first 26 for a key of this size.
    fn pkcs1(&self) -> &[u8] {
        &self.pkcs8[26..]
    }

    fn wrap(&self, oaep: &'static OaepAlgorithm, plain: &[u8]) -> Vec<u8> {
        let aes_key = [9; 32];
        let public = OaepPublicEncryptingKey::new(self.private.public_key()).unwrap();
        let mut blob = vec![0; public.ciphertext_size()];
        public.encrypt(oaep, &aes_key, &mut blob, None).unwrap();
        let mut payload = plain.to_vec();
        let nonce = [3; 12];
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &aes_key).unwrap())
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut payload)
            .unwrap();
        [blob.as_slice(), &nonce, &payload].concat()
    }
}

fn tls_key() -> Vec<u8> {
    let pkcs8 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap().to_pkcs8v1().unwrap();
    pkcs8.as_ref().to_vec()
}
