//! TLS to servers of which the certificate is looked at, and not the chain: nothing is told to them in confidence.

use std::sync::Arc;

use certseal_service::tls::provider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The certificates that a server may present.
#[derive(Debug, Clone)]
pub(crate) enum Presented {
    /// Any, as a CA that validates a name takes it.
    Any,
    /// One alone.
    Only(Leaf),
}

/// A certificate, and the kind of its key.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) der: Vec<u8>,
    /// Its key is an RSA key. A server that has one of each kind chooses by what the client verifies.
    pub(crate) is_rsa: bool,
}

/// A client that goes on with servers which present what `presented` says, and have its key.
///
/// # Errors
/// When the cryptography has none of the usual protocol versions.
pub(crate) fn client(presented: Presented) -> Result<ClientConfig, Error> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let verifier = Verifier { presented, algorithms };
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

#[derive(Debug)]
struct Verifier {
    presented: Presented,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.presented {
            Presented::Only(leaf) if leaf.der[..] != end_entity[..] => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let schemes = self.algorithms.supported_schemes();
        match &self.presented {
            Presented::Only(leaf) => schemes.into_iter().filter(|scheme| is_rsa(*scheme) == leaf.is_rsa).collect(),
            Presented::Any => schemes,
        }
    }
}

fn is_rsa(scheme: SignatureScheme) -> bool {
    matches!(
        scheme,
        SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
            | SignatureScheme::RSA_PSS_SHA256
            | SignatureScheme::RSA_PSS_SHA384
            | SignatureScheme::RSA_PSS_SHA512
    )
}
