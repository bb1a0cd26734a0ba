//! The files of a TLS identity, and the caller behind a client certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use certseal_guarded::pem;
use certseal_wire::{Caller, TrustDomain};
use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::Deserialize;
use x509_parser::{extensions::GeneralName, prelude::FromDer};
use zeroize::Zeroizing;

use super::revocation::Revocations;
use crate::config::{self, ConfigError};

/// Where an mTLS identity and the CA of its peers are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The private CA that peers must be certified by, PEM.
    pub ca: PathBuf,
    /// Our certificate chain, PEM.
    pub certificate: PathBuf,
    /// Our private key, PEM; readable by its owner only.
    pub key: PathBuf,
    /// The revocation list of the private CA, PEM or DER: a server refuses clients with a certificate in it, and
    /// clients of a CA that it does not cover.
    #[serde(default)]
    pub crl: Option<PathBuf>,
}

impl TlsFiles {
    /// A server that accepts only clients with a certificate of the CA.
    ///
    /// # Errors
    /// [`ConfigError`] names the file that is not usable.
    pub fn server_config(&self) -> Result<ServerConfig, ConfigError> {
        self.server_config_with(self.revocations()?.as_ref())
    }

    pub(super) fn revocations(&self) -> Result<Option<Revocations>, ConfigError> {
        self.crl.as_deref().map(Revocations::read).transpose()
    }

    pub(super) fn server_config_with(&self, revocations: Option<&Revocations>) -> Result<ServerConfig, ConfigError> {
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider());
        if let Some(revocations) = revocations {
            // A list past its next update goes on counting: to refuse everybody would be worse, and the log says it.
            verifier = verifier.with_crls(revocations.ders()).only_check_end_entity_revocation();
        }
        let verifier = verifier.build().map_err(|e| ConfigError::invalid(&self.ca, e))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| ConfigError::invalid(&self.certificate, e))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.identity()?);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(server)
    }

    pub(super) fn roots(&self) -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|e| ConfigError::invalid(&self.ca, e))?;
        }
        Ok(roots)
    }

    /// Our certificate with its key.
    pub(super) fn identity(&self) -> Result<Arc<SingleCertAndKey>, ConfigError> {
        Ok(Arc::new(certified(&self.certificate, &self.key)?.into()))
    }
}

/// A certificate chain, PEM, with its private key, PEM, of which nothing but what signs stays in memory.
///
/// # Errors
/// [`ConfigError`] when a file is not usable, others than the key's owner can read it, or the two do not belong together.
pub fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, ConfigError> {
    let text = config::read_private(key)?;
    let no_key = |detail: &str| ConfigError::invalid(key, format!("expected a PEM private key{detail}"));
    let (tag, der) = pem::decode(text.as_bytes()).ok_or_else(|| no_key(""))?;
    let private = Zeroizing::new(match tag {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(der.to_vec().into()),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(der.to_vec().into()),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(der.to_vec().into()),
        other => return Err(no_key(&format!(", got {other:?}"))),
    });
    let signs = aws_lc_rs::sign::any_supported_type(&private).map_err(|e| ConfigError::invalid(key, e))?;
    let certified = CertifiedKey::new(certificates(certificate)?, signs);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(e) => Err(ConfigError::invalid(certificate, e)),
    }
}

/// The certificates in a PEM file; at least one.
///
/// # Errors
/// [`ConfigError`] when there is none, or one does not parse.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let text = config::read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(ConfigError::invalid(path, "expected a PEM certificate, found none")),
        Err(e) => Err(ConfigError::invalid(path, format!("expected PEM certificates: {e}"))),
    }
}

/// The cryptography of every TLS connection: aws-lc, X25519MLKEM768 first.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The holder of a client certificate: its one SPIFFE ID (SPIFFE X509-SVID, 2).
///
/// # Errors
/// Says what the certificate lacks.
pub fn caller(certificate: &CertificateDer<'_>, domain: &TrustDomain) -> Result<Caller, String> {
    spiffe_id(certificate, |uri| Caller::from_spiffe_id(uri, domain).map_err(|e| e.to_string()))
}

/// The last part of the SPIFFE ID in our own certificate: the name by which our peers call us.
///
/// # Errors
/// [`ConfigError`] when the file holds no certificate with a SPIFFE ID.
pub fn own_name(path: &Path) -> Result<String, ConfigError> {
    let chain = certificates(path)?;
    let name = |uri: &str| Ok(uri.rsplit('/').next().unwrap_or_default().to_owned());
    spiffe_id(&chain[0], name).map_err(|e| ConfigError::invalid(path, e))
}

pub(super) fn spiffe_id<T>(
    certificate: &CertificateDer<'_>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, String> {
    let (_, certificate) =
        x509_parser::certificate::X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
    let names = certificate.subject_alternative_name().map_err(|e| e.to_string())?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => read(uri),
        _ => Err("expected a certificate with exactly one URI name, its SPIFFE ID".to_owned()),
    }
}
