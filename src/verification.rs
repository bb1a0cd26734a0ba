//! Looks at sites as a browser would: over real TLS, against the expected root.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use certseal_service::tls;
use certseal_wire::DnsName;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, header::HOST};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;

/// A client that trusts the roots in one file.
#[derive(Clone)]
pub struct Verifier(TlsConnector);

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    /// Reads the roots, PEM.
    ///
    /// # Errors
    /// When the file is unreadable or holds no certificate.
    pub fn new(roots: &Path) -> anyhow::Result<Self> {
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(tls::certificates(roots)?);
        ensure!(added > 0, "{} holds no usable root certificate", roots.display());
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Whether `site` is served at `edge` with a certificate that leads to a root, and answers 200. Asks again for
    /// up to `patience`, because an edge hears of a new certificate a moment after it is stored.
    ///
    /// # Errors
    /// Says what the last look found.
    pub async fn verify(&self, edge: SocketAddr, site: &DnsName, patience: Duration) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let look = tokio::time::timeout(Duration::from_secs(5), self.look(edge, site)).await;
            match look.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within 5 s"))) {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Verifies all of `sites`, each as [`Self::verify`] does, some at a time. Answers those that are not served, and why;
    /// `done` is told of each.
    ///
    /// # Errors
    /// When a task panicked.
    pub async fn verify_all(
        &self,
        edge: SocketAddr,
        sites: Vec<DnsName>,
        patience: Duration,
        done: impl Fn(),
    ) -> anyhow::Result<Vec<(DnsName, anyhow::Error)>> {
        let (mut looks, mut failures) = (JoinSet::new(), Vec::new());
        let mut sites = sites.into_iter();
        loop {
            for site in sites.by_ref().take(LOOKS - looks.len()) {
                let verifier = self.clone();
                looks.spawn(async move {
                    let look = verifier.verify(edge, &site, patience).await;
                    look.err().map(|error| (site, error))
                });
            }
            let Some(look) = looks.join_next().await else { return Ok(failures) };
            failures.extend(look?);
            done();
        }
    }

    async fn look(&self, edge: SocketAddr, site: &DnsName) -> anyhow::Result<()> {
        let stream = TcpStream::connect(edge).await.context("cannot connect")?;
        let name = ServerName::try_from(site.to_string())?;
        let stream = self.0.connect(name, stream).await.context("the TLS handshake failed")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get("/").header(HOST, site.as_str()).body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await.context("the request failed")?;
        let status = response.status();
        response.into_body().collect().await.context("the answer broke off")?;
        connection.abort();
        ensure!(status == StatusCode::OK, "answered {status}");
        Ok(())
    }
}

/// Sites that are looked at together. With all of them the handshakes wait for each other, longer than a look may take.
const LOOKS: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn thousands_of_sites_are_looked_at_some_at_a_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let edge = listener.local_addr().unwrap();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (now, most.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (now, most) = counts.clone();
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    now.fetch_sub(1, Ordering::Relaxed);
                    drop(stream);
                });
            }
        });
        let roots = tempfile::NamedTempFile::new().unwrap();
        let root = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap().cert.pem();
        std::fs::write(roots.path(), root).unwrap();
        let sites = crate::onboarding::demo_names(300, "demo.test").unwrap();
        let (verifier, done) = (Verifier::new(roots.path()).unwrap(), AtomicUsize::new(0));
        let done_one = || _ = done.fetch_add(1, Ordering::Relaxed);
        let failures = verifier.verify_all(edge, sites, Duration::ZERO, done_one).await.unwrap();
        assert_eq!((failures.len(), done.into_inner()), (300, 300));
        let most = most.load(Ordering::Relaxed);
        assert!((2..=LOOKS).contains(&most), "{most} at a time");
    }
}
