//! Whose private key it is.

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rsa::KeyPair as RsaKeyPair,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use certseal_seal::{KeyKind, TlsPrivateKey, sha256};
use certseal_wire::Digest;

/// The digest of the SubjectPublicKeyInfo that belongs to a private key; none when it is no private key.
pub(crate) fn public_key_digest(key: &TlsPrivateKey) -> Option<Digest> {
    let spki = match key.kind() {
        KeyKind::EcdsaP256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.expose_pkcs8()).ok()?;
            AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).ok()?.as_ref().to_vec()
        }
        KeyKind::Rsa => {
            let pair = RsaKeyPair::from_pkcs8(key.expose_pkcs8()).ok()?;
            AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).ok()?.as_ref().to_vec()
        }
    };
    Some(sha256(&spki))
}
