//! Asks certman for names that visitors want and no site has. No handshake waits for the answer.
//!
//! ```text
//! visitor's handshake without a certificate -> Demand::meet -> gate -> queue -> Asking -> line, 8 calls at one time -> certman
//! ```
//!
//! What is not asked for costs a look into the mirror and one into the gate. certstore is never asked.

mod gate;
mod line;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use certseal_client::{CertmanClient, ClientError, Connection};
use certseal_resolver::Mirror;
use certseal_service::{shares::network, tls::certified};
use certseal_wire::{DnsName, OnDemandOutcome, Problem, ProblemKind};
use rustls::sign::CertifiedKey;
use tokio::{sync::mpsc, task::JoinSet};

use self::{
    gate::{Gate, MOST_UNDER_WAY, Verdict},
    line::{CALLS, Line, Wanted},
};
use crate::{
    config::OnDemand as OnDemandConfig,
    metrics::{Demanded, Metrics},
};

/// Meets the names that visitors want.
pub(crate) struct Demand {
    mirror: Arc<Mirror>,
    gate: Mutex<Gate>,
    queue: mpsc::Sender<Wanted>,
    /// How long a name that may have no certificate is not asked for again.
    remember: Duration,
    metrics: Metrics,
    /// certman did not answer the last question: the log has it once.
    is_away: AtomicBool,
}

/// Takes names from the queue, and asks for them.
pub(crate) struct Asking {
    demand: Arc<Demand>,
    queue: mpsc::Receiver<Wanted>,
    certman: CertmanClient,
}

impl Demand {
    /// Nothing is asked before [`Asking::run`].
    ///
    /// # Errors
    /// When the address or a file is not usable.
    pub(crate) fn new(
        config: &OnDemandConfig,
        mirror: Arc<Mirror>,
        metrics: Metrics,
    ) -> anyhow::Result<(Arc<Self>, Asking)> {
        let seconds = config.remember_seconds;
        ensure!(
            (1..=86_400).contains(&seconds),
            "expected on_demand.remember_seconds between 1 and 86400, got {seconds}"
        );
        let certman = config.certman.peer();
        let url = certman.url.parse().with_context(|| format!("on_demand.certman.url {:?}", certman.url))?;
        let certman = CertmanClient::new(Connection::new(url, certman.client_config()?));
        let (sender, queue) = mpsc::channel(MOST_UNDER_WAY);
        let demand = Arc::new(Self {
            mirror,
            gate: Mutex::new(Gate::new(config)),
            queue: sender,
            remember: Duration::from_secs(seconds),
            metrics,
            is_away: AtomicBool::new(false),
        });
        Ok((demand.clone(), Asking { demand, queue, certman }))
    }

    /// A visitor from `address` wants `name`, for which there is no certificate here.
    pub(crate) fn meet(&self, name: &DnsName, address: IpAddr) {
        // With a route the site is there, and its certificate on the way.
        if name.is_wildcard() || self.mirror.route(name).is_some() {
            return;
        }
        let verdict = self.gate().meet(name, address, Instant::now());
        match verdict {
            Verdict::AskedBefore => {}
            Verdict::Limited => self.metrics.demanded(Demanded::Limited),
            // There is as much room in the queue as there may be names under way.
            Verdict::Ask => match self.queue.try_send(Wanted { name: name.clone(), network: network(address) }) {
                Ok(()) => self.metrics.demanded(Demanded::Asked),
                Err(_) => {
                    self.gate().answered(name.clone(), Instant::now(), SOON);
                    self.metrics.demanded(Demanded::Limited);
                }
            },
        }
    }

