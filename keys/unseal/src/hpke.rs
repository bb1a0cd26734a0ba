//! HPKE (RFC 9180), base mode: the recipient's side.

use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit, aead::AeadInOut};
use certseal_seal::{
    Secret,
    hpke::{Aead, KeySchedule},
};
use zeroize::Zeroizing;

use crate::{Agreement, AgreementFailed};

/// Decap (RFC 9180, 4.1): the shared secret that `enc` encapsulates.
///
/// # Errors
/// When `enc` is not a valid public key of the KEM, or the key cannot be reached.
pub fn decap(key: &dyn Agreement, enc: &[u8]) -> Result<Secret<32>, AgreementFailed> {
    let dh = key.agree(enc)?;
    Ok(key.kem().shared_secret(&dh, enc, key.public_key()))
}

/// Open (RFC 9180, 5.2) for the message with number `seq`. None when it is not genuine.
pub fn open_message(schedule: &KeySchedule, seq: u64, aad: &[u8], ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut nonce = *schedule.base_nonce.expose();
    for (octet, counter) in nonce[4..].iter_mut().zip(seq.to_be_bytes()) {
        *octet ^= counter;
    }
    aead_open(schedule.aead, &schedule.key, &nonce, aad, ciphertext)
}

pub(crate) fn aead_open(
    aead: Aead,
    key: &Secret<32>,
    nonce: &[u8; 12],
    aad: &[u8],
    ciphertext: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let nonce = nonce.into();
    match aead {
        Aead::Aes128Gcm => {
            Aes128Gcm::new_from_slice(&key.expose()[..16]).ok()?.decrypt_in_place(nonce, aad, &mut *buffer)
        }
        Aead::Aes256Gcm => Aes256Gcm::new(key.expose().into()).decrypt_in_place(nonce, aad, &mut *buffer),
    }
    .ok()?;
    Some(buffer)
}
