//! An HTTPS server for a CA or for a proxy in front of one.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{Router, body::Body};
use certseal_service::{
    Shutdown, ShutdownHandle,
    server::{self, Limits},
    tls,
};
use tokio_rustls::TlsAcceptor;

/// Where an ACME server is, and what it needs to be one.
pub struct Origin<'a> {
    pub address: SocketAddr,
    /// The CA of its TLS certificate.
    pub tls_root: &'a Path,
    /// Certificate and key for a proxy in front of it, under the same CA.
    pub proxy_identity: &'a (PathBuf, PathBuf),
}

/// Serves `app` until the handle is dropped. `identity` is the files of a certificate and its key.
pub async fn serve(address: SocketAddr, identity: &(PathBuf, PathBuf), app: Router) -> ShutdownHandle {
    let config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            tls::certificates(&identity.0).unwrap(),
            rustls_pki_types::pem::PemObject::from_pem_file(&identity.1).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = server::bind(address).await.unwrap();
    let (running, shutdown) = Shutdown::new();
    tokio::spawn(server::serve(
        listener,
        Limits::default(),
        server::Counts::default(),
        shutdown,
        server::never(),
        move |stream, _| {
            let (acceptor, app) = (acceptor.clone(), app.clone());
            async move {
                let stream = acceptor.accept(stream).await.ok()?;
                let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    tower::ServiceExt::oneshot(app.clone(), request.map(Body::new))
                });
                Some((stream, service))
            }
        },
    ));
    running
}
