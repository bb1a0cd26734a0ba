//! The client's side of mTLS: which daemon it is that answers.
//!
//! A DNS name and the private CA are not enough: every daemon's certificate would pass for another's, whoever leads the
//! name to it. A client goes by the SPIFFE ID too, and by the CA's revocation list.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use certseal_wire::{Caller, Role, TrustDomain};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Deserialize;

use super::{
    files::{TlsFiles, certificates, provider, spiffe_id},
    live::{Followed, LOOK},
    revocation::Revocations,
};
use crate::config::ConfigError;

/// certstore's name, in its SPIFFE ID `spiffe://TRUST-DOMAIN/service/certstore`.
pub const CERTSTORE: &str = "certstore";

/// certman's name, in the SPIFFE ID that it has as a server.
pub const CERTMAN: &str = "certman";

/// Where a certstore that we call is, and our identity there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Such as `https://certstore.internal:7443`.
    pub url: String,
    /// The private CA that the daemon must be certified by, PEM.
    pub ca: PathBuf,
    /// Our certificate chain, PEM.
    pub certificate: PathBuf,
    /// Our private key, PEM; readable by its owner only.
    pub key: PathBuf,
    /// The revocation list of the private CA, PEM or DER: a daemon in it is refused, and one of a CA that it does not
    /// cover.
    #[serde(default)]
    pub crl: Option<PathBuf>,
    /// The names that the daemon may have in its SPIFFE ID, `service/NAME`; several for several daemons.
    #[serde(default = "certstore")]
    pub names: Vec<String>,
}

impl Peer {
    /// The certstore at `url`, with the identity and the CA in `files`.
    pub fn new(url: String, files: TlsFiles) -> Self {
        let TlsFiles { ca, certificate, key, crl } = files;
        Self { url, ca, certificate, key, crl, names: certstore() }
    }

    /// A client that accepts this daemon only: its configuration for the next connection, which follows the files.
    ///
    /// # Errors
    /// [`ConfigError`] names the file that is not usable now. Later ones are logged, and the last good files count.
    pub fn client_config(&self) -> Result<impl Fn() -> Arc<ClientConfig> + Send + Sync + use<>, ConfigError> {
        let Self { ca, certificate, key, crl, names, .. } = self.clone();
        TlsFiles { ca, certificate, key, crl }.live_client(names)
    }
}

fn certstore() -> Vec<String> {
    vec![CERTSTORE.to_owned()]
}

impl TlsFiles {
    /// A client that accepts only servers with a certificate of the CA and one of the SPIFFE IDs `service/NAME`, in the
    /// trust domain of our own certificate.
    ///
    /// # Errors
    /// [`ConfigError`] names the file that is not usable, or the name that is none.
    pub fn client_config(&self, names: &[impl AsRef<str>]) -> Result<ClientConfig, ConfigError> {
        self.client_config_with(self.revocations()?.as_ref(), names)
    }

    /// The same, as it is in the files whenever it is asked for.
    ///
    /// # Errors
    /// As of [`Self::client_config`]. Later ones are logged, and the last good files count.
    pub fn live_client(
        self,
        names: Vec<String>,
    ) -> Result<impl Fn() -> Arc<ClientConfig> + Send + Sync + use<>, ConfigError> {
        let build =
            move |files: &TlsFiles, revocations: Option<&Revocations>| files.client_config_with(revocations, &names);
        let (followed, config) = Followed::start(self, build)?;
        let state = Mutex::new((followed, Arc::new(config), Instant::now()));
        Ok(move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let (followed, config, looked) = &mut *state;
            if looked.elapsed() >= LOOK {
                *looked = Instant::now();
                if let Some(new) = followed.look() {
                    *config = Arc::new(new);
                }
                followed.warn_if_overdue(super::live::now());
            }
            config.clone()
        })
    }

    fn client_config_with(
        &self,
        revocations: Option<&Revocations>,
        names: &[impl AsRef<str>],
    ) -> Result<ClientConfig, ConfigError> {
        let mut chain = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), provider());
        if let Some(revocations) = revocations {
            // As for a server: a list past its next update goes on counting.
            chain = chain.with_crls(revocations.ders()).only_check_end_entity_revocation();
        }
        let chain = chain.build().map_err(|e| ConfigError::invalid(&self.ca, e))?;
        let domain = self.trust_domain()?;
        let expected = names.iter().map(|name| daemon_id(name.as_ref(), &domain));
        let expected =
            expected.collect::<Result<Vec<_>, _>>().map_err(|e| ConfigError::invalid(&self.certificate, e))?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| ConfigError::invalid(&self.certificate, e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(DaemonVerifier { chain, expected }))
            .with_client_cert_resolver(self.identity()?);
        Ok(config)
    }

    /// The trust domain of our own SPIFFE ID.
    fn trust_domain(&self) -> Result<TrustDomain, ConfigError> {
        let own = &certificates(&self.certificate)?[0];
        let domain = |uri: &str| {
            let domain = uri.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
            let domain = domain.ok_or_else(|| format!("expected a SPIFFE ID, got {uri}"))?;
            domain.parse::<TrustDomain>().map_err(|e| e.to_string())
        };
        spiffe_id(own, domain).map_err(|e| ConfigError::invalid(&self.certificate, e))
    }
}

/// The SPIFFE ID of the daemon `name`.
fn daemon_id(name: &str, domain: &TrustDomain) -> Result<String, String> {
    let id = Caller { role: Role::Service, name: name.to_owned() }.spiffe_id(domain);
    match Caller::from_spiffe_id(&id, domain) {
        Ok(Caller { role: Role::Service, .. }) => Ok(id),
        _ => Err(format!("expected a daemon's name, such as {CERTSTORE}, got {name:?}")),
    }
}

/// Accepts what webpki does, if it is one of the daemons that are expected.
#[derive(Debug)]
struct DaemonVerifier {
    chain: Arc<WebPkiServerVerifier>,
    /// SPIFFE IDs.
    expected: Vec<String>,
}

impl ServerCertVerifier for DaemonVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let is_expected =
            |uri: &str| if self.expected.iter().any(|id| id == uri) { Ok(()) } else { Err(format!("it is {uri}")) };
        spiffe_id(end_entity, is_expected).map_err(|came| {
            let detail = format!("expected {}, {came}", self.expected.join(" or "));
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(OtherDaemon(detail)))))
        })?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The certificate is good, and somebody else's.
#[derive(thiserror::Error)]
#[error("{0}")]
struct OtherDaemon(String);

/// rustls prints it so.
impl fmt::Debug for OtherDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;

/// The configuration for servers of others, which the CAs in the PEM file `roots` certify.
///
/// # Errors
/// [`ConfigError`] when the file has no certificate.
pub fn web_client(roots: &Path) -> Result<ClientConfig, ConfigError> {
    let mut store = RootCertStore::empty();
    let (_, _ignored) = store.add_parsable_certificates(certificates(roots)?);
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(|e| ConfigError::invalid(roots, e))?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}
