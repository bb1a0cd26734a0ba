//! An axum server with sealed certificates: `axum LISTEN STORE-URL CA CERTIFICATE KEY UNSEAL-KEY SECURITY-KEY MIRROR-DIRECTORY`.

use std::{fs::read_to_string, io, net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context;
use certseal_client::{Connection, StoreClient};
use certseal_resolver::{Follower, Mirror, SealedResolver};
use certseal_seal::VerifyingKey;
use certseal_unseal::{UnsealKey, UnsealKeys};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, url, ca, certificate, key, unseal_key, security_key, directory] = args.as_slice() else {
        anyhow::bail!("expected LISTEN STORE-URL CA CERTIFICATE KEY UNSEAL-KEY SECURITY-KEY MIRROR-DIRECTORY");
    };
    let store = StoreClient::new(Connection::new(url.parse()?, mutual_tls(ca, certificate, key)?));

    // The parts that certseal needs: the mirror, its follower, and the resolver.
    let unseal_key = UnsealKey::from_pem(&read_to_string(unseal_key)?)?;
    let security = VerifyingKey::from_pem(&read_to_string(security_key)?)?;
    let mirror = Arc::new(Mirror::open(Path::new(directory), unseal_key.pool().clone(), security)?);
    let resolver = SealedResolver::new(mirror.clone(), UnsealKeys::from_iter([unseal_key]), 64 << 20)?;
    tokio::spawn(Follower::new(mirror, store).run());
    let tls = ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);

    let app = axum::Router::new().route("/", axum::routing::get(|| async { "served with a sealed key\n" }));
    let listener = TlsListener(TcpListener::bind(listen).await?, TlsAcceptor::from(Arc::new(tls)));
    Ok(axum::serve(listener, app).await?)
}

fn mutual_tls(ca: &str, certificate: &str, key: &str) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).context("the CA")?)?;
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>().context("the certificate")?;
    let key = PrivateKeyDer::from_pem_file(key).context("the key")?;
    Ok(ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}

/// Shakes hands one connection at a time: enough for an example.
struct TlsListener(TcpListener, TlsAcceptor);

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, peer)) = self.0.accept().await else { continue };
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
