//! TLS configurations that follow their files: certificates are renewed and revoked without a restart.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::sync::watch;
use x509_parser::time::ASN1Time;

use super::{files::TlsFiles, revocation::Revocations};
use crate::{Shutdown, config::ConfigError};

/// A server's TLS configuration, which may be replaced while it is used.
#[derive(Debug, Clone)]
pub struct LiveTls {
    current: watch::Receiver<Arc<ServerConfig>>,
    generation: watch::Receiver<u64>,
}

/// The other end.
struct Sender {
    current: watch::Sender<Arc<ServerConfig>>,
    generation: watch::Sender<u64>,
}

impl LiveTls {
    fn channel(config: ServerConfig) -> (Sender, Self) {
        let (current, generation) = (watch::Sender::new(Arc::new(config)), watch::Sender::new(0));
        let live = Self { current: current.subscribe(), generation: generation.subscribe() };
        (Sender { current, generation }, live)
    }

    /// A server's configuration that follows `files` from now on, until the shutdown begins.
    ///
    /// # Errors
    /// [`ConfigError`] names the file that is not usable now. Later ones are logged, and the last good files count.
    pub fn follow(files: TlsFiles, shutdown: Shutdown) -> Result<Self, ConfigError> {
        let (follower, live) = Follower::start(files)?;
        tokio::spawn(follower.run(shutdown));
        Ok(live)
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

/// Gives a server what is in the files.
struct Follower {
    followed: Followed<ServerConfig>,
    sender: Sender,
}

impl Follower {
    /// Takes what is in the files now, and what follows it.
    fn start(files: TlsFiles) -> Result<(Self, LiveTls), ConfigError> {
        let (followed, config) = Followed::start(files, TlsFiles::server_config_with)?;
        let (sender, live) = LiveTls::channel(config);
        Ok((Self { followed, sender }, live))
    }

    /// Looks at the files again and again until the shutdown begins.
    async fn run(mut self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = shutdown.begun() => return,
            }
            self.look();
            self.followed.warn_if_overdue(now());
        }
    }

    fn look(&mut self) {
        if let Some(config) = self.followed.look() {
            self.sender.current.send_replace(Arc::new(config));
            self.sender.generation.send_modify(|generation| *generation += 1);
        }
    }
}

/// Takes what is in the files whenever that changed and is good.
pub(super) struct Followed<C> {
    files: TlsFiles,
    build: Build<C>,
    /// The stamps of the files when they were taken last.
    seen: Stamps,
    /// The revocation lists that count now.
    revocations: Option<Revocations>,
    /// The fault of the files at the last look.
    failure: String,
    /// When it was said last that a revocation list is overdue, in seconds since 1970.
    warned_at: Option<i64>,
}

type Build<C> = Box<dyn Fn(&TlsFiles, Option<&Revocations>) -> Result<C, ConfigError> + Send>;

impl<C> Followed<C> {
    /// The configuration that `build` makes of the files now, and the follower of the files.
    pub(super) fn start(
        files: TlsFiles,
        build: impl Fn(&TlsFiles, Option<&Revocations>) -> Result<C, ConfigError> + Send + 'static,
    ) -> Result<(Self, C), ConfigError> {
        // Before they are read: files that change meanwhile are looked at again.
        let seen = stamps(&files);
        let revocations = files.revocations()?;
        let config = build(&files, revocations.as_ref())?;
        let build = Box::new(build);
        let mut followed = Self { files, build, seen, revocations, failure: String::new(), warned_at: None };
        followed.warn_if_overdue(now());
        Ok((followed, config))
    }

    /// The configuration that is to count from now on, if that changed.
    pub(super) fn look(&mut self) -> Option<C> {
        let stamps = stamps(&self.files);
        if stamps == self.seen {
            return None;
        }
        // A file may be half written, or its companion may follow: files that are not good are tried again each time.
        match self.take() {
            Ok(config) => {
                tracing::info!("TLS files changed: they count from now on, and open connections end");
                self.failure.clear();
                self.seen = stamps;
                Some(config)
            }
            Err(error) => {
                let error = error.to_string();
                if error != self.failure {
                    tracing::error!(error, "TLS files changed and are not usable: the last good ones count");
                    self.failure = error;
                }
                None
            }
        }
    }

    fn take(&mut self) -> Result<C, ConfigError> {
        let mut found = self.files.revocations()?;
        let mut was_older = false;
        if let (Some(lists), Some(held)) = (found.take(), &self.revocations) {
            let (newest, older) = lists.no_older_than(held);
            (found, was_older) = (Some(newest), older);
        }
        let config = (self.build)(&self.files, found.as_ref())?;
        if was_older {
            tracing::error!(
                path = self.crl(),
                "a revocation list has a lower number than the one in use: the one in use goes on counting; bring the \
                 newest list, or start again if the number in use is not the CA's"
            );
        }
        self.revocations = found;
        Ok(config)
    }

    pub(super) fn warn_if_overdue(&mut self, now: i64) {
        if !self.revocations.as_ref().is_some_and(|lists| lists.is_overdue(now)) {
            self.warned_at = None;
            return;
        }
        if self.warned_at.is_none_or(|at| now - at >= WARN_EVERY) {
            self.warned_at = Some(now);
            tracing::warn!(path = self.crl(), "a revocation list is past its next update: make a new one");
        }
    }

    fn crl(&self) -> String {
        self.files.crl.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

type Stamps = Vec<Option<(u64, i64, i64, u64)>>;

/// The stamps that tell one state of the files from another, without their contents: there is a key among them.
fn stamps(files: &TlsFiles) -> Stamps {
    let paths = [&files.ca, &files.certificate, &files.key].into_iter().chain(&files.crl);
    let stamp = |metadata: fs::Metadata| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len());
    paths.map(|path| fs::metadata(path).ok().map(stamp)).collect()
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    ASN1Time::now().timestamp()
}

/// Between two looks at the files.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// Between two warnings about a list that is overdue, in seconds.
const WARN_EVERY: i64 = 60 * 60;

#[cfg(test)]
mod tests;
