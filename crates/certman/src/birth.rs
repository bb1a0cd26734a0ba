//! The life of a TLS private key in certman: it is generated, sealed and wiped within one call.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use certseal_seal::{KeyKind, Recipient, SealError, SealRequest, SigningKey, TlsPrivateKey, seal, spki_digest};
use certseal_wire::{Base64, NameSet};
use rcgen::{CertificateParams, DistinguishedName, PublicKeyData};

use crate::site::SealedKey;

/// Why no sealed key came into being.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BirthError {
    #[error("no key could be generated: {0}")]
    Generation(#[from] aws_lc_rs::error::Unspecified),
    #[error("no certificate signing request could be made: {0}")]
    Request(#[from] rcgen::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Generates an ECDSA P-256 key, makes a CSR for `names`, and seals the key to `recipients`. The key exists in the
/// clear only while this function runs.
pub(crate) fn sealed_key(
    names: &NameSet,
    key_version: u64,
    recipients: &[Recipient],
    issuer: &SigningKey,
) -> Result<SealedKey, BirthError> {
    let key = NewKey(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?);
    let mut params = CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?;
    // Both the PKCS#8 document and `TlsPrivateKey` wipe their octets when they are dropped, and so does aws-lc.
    let private = TlsPrivateKey::new(KeyKind::EcdsaP256, key.0.to_pkcs8v1()?.as_ref().to_vec());
    let suite = recipients.first().ok_or(SealError::Recipients(0))?.suite();
    let spki = spki_digest(&key.subject_public_key_info());
    let envelope = seal(&SealRequest { suite, names, spki, key_version, recipients }, &private, issuer)?;
    Ok(SealedKey { csr: Base64(csr.der().to_vec()), envelope: Base64(envelope.to_bytes()) })
}

/// A key that rcgen can sign a CSR with, without keeping a copy of it.
struct NewKey(EcdsaKeyPair);

impl PublicKeyData for NewKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for NewKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}
