//! The public key of a certificate.

use certseal_seal::KeyKind;
use rustls::{SignatureAlgorithm, SignatureScheme};
use x509_parser::{oid_registry, prelude::FromDer, x509::SubjectPublicKeyInfo};

/// The public key of a leaf certificate.
#[derive(Debug, Clone)]
pub struct LeafKey {
    kind: KeyKind,
    spki: Vec<u8>,
}

impl LeafKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280, 4.1); none unless it is of a kind that certseal seals.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).ok()?;
        let algorithm = &parsed.algorithm;
        let kind = if algorithm.algorithm == oid_registry::OID_PKCS1_RSAENCRYPTION {
            KeyKind::Rsa
        } else if algorithm.algorithm == oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY
            && algorithm.parameters.as_ref()?.as_oid().ok()? == oid_registry::OID_EC_P256
        {
            KeyKind::EcdsaP256
        } else {
            return None;
        };
        Some(Self { kind, spki: spki.to_vec() })
    }

    /// The kind of the key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The name of this kind of key in rustls.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            KeyKind::EcdsaP256 => SignatureAlgorithm::ECDSA,
            KeyKind::Rsa => SignatureAlgorithm::RSA,
        }
    }

    /// The schemes by which the key can sign, the preferred first.
    pub fn schemes(&self) -> &'static [SignatureScheme] {
        match self.kind {
            KeyKind::EcdsaP256 => ECDSA,
            KeyKind::Rsa => RSA_SCHEMES,
        }
    }
}

/// The scheme of a key on P-256.
pub(crate) const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];

/// In the order in which rustls prefers them for a key that is not sealed.
pub(crate) const RSA_SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];
