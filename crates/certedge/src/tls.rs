//! The TLS side of visitors' connections.

use std::sync::Arc;

use certseal_resolver::SealedResolver;
use rustls::{ServerConfig, crypto::aws_lc_rs::Ticketer, version};

/// TLS 1.2 and 1.3 with ECDHE only, X25519MLKEM768 first, and session tickets under keys that are replaced in time.
pub(crate) fn server_config(resolver: Arc<SealedResolver>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(certseal_service::tls::provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rustls::{NamedGroup, crypto::KeyExchangeAlgorithm};

    /// The suites and groups come from the provider: this fails when it begins to offer others.
    #[test]
    fn only_forward_secret_suites_are_offered_and_the_post_quantum_group_first() {
        let provider = certseal_service::tls::provider();
        for suite in &provider.cipher_suites {
            if let rustls::SupportedCipherSuite::Tls12(tls12) = suite {
                assert_eq!(tls12.kx, KeyExchangeAlgorithm::ECDHE, "{suite:?}");
            }
        }
        assert_eq!(provider.kx_groups[0].name(), NamedGroup::X25519MLKEM768);
    }
}
