//! A TLS client that shows what a server presents.

use std::{net::SocketAddr, path::Path, sync::Arc};

use certseal_service::tls;
use certseal_wire::DnsName;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Bytes, client::conn::http1::SendRequest, header::HOST};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// An open connection.
pub struct Connection {
    /// The certificates that the server presented, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    sender: SendRequest<Empty<Bytes>>,
    name: DnsName,
}

impl Connection {
    /// Connects to `address` for `name`, and verifies the chain against the roots in a file.
    pub async fn open(address: SocketAddr, name: &DnsName, roots: &Path) -> anyhow::Result<Self> {
        let stream = handshake(address, name, roots, &[]).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { chain: chain.into_iter().map(CertificateDer::into_owned).collect(), sender, name: name.clone() })
    }

    /// Asks for `/`: the body.
    pub async fn get(&mut self) -> anyhow::Result<Response<Bytes>> {
        self.sender.ready().await?;
        let request = Request::get("/").header(HOST, self.name.as_str()).body(Empty::new())?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    }
}

/// A handshake that offers these protocols, and verifies the chain against the roots in a file.
pub async fn handshake(
    address: SocketAddr,
    name: &DnsName,
    roots: &Path,
    protocols: &[&str],
) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(tls::certificates(roots)?);
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let server = ServerName::try_from(name.to_string())?;
    Ok(TlsConnector::from(Arc::new(config)).connect(server, stream).await?)
}
