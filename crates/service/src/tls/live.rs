//! TLS configurations that follow their files: certificates are renewed and revoked without a restart.

use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use rustls::ServerConfig;
use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};
use tokio::sync::watch;
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList, time::ASN1Time};

use super::TlsFiles;
use crate::{Shutdown, config::ConfigError};

/// A server's TLS configuration, which may be replaced while it is used.
#[derive(Debug, Clone)]
pub struct LiveTls {
    current: watch::Receiver<Arc<ServerConfig>>,
    generation: watch::Receiver<u64>,
}

/// The other end.
pub(super) struct Sender {
    current: watch::Sender<Arc<ServerConfig>>,
    generation: watch::Sender<u64>,
}

impl LiveTls {
    pub(super) fn channel(config: ServerConfig) -> (Sender, Self) {
        let (current, generation) = (watch::Sender::new(Arc::new(config)), watch::Sender::new(0));
        let live = Self { current: current.subscribe(), generation: generation.subscribe() };
        (Sender { current, generation }, live)
    }

    /// The configuration for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.borrow().clone()
    }

    /// Moves with each new configuration.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }
}

/// One that stays as it is.
impl From<ServerConfig> for LiveTls {
    fn from(config: ServerConfig) -> Self {
        Self::channel(config).1
    }
}

/// Looks at the files again and again, and takes what is in them when it changed and is good.
pub(super) async fn follow(files: TlsFiles, mut seen: Stamps, sender: Sender, shutdown: Shutdown) {
    let mut failure = String::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.begun() => return,
        }
        let now = stamps(&files);
        if now == seen {
            continue;
        }
        // A file may be half written, or its companion may follow: what is not good is tried again each time.
        match files.server_config() {
            Ok(config) => {
                sender.current.send_replace(Arc::new(config));
                sender.generation.send_modify(|generation| *generation += 1);
                tracing::info!("TLS files changed: they count from now on, and open connections end");
                failure.clear();
                seen = now;
            }
            Err(error) if error.to_string() != failure => {
                failure = error.to_string();
                tracing::error!(error = failure, "TLS files changed and are not usable: the last good ones count");
            }
            Err(_) => {}
        }
    }
}

pub(super) type Stamps = Vec<Option<(u64, i64, i64, u64)>>;

/// What tells one state of the files from another, without their contents: there is a key among them.
pub(super) fn stamps(files: &TlsFiles) -> Stamps {
    let paths = [&files.ca, &files.certificate, &files.key].into_iter().chain(&files.crl);
    let stamp = |metadata: fs::Metadata| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len());
    paths.map(|path| fs::metadata(path).ok().map(stamp)).collect()
}

/// The revocation lists in a file, PEM or DER; at least one.
pub(super) fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, ConfigError> {
    let bytes = fs::read(path).map_err(|e| ConfigError::invalid(path, e))?;
    let lists = match bytes.starts_with(b"-----BEGIN") {
        true => CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>(),
        false => Ok(vec![CertificateRevocationListDer::from(bytes)]),
    };
    let lists = lists.map_err(|e| ConfigError::invalid(path, format!("expected certificate revocation lists: {e}")))?;
    if lists.is_empty() {
        return Err(ConfigError::invalid(path, "expected a certificate revocation list, found none"));
    }
    for list in &lists {
        let (_, parsed) = CertificateRevocationList::from_der(list)
            .map_err(|e| ConfigError::invalid(path, format!("expected a certificate revocation list: {e}")))?;
        if parsed.next_update().is_some_and(|next| next < ASN1Time::now()) {
            tracing::error!(path = %path.display(), "a revocation list is past its next update: make a new one");
        }
    }
    Ok(lists)
}

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
