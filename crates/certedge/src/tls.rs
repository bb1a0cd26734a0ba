//! The TLS side of visitors' connections.

use std::{io, sync::Arc};

use certseal_resolver::SealedResolver;
use certseal_wire::DnsName;
use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs::Ticketer},
    server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

/// TLS 1.2 and 1.3 with ECDHE only, X25519MLKEM768 first, and session tickets under keys that are replaced in time.
///
/// Most libraries offer AES-256 before AES-128 and mean nothing by it. SHA-384, which comes with AES-256, has no help from
/// common processors and makes a handshake cost half as much again, so we take AES-128 from whoever offers it. A client
/// that has ChaCha20 first has no help with AES: its order counts.
pub(crate) struct VisitorTls {
    aes_first: Arc<ServerConfig>,
    as_offered: Arc<ServerConfig>,
    /// For a CA that validates a name (RFC 8737): no tickets, and no certificate yet.
    validation: ServerConfig,
    /// For names without a certificate, if there is one for all of them.
    fallback: Option<Fallback>,
}

/// A handshake that was made.
pub(crate) enum Accepted<I> {
    /// With the site's certificate.
    Visitor(TlsStream<I>),
    /// With the one for names that have none: nothing of a site is shown over it.
    Fallback(TlsStream<I>),
    /// Of a CA, which has seen the answer (RFC 8737, 3).
    Validation,
}

/// The certificate for names that have none.
struct Fallback {
    /// Without tickets: whoever comes back begins with a new look at the certificate.
    config: Arc<ServerConfig>,
    sites: Arc<SealedResolver>,
}

impl VisitorTls {
    pub(crate) fn new(resolver: Arc<dyn ResolvesServerCert>) -> Result<Self, rustls::Error> {
        let as_offered = server_config(certseal_service::tls::provider(), resolver.clone())?;
        let validation = validation_config(certseal_service::tls::provider())?;
        let mut provider = (*certseal_service::tls::provider()).clone();
        // Of those with the same key, the order stays as it is.
        provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
        let mut aes_first = server_config(Arc::new(provider), resolver)?;
        aes_first.ignore_client_order = true;
        aes_first.session_storage = as_offered.session_storage.clone();
        aes_first.ticketer = as_offered.ticketer.clone();
        Ok(Self { aes_first: Arc::new(aes_first), as_offered: Arc::new(as_offered), validation, fallback: None })
    }

    /// With a certificate for the names for which `sites` has none.
    ///
    /// # Errors
    /// When the provider has no suite for it.
    pub(crate) fn with_fallback(
        self,
        sites: Arc<SealedResolver>,
        certificate: Arc<CertifiedKey>,
    ) -> Result<Self, rustls::Error> {
        let resolver = Arc::new(OrElse { sites: sites.clone(), certificate });
        let mut config = config_without_tickets(certseal_service::tls::provider(), resolver)?;
        config.alpn_protocols = web_protocols();
        Ok(Self { fallback: Some(Fallback { config: Arc::new(config), sites }), ..self })
    }

    /// The handshake. `answer` is asked for the certificate that answers a CA's challenge for a name; without one the handshake
    /// fails, like that for a name without a certificate. `failed` is told the name that a visitor wanted if the handshake fails.
    pub(crate) async fn accept<I, F>(
        &self,
        stream: I,
        answer: impl FnOnce(DnsName) -> F,
        failed: impl FnOnce(&DnsName),
    ) -> io::Result<Accepted<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
        F: Future<Output = Option<Arc<CertifiedKey>>>,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let to_validate = name_to_validate(&start.client_hello());
        if let Some(name) = to_validate {
            let mut config = self.validation.clone();
            config.cert_resolver = Arc::new(Answer(answer(name).await));
            let mut stream = start.into_stream(Arc::new(config)).await?;
            // The CA has what it came for, and may be gone.
            let _ = stream.shutdown().await;
            return Ok(Accepted::Validation);
        }
        let name = start.client_hello().server_name().and_then(|name| name.parse::<DnsName>().ok());
        let has_none = |fallback: &&Fallback| name.as_ref().is_some_and(|name| !fallback.sites.has_certificate(name));
        let accepted = match self.fallback.as_ref().filter(has_none) {
            Some(fallback) => start.into_stream(fallback.config.clone()).await.map(Accepted::Fallback),
            None => {
                let has_chacha20_first = prefers_chacha20(start.client_hello().cipher_suites());
                let config = if has_chacha20_first { &self.as_offered } else { &self.aes_first };
                start.into_stream(config.clone()).await.map(Accepted::Visitor)
            }
        };
        if let (Err(_), Some(name)) = (&accepted, &name) {
            failed(name);
        }
        accepted
    }
}

