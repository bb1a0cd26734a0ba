//! HPKE (RFC 9180) in base mode: the sender's side, and the key schedule that both sides share.
//!
//! Names follow the RFC: `enc` is the encapsulated key, `pkR` the recipient's public key, `dh` the raw ECDH output.
//! The recipient's side needs a private key and lives in `certseal-unseal`. KDF: HKDF-SHA256 throughout.

use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit, aead::AeadInOut};
use aws_lc_rs::{
    agreement::{self, EphemeralPrivateKey, UnparsedPublicKey},
    rand::SystemRandom,
};
use hkdf::{Hkdf, HkdfExtract};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::Secret;

/// Length of an AES-GCM tag.
pub const TAG: usize = 16;

/// The key encapsulation mechanisms (RFC 9180, 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kem {
    /// DHKEM(P-256, HKDF-SHA256).
    P256 = 0x0010,
    /// DHKEM(X25519, HKDF-SHA256).
    X25519 = 0x0020,
}

impl Kem {
    /// Npk and Nenc: octets of a serialized public key.
    pub fn public_key_len(self) -> usize {
        match self {
            Self::P256 => 65,
            Self::X25519 => 32,
        }
    }

    fn suite_id(self) -> [u8; 5] {
        let [high, low] = (self as u16).to_be_bytes();
        [b'K', b'E', b'M', high, low]
    }

    fn algorithm(self) -> &'static agreement::Algorithm {
        match self {
            Self::P256 => &agreement::ECDH_P256,
            Self::X25519 => &agreement::X25519,
        }
    }

    /// ExtractAndExpand (RFC 9180, 4.1): the shared secret from `dh`, `enc` and `pkR`.
    pub fn shared_secret(self, dh: &Secret<32>, enc: &[u8], public_key: &[u8]) -> Secret<32> {
        let id = self.suite_id();
        let (_, prk) = labeled_extract(&id, b"", b"eae_prk", dh.expose());
        labeled_expand(&prk, &id, b"shared_secret", &[enc, public_key])
    }

    /// Encap (RFC 9180, 4.1): a fresh shared secret and its encapsulation for the holder of `pkR`. None when the
    /// public key is not a valid point.
    pub fn encap(self, public_key: &[u8]) -> Option<(Secret<32>, Vec<u8>)> {
        let ephemeral = EphemeralPrivateKey::generate(self.algorithm(), &SystemRandom::new()).ok()?;
        let enc = ephemeral.compute_public_key().ok()?.as_ref().to_vec();
        let peer = UnparsedPublicKey::new(self.algorithm(), public_key);
        let dh =
            agreement::agree_ephemeral(ephemeral, peer, (), |dh| dh.try_into().map(Secret::copy_of).map_err(|_| ()))
                .ok()?;
        let shared = self.shared_secret(&dh, &enc, public_key);
        Some((shared, enc))
    }
}

/// The AEADs (RFC 9180, 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Aead {
    /// AES-128-GCM.
    Aes128Gcm = 0x0001,
    /// AES-256-GCM.
    Aes256Gcm = 0x0002,
}

/// The yield of the key schedule: the key, and the nonce of the first message.
pub struct KeySchedule {
    /// Which AEAD the key is for.
    pub aead: Aead,
    /// The key; AES-128-GCM uses its first 16 octets.
    pub key: Secret<32>,
    /// The nonce of message 0.
    pub base_nonce: Secret<12>,
}

impl KeySchedule {
    /// KeySchedule (RFC 9180, 5.1) in base mode.
    pub fn base(kem: Kem, aead: Aead, shared_secret: &Secret<32>, info: &[u8]) -> Self {
        let mut id = *b"HPKE\0\0\0\x01\0\0";
        id[4..6].copy_from_slice(&(kem as u16).to_be_bytes());
        id[8..].copy_from_slice(&(aead as u16).to_be_bytes());
        let (psk_id_hash, _) = labeled_extract(&id, b"", b"psk_id_hash", b"");
        let (info_hash, _) = labeled_extract(&id, b"", b"info_hash", info);
        let context: [&[u8]; 3] = [&[0x00], &psk_id_hash, &info_hash];
        let (_, secret) = labeled_extract(&id, shared_secret.expose(), b"secret", b"");
        let key = match aead {
            Aead::Aes256Gcm => labeled_expand(&secret, &id, b"key", &context),
            Aead::Aes128Gcm => {
                let short: Secret<16> = labeled_expand(&secret, &id, b"key", &context);
                let mut key = Zeroizing::new([0; 32]);
                key[..16].copy_from_slice(short.expose());
                Secret::copy_of(&key)
            }
        };
        Self { aead, key, base_nonce: labeled_expand(&secret, &id, b"base_nonce", &context) }
    }

    /// Seal (RFC 9180, 5.2) for the first and only message, with empty AAD: ciphertext and tag.
    pub fn seal_once(self, plaintext: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(plaintext.len() + TAG);
        buffer.extend_from_slice(plaintext);
        aead_seal(self.aead, &self.key, self.base_nonce.expose(), &mut buffer);
        buffer
    }
}

/// Encrypts `buffer` in place and appends the tag; the AAD is empty.
pub(crate) fn aead_seal(aead: Aead, key: &Secret<32>, nonce: &[u8; 12], buffer: &mut Vec<u8>) {
    let nonce = nonce.into();
    match aead {
        Aead::Aes128Gcm => Aes128Gcm::new_from_slice(&key.expose()[..16])
            .expect("the key has 16 octets")
            .encrypt_in_place(nonce, b"", buffer),
        Aead::Aes256Gcm => Aes256Gcm::new(key.expose().into()).encrypt_in_place(nonce, b"", buffer),
    }
    // AES-GCM refuses more than 2^36 octets only; payloads are bounded far below.
    .expect("the plaintext is short");
}

/// LabeledExtract (RFC 9180, 4).
fn labeled_extract(suite_id: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> ([u8; 32], Hkdf<Sha256>) {
    let mut extract = HkdfExtract::<Sha256>::new(Some(salt));
    for part in [b"HPKE-v1", suite_id, label, ikm] {
        extract.input_ikm(part);
    }
    let (prk, hkdf) = extract.finalize();
    (prk.into(), hkdf)
}

/// LabeledExpand (RFC 9180, 4), with `info` in parts.
fn labeled_expand<const N: usize>(prk: &Hkdf<Sha256>, suite_id: &[u8], label: &[u8], info: &[&[u8]]) -> Secret<N> {
    let length = (N as u16).to_be_bytes();
    let mut parts: [&[u8]; 8] = [&[]; 8];
    parts[..4].copy_from_slice(&[&length, b"HPKE-v1", suite_id, label]);
    parts[4..4 + info.len()].copy_from_slice(info);
    // HKDF-SHA256 refuses more than 8,160 octets only; N is at most 32 here.
    Secret::fill(|out| prk.expand_multi_info(&parts, out)).expect("N is within HKDF's limit")
}
