//! The payload's keys: from the content key, bound to one header.

use certseal_wire::Digest;
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{
    Secret, TlsPrivateKey,
    hpke::{Aead, aead_seal},
};

/// AES-256-GCM key and key commitment of one payload.
///
/// `HKDF-SHA256(salt = header hash, ikm = content key, info = "certseal payload v1")` gives 64 octets: the key, then the
/// commitment. AES-GCM alone does not commit to its key: one ciphertext can be made that opens under two keys
/// (Albertini et al., USENIX Security 2022). The commitment, stored in the clear and compared before opening, rules that out.
pub struct PayloadKeys {
    key: Secret<32>,
    commitment: [u8; 32],
}

/// The key seals exactly one message, so the nonce can be fixed.
pub(crate) const NONCE: [u8; 12] = [0; 12];

impl PayloadKeys {
    /// Derives the keys of the payload under the header with hash `header`.
    pub fn derive(content_key: &Secret<32>, header: &Digest) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(&header.0), content_key.expose());
        // 64 octets are within HKDF's limit of 8,160.
        let both: Secret<64> =
            Secret::fill(|out| hkdf.expand(b"certseal payload v1", out)).expect("within HKDF's limit");
        let (key, commitment) = both.expose().split_first_chunk::<32>().expect("64 octets hold 32");
        let key = Secret::copy_of(key);
        let commitment = commitment.try_into().expect("64 octets without 32 are 32");
        Self { key, commitment }
    }

    /// The commitment to the key. It is public.
    pub fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// Whether `commitment` is the one to this key, in constant time.
    pub fn is_committed_by(&self, commitment: &[u8; 32]) -> bool {
        self.commitment.ct_eq(commitment).into()
    }

    /// The AES-256-GCM key.
    pub fn expose_key(&self) -> &Secret<32> {
        &self.key
    }

    /// The AES-256-GCM nonce.
    pub fn nonce(&self) -> &'static [u8; 12] {
        &NONCE
    }

    /// Encrypts `key`: ciphertext and tag.
    pub(crate) fn seal(&self, key: &TlsPrivateKey) -> Vec<u8> {
        let mut buffer = key.expose_encoding();
        aead_seal(Aead::Aes256Gcm, &self.key, &NONCE, &mut buffer);
        std::mem::take(&mut *buffer)
    }
}