    fn noted(&self, name: DnsName, answer: Result<OnDemandOutcome, ClientError>) {
        let said = answer.as_ref().map_or_else(ToString::to_string, |outcome| format!("{outcome:?}"));
        let (outcome, keep) = judged(answer, self.remember);
        let is_away = outcome == Demanded::Unavailable;
        match (self.is_away.swap(is_away, Ordering::Relaxed), is_away) {
            (false, true) => tracing::warn!(error = said, "names that visitors want cannot be asked for"),
            (true, false) => tracing::info!("names that visitors want can be asked for again"),
            _ => {}
        }
        tracing::debug!(%name, said, "a name was asked for");
        self.metrics.demanded(outcome);
        self.gate().answered(name, Instant::now(), keep);
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking {
    /// Asks for the names in the queue, and never ends by itself.
    pub(crate) async fn run(mut self) {
        let (mut line, mut calls) = (Line::default(), JoinSet::new());
        loop {
            while calls.len() < CALLS
                && let Some(call) = line.begin()
            {
                let (demand, certman) = (self.demand.clone(), self.certman.clone());
                calls.spawn(async move {
                    let answer = asked(&certman, &call.name).await;
                    demand.noted(call.name.clone(), answer);
                });
            }
            tokio::select! {
                Some(wanted) = self.queue.recv() => line.push(wanted),
                Some(_) = calls.join_next() => {}
                // Nobody is left who could put a name into the queue.
                else => std::future::pending().await,
            }
        }
    }
}

/// What follows from certman's answer: its outcome, and how long it counts.
fn judged(answer: Result<OnDemandOutcome, ClientError>, remember: Duration) -> (Demanded, Duration) {
    let problem = match answer {
        Ok(OnDemandOutcome::Accepted) => return (Demanded::Accepted, SOON),
        Ok(OnDemandOutcome::Known) => return (Demanded::Known, SOON),
        Err(ClientError::Refused(problem)) => problem,
        Err(_) => return (Demanded::Unavailable, SOON),
    };
    match problem.kind {
        ProblemKind::Forbidden | ProblemKind::Malformed | ProblemKind::Conflict => (Demanded::Refused, remember),
        ProblemKind::Busy => {
            let wait = problem.retry_after.map_or(SOON, Duration::from_secs);
            (Demanded::Limited, wait.clamp(Duration::from_secs(1), remember))
        }
        // Of a certman that makes no sites on demand, too.
        _ => (Demanded::Unavailable, SOON),
    }
}

async fn asked(certman: &CertmanClient, name: &DnsName) -> Result<OnDemandOutcome, ClientError> {
    let answer = tokio::time::timeout(PATIENCE, certman.on_demand(name)).await;
    let late = |_| {
        let detail = format!("expected an answer of certman within {} s", PATIENCE.as_secs());
        Err(ClientError::Refused(Problem::new(ProblemKind::TimedOut, detail)))
    };
    answer.unwrap_or_else(late).map(|answer| answer.outcome)
}

/// The certificate for names that have none of their own, where one is configured.
///
/// # Errors
/// When a file is not usable, or one of the two is missing.
pub(crate) fn fallback(config: &OnDemandConfig) -> anyhow::Result<Option<Arc<CertifiedKey>>> {
    match (&config.fallback_certificate, &config.fallback_key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(Arc::new(certified(certificate, key)?))),
        _ => bail!("expected on_demand.fallback_certificate and on_demand.fallback_key, or neither of them"),
    }
}

/// For certman's answer, which takes a look into the DNS or a question to a server of the platform.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a name is not asked for again whose answer may soon be another one: its route is on the way, or nobody answered.
const SOON: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_refusal_counts_for_long_and_what_may_change_soon_does_not() {
        let remember = Duration::from_secs(300);
        let refused = |kind, retry_after| {
            judged(Err(ClientError::Refused(Problem { retry_after, ..Problem::new(kind, "") })), remember)
        };
        assert_eq!(refused(ProblemKind::Forbidden, None), (Demanded::Refused, remember));
        assert_eq!(refused(ProblemKind::Conflict, None), (Demanded::Refused, remember));
        assert_eq!(refused(ProblemKind::Busy, Some(20)), (Demanded::Limited, Duration::from_secs(20)));
        assert_eq!(refused(ProblemKind::Busy, Some(3600)), (Demanded::Limited, remember));
        assert_eq!(refused(ProblemKind::Busy, Some(0)), (Demanded::Limited, Duration::from_secs(1)));
        for kind in [ProblemKind::Unavailable, ProblemKind::TimedOut, ProblemKind::NotFound, ProblemKind::Internal] {
            assert_eq!(refused(kind, None), (Demanded::Unavailable, SOON), "{kind:?}");
        }
        assert_eq!(judged(Ok(OnDemandOutcome::Accepted), remember), (Demanded::Accepted, SOON));
        assert_eq!(judged(Ok(OnDemandOutcome::Known), remember), (Demanded::Known, SOON));
    }

    #[test]
    fn a_fallback_is_a_certificate_with_its_own_key_that_others_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first.pem"), dir.path().join("second.pem"));
        let (key, exposed) = (dir.path().join("first.key"), dir.path().join("exposed.key"));
        let made = || rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let (one, other) = (made(), made());
        std::fs::write(&first, one.cert.pem()).unwrap();
        std::fs::write(&second, other.cert.pem()).unwrap();
        certseal_service::config::write_private(&key, &one.signing_key.serialize_pem()).unwrap();
        std::fs::write(&exposed, one.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&exposed, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();

        let with = |certificate: Option<&Path>, key: Option<&Path>| {
            let mut config: OnDemandConfig = toml::from_str(
                "[certman]\nurl = \"https://localhost:1\"\nca = \"ca\"\ncertificate = \"own\"\nkey = \"own\"\n",
            )
            .unwrap();
            config.fallback_certificate = certificate.map(Path::to_owned);
            config.fallback_key = key.map(Path::to_owned);
            fallback(&config)
        };
        assert!(with(None, None).unwrap().is_none());
        assert!(with(Some(&first), Some(&key)).unwrap().is_some());
        assert!(with(Some(&first), None).is_err() && with(None, Some(&key)).is_err());
        assert!(with(Some(&second), Some(&key)).is_err(), "the key of another one");
        assert!(with(Some(&first), Some(&exposed)).is_err());
    }
}