/// The name that a CA validates: that of a client which offers `acme-tls/1` and nothing else (RFC 8737, 3).
fn name_to_validate(hello: &ClientHello<'_>) -> Option<DnsName> {
    let mut offered = hello.alpn()?;
    let offers_this_alone = offered.next() == Some(ACME_TLS) && offered.next().is_none();
    hello.server_name().filter(|_| offers_this_alone)?.parse().ok()
}

/// The certificate of one validation, if there is any.
#[derive(Debug)]
struct Answer(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for Answer {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

/// The certificate of a site, or one for all others.
#[derive(Debug)]
struct OrElse {
    sites: Arc<SealedResolver>,
    certificate: Arc<CertifiedKey>,
}

impl ResolvesServerCert for OrElse {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // One that came this moment is better.
        self.sites.resolve(hello).or_else(|| Some(self.certificate.clone()))
    }
}

fn validation_config(provider: Arc<CryptoProvider>) -> Result<ServerConfig, rustls::Error> {
    let mut config = config_without_tickets(provider, Arc::new(Answer(None)))?;
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(config)
}

/// Nothing of its handshakes can be taken up again.
fn config_without_tickets(
    provider: Arc<CryptoProvider>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = any_config(provider, resolver)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn server_config(
    provider: Arc<CryptoProvider>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = any_config(provider, resolver)?;
    config.alpn_protocols = web_protocols();
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

fn any_config(
    provider: Arc<CryptoProvider>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&version::TLS13, &version::TLS12])?;
    Ok(builder.with_no_client_auth().with_cert_resolver(resolver))
}

fn web_protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// Whether ChaCha20 comes before AES-GCM. Other suites on offer, such as the reserved values of RFC 8701, say nothing.
fn prefers_chacha20(offered: &[CipherSuite]) -> bool {
    offered
        .iter()
        .copied()
        .find(|suite| is_chacha20(*suite) || is_aes_128(*suite) || is_aes_256(*suite))
        .is_some_and(is_chacha20)
}

fn is_aes_128(suite: CipherSuite) -> bool {
    use CipherSuite::*;
    matches!(
        suite,
        TLS13_AES_128_GCM_SHA256 | TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 | TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

fn is_aes_256(suite: CipherSuite) -> bool {
    use CipherSuite::*;
    matches!(
        suite,
        TLS13_AES_256_GCM_SHA384 | TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 | TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
    )
}

fn is_chacha20(suite: CipherSuite) -> bool {
    use CipherSuite::*;
    matches!(
        suite,
        TLS13_CHACHA20_POLY1305_SHA256
            | TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

/// The protocol of tls-alpn-01 (RFC 8737, 6.2).
const ACME_TLS: &[u8] = b"acme-tls/1";

#[cfg(test)]
mod tests {
    use rustls::{
        ClientConfig, HandshakeKind, NamedGroup, RootCertStore, SupportedProtocolVersion, crypto::KeyExchangeAlgorithm,
    };
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use tokio::io::AsyncReadExt;
    use tokio_rustls::TlsConnector;

    use super::*;

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

    #[tokio::test]
    async fn aes_128_is_taken_from_all_who_offer_it_but_those_who_put_chacha20_first() {
        use CipherSuite::*;
        let site = Site::new();
        let (tls13, tls12): (&[_], &[_]) = (&[&version::TLS13], &[&version::TLS12]);
        let ([a128, a256, chacha], [e128, e256, e_chacha]) = (
            [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256],
            [
                TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            ],
        );
        for (versions, offered, taken) in [
            (tls13, &[a256, chacha, a128][..], a128),
            (tls13, &[a128, a256, chacha], a128),
            (tls13, &[chacha, a256, a128], chacha),
            (tls13, &[a256, chacha], a256),
            (tls12, &[e256, e128, e_chacha], e128),
            (tls12, &[e_chacha, e256, e128], e_chacha),
            (tls12, &[e256, e_chacha], e256),
        ] {
            let client = site.client(versions, offered);
            assert_eq!(site.visit(&client).await, (taken, HandshakeKind::Full), "{offered:?}");
            assert_eq!(site.visit(&client).await, (taken, HandshakeKind::Resumed), "{offered:?}");
        }
    }

    #[test]
    fn what_is_no_suite_of_ours_says_nothing_about_the_order() {
        let (grease, null) = (CipherSuite::Unknown(0x2a2a), CipherSuite::TLS_EMPTY_RENEGOTIATION_INFO_SCSV);
        let (chacha, aes) = (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384);
        assert!(prefers_chacha20(&[grease, null, chacha, aes]));
        assert!(!prefers_chacha20(&[grease, aes, chacha]));
        assert!(!prefers_chacha20(&[grease]));
    }

    #[tokio::test]
    async fn only_who_offers_acme_tls_alone_and_names_a_host_with_a_challenge_is_answered_with_it() {
        let site = Site::new();
        let (own, answer) = (site.certificate.cert[0].clone(), site.answer.cert[0].clone());
        for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
            let offered =
                &[CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
            let ask = async |client: &Arc<ClientConfig>, name: &str, protocols: &[&str]| {
                let mut client = (**client).clone();
                client.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
                site.ask(Arc::new(client), name).await
            };
            let ca = site.client(versions, offered);
            let validated = Some((answer.clone(), Some("acme-tls/1".to_owned()), HandshakeKind::Full));
            assert_eq!(ask(&ca, "a.example", &["acme-tls/1"]).await, (true, validated.clone()));
            assert_eq!(ask(&ca, "a.example", &["acme-tls/1"]).await, (true, validated), "nothing is resumed");
            assert_eq!(ask(&ca, "b.example", &["acme-tls/1"]).await, (false, None), "it has no challenge");

            for (protocols, taken) in
                [(&["acme-tls/1", "h2"][..], Some("h2")), (&["http/1.1", "acme-tls/1"], Some("http/1.1")), (&[], None)]
            {
                let visitor = site.client(versions, offered);
                let served = Some((own.clone(), taken.map(str::to_owned), HandshakeKind::Full));
                assert_eq!(ask(&visitor, "a.example", protocols).await, (false, served), "{protocols:?}");
            }
        }
    }

    struct Site {
        tls: VisitorTls,
        certificate: Arc<CertifiedKey>,
        /// In the place of a challenge's certificate.
        answer: Arc<CertifiedKey>,
        roots: Arc<RootCertStore>,
    }

    type Seen = (CertificateDer<'static>, Option<String>, HandshakeKind);

    fn self_signed() -> Arc<CertifiedKey> {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
        Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key))
    }

    impl Site {
        fn new() -> Self {
            let (certificate, answer) = (self_signed(), self_signed());
            let mut roots = RootCertStore::empty();
            roots.add(certificate.cert[0].clone()).unwrap();
            roots.add(answer.cert[0].clone()).unwrap();
            let resolver = Arc::new(Answer(Some(certificate.clone())));
            Self { tls: VisitorTls::new(resolver).unwrap(), certificate, answer, roots: Arc::new(roots) }
        }

        fn client(&self, versions: &[&'static SupportedProtocolVersion], offered: &[CipherSuite]) -> Arc<ClientConfig> {
            let mut provider = (*certseal_service::tls::provider()).clone();
            let known = provider.cipher_suites.clone();
            let suite = |wanted: &CipherSuite| *known.iter().find(|suite| suite.suite() == *wanted).unwrap();
            provider.cipher_suites = offered.iter().map(suite).collect();
            let client = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions);
            Arc::new(client.unwrap().with_root_certificates(self.roots.clone()).with_no_client_auth())
        }

        /// Whether the site takes a client for a CA, and the certificate, the protocol and the kind of handshake that the client
        /// sees. Only `a.example` has a challenge.
        async fn ask(&self, client: Arc<ClientConfig>, name: &str) -> (bool, Option<Seen>) {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let answer = |name: DnsName| async move { (name.as_str() == "a.example").then(|| self.answer.clone()) };
            let visit = async {
                let name = ServerName::try_from(name.to_owned()).unwrap();
                let mut stream = TlsConnector::from(client).connect(name, theirs).await.ok()?;
                let connection = stream.get_ref().1;
                let protocol = connection.alpn_protocol().map(|it| String::from_utf8(it.to_vec()).unwrap());
                let seen = (connection.peer_certificates()?[0].clone(), protocol, connection.handshake_kind()?);
                // The other side ends a validation by itself.
                if seen.1.as_deref() == Some("acme-tls/1") {
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
                Some(seen)
            };
            let (accepted, seen) = tokio::join!(self.tls.accept(ours, answer, |_| {}), visit);
            (matches!(accepted, Ok(Accepted::Validation)), seen)
        }

        /// The suite and the kind of a handshake.
        async fn visit(&self, client: &Arc<ClientConfig>) -> (CipherSuite, HandshakeKind) {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let serve = async {
                let accepted = self.tls.accept(ours, |_| async { None }, |_| {}).await.unwrap();
                let Accepted::Visitor(mut stream) = accepted else { panic!("a visitor was taken for a CA") };
                stream.write_all(b"x").await.unwrap();
                stream.flush().await.unwrap();
                stream
            };
            let visit = async {
                let name = ServerName::try_from("a.example").unwrap();
                let mut stream = TlsConnector::from(client.clone()).connect(name, theirs).await.unwrap();
                // The ticket comes before it.
                stream.read_u8().await.unwrap();
                stream
            };
            let (stream, _visitor) = tokio::join!(serve, visit);
            let connection = stream.get_ref().1;
            (connection.negotiated_cipher_suite().unwrap().suite(), connection.handshake_kind().unwrap())
        }
    }
}
