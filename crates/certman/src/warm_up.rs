//! Warm-up: a TLS handshake with edges for a site that just got its first certificate. An edge opens a key when it is first asked
//! for a signature, so that the first visitor does not wait for that.
//!
//! Nothing waits for a warm-up, and one that fails is forgotten: sites wait in memory, and the oldest go when there are too many.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::ensure;
use certseal_issuance::Site;
use certseal_service::Shutdown;
use certseal_wire::{DnsName, KeyType};
use rustls_pki_types::ServerName;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use crate::{
    config::WarmUp as WarmUpConfig,
    metrics::{Metrics, Warmed},
    presented::{self, Leaf, Presented},
};

/// Sites that wait for a warm-up, and the edges.
pub(crate) struct WarmUps {
    edges: Vec<SocketAddr>,
    waiting: Mutex<VecDeque<WarmUp>>,
    news: Notify,
    metrics: Metrics,
}

/// A site that got its first certificate.
struct WarmUp {
    /// A host that leads to it.
    host: DnsName,
    leaf: Leaf,
}

impl WarmUps {
    /// # Errors
    /// When there are too many edges.
    pub(crate) fn new(config: &WarmUpConfig, metrics: Metrics) -> anyhow::Result<Arc<Self>> {
        let count = config.edges.len();
        ensure!(count <= MOST_EDGES, "expected at most {MOST_EDGES} warm_up.edges, got {count}");
        let (edges, waiting) = (config.edges.clone(), Mutex::default());
        Ok(Arc::new(Self { edges, waiting, news: Notify::new(), metrics }))
    }

    /// Has edges warmed up for a site whose first certificate, with this leaf, is stored.
    pub(crate) fn add(&self, site: &Site, leaf: Vec<u8>) {
        let plain = site.names.iter().find(|name| !name.is_wildcard()).cloned();
        let below = || site.names.iter().find_map(|name| name.as_str().replace('*', "warm-up").parse::<DnsName>().ok());
        let Some(host) = plain.or_else(below) else { return };
        self.push(WarmUp { host, leaf: Leaf { der: leaf, is_rsa: site.key_type == KeyType::Rsa2048 } });
    }

    fn push(&self, warm_up: WarmUp) {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST_WAITING {
            waiting.pop_front();
            self.metrics.warmed(Warmed::Dropped);
        }
        waiting.push_back(warm_up);
        drop(waiting);
        self.news.notify_one();
    }

    /// Warms edges up until the shutdown begins.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        tokio::select! {
            () = self.keep() => {}
            () = shutdown.begun() => {}
        }
    }

    async fn keep(&self) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        // Those under way end with this task.
        let mut under_way = JoinSet::new();
        loop {
            while under_way.try_join_next().is_some() {}
            // It is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let WarmUp { host, leaf } = self.next().await;
            let (edges, metrics) = (self.edges.clone(), self.metrics.clone());
            under_way.spawn(async move {
                warm(edges, host, leaf, &metrics).await;
                drop(place);
            });
        }
    }

    async fn next(&self) -> WarmUp {
        loop {
            if let Some(next) = self.waiting().pop_front() {
                return next;
            }
            self.news.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<WarmUp>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Warms all edges up for a site. Each counts as soon as it is done.
async fn warm(edges: Vec<SocketAddr>, host: DnsName, leaf: Leaf, metrics: &Metrics) {
    let config = match presented::client(Presented::Only(leaf)) {
        Ok(config) => Arc::new(config),
        Err(error) => {
            tracing::error!(%host, %error, "no warm-up");
            return;
        }
    };
    let mut all = JoinSet::new();
    for edge in edges {
        let (host, tls) = (host.clone(), TlsConnector::from(config.clone()));
        all.spawn(async move {
            let mut why = String::new();
            for wait in WAITS {
                // The edge hears of the certificate a moment after it is stored.
                tokio::time::sleep(wait).await;
                match tokio::time::timeout(PATIENCE, handshake(edge, &host, &tls)).await {
                    Ok(Ok(())) => return Warmed::Served,
                    Ok(Err(error)) => why = format!("{error:#}"),
                    Err(_) => why = format!("no handshake within {} s", PATIENCE.as_secs()),
                }
            }
            tracing::info!(%host, %edge, why, "an edge is not warmed up for a new site");
            Warmed::GivenUp
        });
    }
    while let Some(warmed) = all.join_next().await {
        warmed.into_iter().for_each(|warmed| metrics.warmed(warmed));
    }
}

/// A handshake that comes to its end: the edge has signed with the key of the certificate.
async fn handshake(edge: SocketAddr, host: &DnsName, tls: &TlsConnector) -> anyhow::Result<()> {
    let server = ServerName::try_from(host.to_string())?;
    let mut stream = tls.connect(server, TcpStream::connect(edge).await?).await?;
    // The edge may be the first to close.
    let _ = stream.shutdown().await;
    Ok(())
}

/// Sites that wait.
const MOST_WAITING: usize = 1_000;
/// Sites that edges are warmed up for at one time.
const AT_ONCE: usize = 16;
const MOST_EDGES: usize = 64;
/// Before each of the tries, and for one.
const WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(9), Duration::from_secs(20)];
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[test]
    fn the_oldest_sites_go_when_too_many_wait() {
        let (metrics, _registry) = Metrics::new(&Default::default());
        let warm_ups = WarmUps::new(&WarmUpConfig { edges: Vec::new() }, metrics).unwrap();
        for number in 0..MOST_WAITING + 7 {
            let host = format!("n{number}.example.com").parse().unwrap();
            warm_ups.push(WarmUp { host, leaf: Leaf { der: Vec::new(), is_rsa: false } });
        }
        let waiting = warm_ups.waiting();
        assert_eq!((waiting.len(), waiting[0].host.as_str()), (MOST_WAITING, "n7.example.com"));
    }

    #[tokio::test]
    async fn a_handshake_counts_with_the_stored_certificate_alone() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example.com".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(certseal_service::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let (listener, acceptor) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TlsAcceptor::from(Arc::new(config)));
        let edge = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = acceptor.accept(stream).await;
            }
        });
        let host: DnsName = "a.example.com".parse().unwrap();
        let tried = async |der: Vec<u8>, is_rsa: bool| {
            let tls = presented::client(Presented::Only(Leaf { der, is_rsa })).unwrap();
            handshake(edge, &host, &TlsConnector::from(Arc::new(tls))).await
        };
        let leaf = made.cert.der().to_vec();
        tried(leaf.clone(), false).await.unwrap();
        assert!(tried(leaf, true).await.is_err(), "its key is no RSA key");
        let other = rcgen::generate_simple_self_signed(vec!["a.example.com".to_owned()]).unwrap();
        assert!(tried(other.cert.der().to_vec(), false).await.is_err(), "another certificate");
    }
}
