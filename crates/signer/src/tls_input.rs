//! The messages that a TLS server signs, told from everything else.
//!
//! The signer must not be an oracle for certificate requests, tokens or ACME messages. TLS 1.3 was made for that: its
//! messages begin with 64 spaces and say what they are for. TLS 1.2 signs two random numbers, which the network-facing
//! process chooses, and then an ephemeral public key in a fixed form. A certificate request is of another length, or
//! would need the certificate's own public key to have that form at a fixed place; and texts, such as tokens, have no
//! octets 0 and 3.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use rustls::SignatureScheme;

/// Whether a TLS 1.2 or 1.3 server signs `message` in a handshake, with this scheme.
pub fn is_tls_input(scheme: SignatureScheme, message: &[u8]) -> bool {
    is_certificate_verify(scheme, message) || is_server_key_exchange(scheme, message)
}

/// RFC 8446, 4.4.3: spaces, the context, and the transcript's hash, which is SHA-256 or SHA-384 in all its suites.
fn is_certificate_verify(scheme: SignatureScheme, message: &[u8]) -> bool {
    let transcript = message.strip_prefix(&[b' '; 64]).and_then(|rest| rest.strip_prefix(SERVER_CONTEXT));
    // PKCS #1 v1.5 is for certificates only there (RFC 8446, 4.2.3).
    let is_allowed = scheme == SignatureScheme::ECDSA_NISTP256_SHA256 || RSA_PSS.contains(&scheme);
    is_allowed && transcript.is_some_and(|hash| hash.len() == 32 || hash.len() == 48)
}

/// RFC 8422, 5.4: both randoms, then `ServerECDHParams` with a named curve.
fn is_server_key_exchange(scheme: SignatureScheme, message: &[u8]) -> bool {
    let is_allowed =
        scheme == SignatureScheme::ECDSA_NISTP256_SHA256 || RSA_PSS.contains(&scheme) || RSA_PKCS1.contains(&scheme);
    let params = message.get(RANDOMS..).unwrap_or_default();
    is_allowed
        && match params {
            [NAMED_CURVE, 0x00, 0x1d, 32, point @ ..] => point.len() == 32,
            [NAMED_CURVE, 0x00, 0x17, 65, point @ ..] => is_point(&ECDSA_P256_SHA256_ASN1, point, 65),
            [NAMED_CURVE, 0x00, 0x18, 97, point @ ..] => is_point(&ECDSA_P384_SHA384_ASN1, point, 97),
            _ => false,
        }
}

/// Whether it is uncompressed and on the curve: octets that were put there for another purpose are not.
fn is_point(curve: &'static EcdsaVerificationAlgorithm, point: &[u8], length: usize) -> bool {
    point.len() == length && point.first() == Some(&4) && ParsedPublicKey::new(curve, point).is_ok()
}

const SERVER_CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";

/// Of client and server (RFC 5246, 7.4.1).
const RANDOMS: usize = 32 + 32;

/// RFC 8422, 5.4: ECCurveType.
const NAMED_CURVE: u8 = 3;

const RSA_PSS: [SignatureScheme; 3] =
    [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PSS_SHA384, SignatureScheme::RSA_PSS_SHA512];

const RSA_PKCS1: [SignatureScheme; 3] =
    [SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::RSA_PKCS1_SHA384, SignatureScheme::RSA_PKCS1_SHA512];

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        agreement::{ECDH_P256, ECDH_P384, PrivateKey, X25519},
        encoding::{AsBigEndian, EcPublicKeyUncompressedBin},
    };
    use rustls::SignatureScheme as Scheme;

    use super::*;

    fn tls13(context: &[u8], hash: usize) -> Vec<u8> {
        [&[b' '; 64], context, &vec![7; hash]].concat()
    }

    fn tls12(curve: u16, point: &[u8]) -> Vec<u8> {
        [&[9; 64][..], &[3], &curve.to_be_bytes(), &[point.len() as u8], point].concat()
    }

    #[test]
    fn what_tls_servers_sign_is_signed() {
        let point = |key: PrivateKey| {
            let public = key.compute_public_key().unwrap();
            let octets: EcPublicKeyUncompressedBin<'_> = public.as_be_bytes().unwrap();
            octets.as_ref().to_vec()
        };
        let x25519 = PrivateKey::generate(&X25519).unwrap().compute_public_key().unwrap();
        for message in [
            tls13(SERVER_CONTEXT, 32),
            tls13(SERVER_CONTEXT, 48),
            tls12(0x1d, x25519.as_ref()),
            tls12(0x17, &point(PrivateKey::generate(&ECDH_P256).unwrap())),
            tls12(0x18, &point(PrivateKey::generate(&ECDH_P384).unwrap())),
        ] {
            for scheme in [Scheme::ECDSA_NISTP256_SHA256, Scheme::RSA_PSS_SHA256, Scheme::RSA_PSS_SHA512] {
                assert!(is_tls_input(scheme, &message), "{scheme:?} {message:02x?}");
            }
        }
        assert!(is_tls_input(Scheme::RSA_PKCS1_SHA256, &tls12(0x1d, x25519.as_ref())));
    }

    #[test]
    fn what_tls_servers_do_not_sign_is_not_signed() {
        let refused = |scheme, message: &[u8]| assert!(!is_tls_input(scheme, message), "{scheme:?} {message:02x?}");
        let key = rcgen::KeyPair::generate().unwrap();
        let params = |names: &[&str]| {
            rcgen::CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        for request in [params(&["shop.example"]), params(&[]), params(&["a.b"])] {
            let request = request.serialize_request(&key).unwrap();
            refused(Scheme::ECDSA_NISTP256_SHA256, request.der());
            // The signed part of it: without the outer sequence's head, its algorithm and its signature.
            for end in [100, 133, 165] {
                refused(Scheme::ECDSA_NISTP256_SHA256, request.der().get(3..3 + end).unwrap_or_default());
            }
        }
        for scheme in [Scheme::ECDSA_NISTP256_SHA256, Scheme::RSA_PSS_SHA256, Scheme::RSA_PKCS1_SHA256] {
            refused(scheme, b"");
            refused(scheme, b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJzaG9wIn0");
            refused(scheme, &[b'e'; 100]);
            refused(scheme, &tls13(b"TLS 1.3, client CertificateVerify\0", 32));
            for hash in [0, 20, 31, 33, 47, 49, 64] {
                refused(scheme, &tls13(SERVER_CONTEXT, hash));
            }
            refused(scheme, &tls13(SERVER_CONTEXT, 32)[1..]);
            // Points that are cut, too long, not on their curve, compressed, or of no curve at all.
            refused(scheme, &tls12(0x1d, &[7; 31]));
            refused(scheme, &tls12(0x1d, &[7; 33]));
            refused(scheme, &tls12(0x17, &[4; 65]));
            refused(scheme, &tls12(0x17, &[2; 33]));
            refused(scheme, &tls12(0x18, &[4; 97]));
            refused(scheme, &tls12(0x19, &[7; 133]));
            refused(scheme, &tls12(0x1d, &[7; 32])[1..]);
            refused(scheme, &[tls12(0x1d, &[7; 32]), vec![0]].concat());
        }
        refused(Scheme::RSA_PKCS1_SHA256, &tls13(SERVER_CONTEXT, 32));
        for scheme in [Scheme::ED25519, Scheme::RSA_PKCS1_SHA1, Scheme::ECDSA_NISTP384_SHA384, Scheme::Unknown(7)] {
            refused(scheme, &tls13(SERVER_CONTEXT, 32));
            refused(scheme, &tls12(0x1d, &[7; 32]));
        }
    }
}
