//! Signatures of CAs over certificates and answers.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why a signature does not count.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsigned {
    /// It is of an algorithm, by its object identifier, that is not verified here.
    Algorithm(String),
    /// It is another key's, or over something else.
    Signature,
}

/// Verifies the signature of `key` over a message. The algorithm is an object identifier as a certificate has it.
///
/// # Errors
/// [`Unsigned`].
pub(crate) fn verify(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &str,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Unsigned> {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let curve = curve.map(|curve| curve.to_id_string());
    let verifier: &'static dyn VerificationAlgorithm = match (algorithm, curve.as_deref()) {
        (ECDSA_SHA256, Some(P256)) => &signature::ECDSA_P256_SHA256_ASN1,
        (ECDSA_SHA256, Some(P384)) => &signature::ECDSA_P384_SHA256_ASN1,
        (ECDSA_SHA384, Some(P256)) => &signature::ECDSA_P256_SHA384_ASN1,
        (ECDSA_SHA384, Some(P384)) => &signature::ECDSA_P384_SHA384_ASN1,
        (RSA_SHA256, _) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (RSA_SHA384, _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (RSA_SHA512, _) => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => return Err(Unsigned::Algorithm(algorithm.to_owned())),
    };
    let key = UnparsedPublicKey::new(verifier, &key.subject_public_key.data);
    key.verify(message, signature).map_err(|_| Unsigned::Signature)
}

/// Signatures (RFC 5758, 3.2; RFC 8017, A.2.4), and curves (RFC 5480, 2.1.1.1).
pub(crate) const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
const RSA_SHA256: &str = "1.2.840.113549.1.1.11";
const RSA_SHA384: &str = "1.2.840.113549.1.1.12";
const RSA_SHA512: &str = "1.2.840.113549.1.1.13";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
