//! Certificates that answer tls-alpn-01 (RFC 8737, 3).

use std::sync::Arc;

use certseal_seal::sha256;
use certseal_wire::DnsName;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, SanType};
use rustls::{crypto::aws_lc_rs::sign::any_ecdsa_type, sign::CertifiedKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A self-signed certificate for `host` alone, with the digest of `key_authorization` in it. It certifies nothing to anybody
/// but the CA that asked, so its key is a new P-256 key, which goes with the handshake.
pub(crate) fn certificate(host: &DnsName, key_authorization: &str) -> anyhow::Result<Arc<CertifiedKey>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "ACME challenge");
    params.subject_alt_names = vec![SanType::DnsName(host.as_str().try_into()?)];
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&sha256(key_authorization.as_bytes()).0)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], any_ecdsa_type(&key)?)))
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

    use super::*;

    #[test]
    fn a_certificate_names_the_host_alone_and_has_the_digest_in_a_critical_extension() {
        let host: DnsName = "shop.a.example".parse().unwrap();
        let made = certificate(&host, "t.print").unwrap();
        let (_, read) = X509Certificate::from_der(&made.cert[0]).unwrap();
        let names = &read.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert!(matches!(names[..], [GeneralName::DNSName("shop.a.example")]), "{names:?}");

        let is_acme = |id: String| id == "1.3.6.1.5.5.7.1.31";
        let found: Vec<_> = read.extensions().iter().filter(|it| is_acme(it.oid.to_id_string())).collect();
        let [extension] = found[..] else { panic!("{found:?}") };
        assert!(extension.critical);
        // An OCTET STRING of 32 octets: `printf t.print | openssl dgst -sha256`.
        let digest = "de22693b5db07c71ca54a99ba68e15aab5db4d905beb3f001795e7bf3a712e2e";
        let hex: String = extension.value.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(hex, format!("0420{digest}"));

        assert!(read.validity().is_valid());
        assert_eq!(read.issuer().as_raw(), read.subject().as_raw(), "CAs want it self-signed");
        let again = certificate(&host, "t.print").unwrap();
        let (_, again) = X509Certificate::from_der(&again.cert[0]).unwrap();
        assert_ne!(read.public_key().raw, again.public_key().raw, "a key is used once");
    }
}
