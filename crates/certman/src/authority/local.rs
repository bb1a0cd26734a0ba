//! A CA in this process, for development and private networks.

use std::path::Path;

use certseal_issuance::{Failure, FailureKind};
use certseal_seal::secret_pem;
use certseal_service::config::{self, ConfigError};
use rcgen::{
    CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::CertificateDer;

pub(crate) struct LocalAuthority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    lifetime_seconds: i64,
}

impl LocalAuthority {
    pub(crate) fn load(certificate: &Path, key: &Path, lifetime_seconds: i64) -> Result<Self, ConfigError> {
        if lifetime_seconds < 1 {
            return Err(ConfigError::invalid(certificate, "expected a lifetime_seconds of at least 1"));
        }
        let chain = certseal_service::tls::certificates(certificate)?;
        let der =
            chain.into_iter().next().ok_or_else(|| ConfigError::invalid(certificate, "expected a certificate"))?;
        let text = config::read_private(key)?;
        let no_key = || ConfigError::invalid(key, "expected a PEM private key");
        let (_, key_der) = secret_pem::decode(text.as_bytes()).ok_or_else(no_key)?;
        let key_pair = KeyPair::try_from(key_der.as_slice()).map_err(|e| ConfigError::invalid(key, e))?;
        let issuer = Issuer::from_ca_cert_der(&der, key_pair).map_err(|e| ConfigError::invalid(certificate, e))?;
        Ok(Self { certificate: der, issuer, lifetime_seconds })
    }

    /// Orders need no state here: the holder of the CSR gets the certificate.
    pub(crate) fn open_order(&self) -> String {
        "local".to_owned()
    }

    pub(crate) fn sign(&self, csr: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        let hopeless = |e: rcgen::Error| Failure::new(FailureKind::Hopeless, format!("the local CA cannot sign: {e}"));
        let mut request = CertificateSigningRequestParams::from_der(&csr.into()).map_err(hopeless)?;
        let mut serial = [0; 16];
        getrandom::fill(&mut serial).map_err(|e| Failure::new(FailureKind::Unavailable, e))?;
        serial[0] &= 0x7f; // a positive integer (RFC 5280, 4.1.2.2)
        let now = std::time::SystemTime::now();
        // An hour back, so that clocks that are a little behind accept it at once (as Let's Encrypt does).
        let start = now - std::time::Duration::from_secs(3600);
        let lifetime = std::time::Duration::from_secs(self.lifetime_seconds.unsigned_abs());
        let params = &mut request.params;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = start.into();
        params.not_after = (now + lifetime).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = request.signed_by(&self.issuer).map_err(hopeless)?;
        Ok(vec![leaf.der().to_vec(), self.certificate.to_vec()])
    }
}
