//! The scheme that certseal replaces: RSA-2048-OAEP wraps an AES-256-GCM key, a fresh one for each TLS key.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    encoding::{AsDer, Pkcs8V1Der},
    rand,
    rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey},
};

use rsa::{Oaep, RsaPrivateKey, pkcs8::DecodePrivateKey, sha2::Sha256};

/// The RSA key pair, loaded once by aws-lc and once by the `rsa` crate.
pub(crate) struct RsaWrapping {
    public: OaepPublicEncryptingKey,
    private: OaepPrivateDecryptingKey,
    pure: RsaPrivateKey,
    pem: String,
}

/// A wrapped AES key and what it encrypts.
pub(crate) struct Wrapped {
    key: Vec<u8>,
    payload: Vec<u8>,
}

impl RsaWrapping {
    pub(crate) fn generate() -> Self {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = private.as_der().unwrap();
        Self {
            pem: pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref())),
            pure: RsaPrivateKey::from_pkcs8_der(der.as_ref()).unwrap(),
            public: OaepPublicEncryptingKey::new(private.public_key()).unwrap(),
            private: OaepPrivateDecryptingKey::new(private).unwrap(),
        }
    }

    /// The private half, as the file of a legacy key pair has it.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn seal(&self, tls_key: &[u8]) -> Wrapped {
        let mut aes_key = [0; 32];
        rand::fill(&mut aes_key).unwrap();
        let mut payload = tls_key.to_vec();
        aes(&aes_key).seal_in_place_append_tag(nonce(), Aad::empty(), &mut payload).unwrap();
        let mut key = vec![0; self.public.ciphertext_size()];
        self.public.encrypt(&OAEP_SHA256_MGF1SHA256, &aes_key, &mut key, None).unwrap();
        Wrapped { key, payload }
    }

    pub(crate) fn open(&self, wrapped: &Wrapped) -> Vec<u8> {
        let mut buffer = vec![0; self.private.min_output_size()];
        let aes_key = self.private.decrypt(&OAEP_SHA256_MGF1SHA256, &wrapped.key, &mut buffer, None).unwrap();
        wrapped.payload(aes_key)
    }

    /// The same by the `rsa` crate, blinded, as its documentation asks where others can measure the time.
    pub(crate) fn open_by_rsa_crate(&self, wrapped: &Wrapped) -> Vec<u8> {
        let opened = self.pure.decrypt_blinded(&mut rsa::rand_core::OsRng, Oaep::new::<Sha256>(), &wrapped.key);
        wrapped.payload(&opened.unwrap())
    }
}

impl Wrapped {
    /// As a platform stores it: `LegacySuite::RsaOaepSha256`.
    pub(crate) fn blob(&self) -> Vec<u8> {
        [self.key.as_slice(), &[0; 12], &self.payload].concat()
    }

    fn payload(&self, aes_key: &[u8]) -> Vec<u8> {
        let mut payload = self.payload.clone();
        let length = aes(aes_key).open_in_place(nonce(), Aad::empty(), &mut payload).unwrap().len();
        payload.truncate(length);
        payload
    }
}

fn aes(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap())
}

/// Each AES key encrypts one message.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
