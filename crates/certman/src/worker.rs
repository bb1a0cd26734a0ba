//! Takes what is due from the journal and does it, one step at a time.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use certseal_service::Shutdown;
use certseal_wire::{Base64, DnsName};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, Semaphore};

use crate::{
    authority::{Authority, OrderState},
    birth::{self, Groups},
    journal::Journal,
    metrics::Metrics,
    site::{Answer, Failure, FailureKind, Outcome, Pace, Site, Step, Task},
    storehouse::Storehouse,
};

pub(crate) struct Worker {
    pub(crate) journal: Journal,
    pub(crate) authority: Authority,
    pub(crate) storehouse: Arc<Storehouse>,
    pub(crate) metrics: Metrics,
    pub(crate) retry: SignedDuration,
    pub(crate) slots: Arc<Semaphore>,
    /// Wakes the worker when something became due.
    pub(crate) wake: Notify,
    pub(crate) busy: Mutex<HashSet<DnsName>>,
    pub(crate) groups: Mutex<Groups>,
    /// Certificates that are ordered again a day because certstore says that it lost them.
    pub(crate) reorders_per_day: u32,
}

impl Worker {
    /// Works until the shutdown begins, and then until the steps under way are done.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let all = self.slots.available_permits();
        while !shutdown.has_begun() {
            // Also when no key is sealed any more: an old group's content key has no reason to be here.
            self.groups.lock().unwrap_or_else(PoisonError::into_inner).close_old(Timestamp::now());
            self.clone().start_due().await;
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = shutdown.begun() => {}
            }
        }
        // Every step that is persisted goes on after a restart; waiting only saves its repetition.
        let _ = tokio::time::timeout(Duration::from_secs(10), self.slots.acquire_many(all as u32)).await;
    }

    async fn start_due(self: Arc<Self>) {
        let (free, worker) = (self.slots.available_permits(), self.clone());
        if free == 0 {
            return;
        }
        // Sites under way are still listed: asking for more than there are slots finds those behind them.
        let limit = free + self.busy().len();
        let due = tokio::task::spawn_blocking(move || worker.journal.due(Timestamp::now(), limit)).await;
        let due = match due {
            Ok(Ok(due)) => due,
            Ok(Err(error)) => return tracing::error!(%error, "cannot read the agenda"),
            Err(error) => return tracing::error!(%error, "reading the agenda panicked"),
        };
        for site in due {
            if !self.busy().insert(site.clone()) {
                continue;
            }
            let Ok(slot) = self.slots.clone().try_acquire_owned() else {
                self.busy().remove(&site);
                return;
            };
            let worker = self.clone();
            tokio::spawn(async move {
                if let Err(error) = worker.drive(&site).await {
                    tracing::error!(%site, error = format!("{error:#}"), "cannot work on the site");
                    // It is still due: without a pause it would be taken up again at once.
                    tokio::time::sleep(AFTER_ERROR).await;
                }
                worker.busy().remove(&site);
                drop(slot);
                worker.wake.notify_one();
            });
        }
    }

    /// Does one task after another until nothing is due.
    async fn drive(self: &Arc<Self>, name: &DnsName) -> anyhow::Result<()> {
        loop {
            let Some(entry) = self.journaled(name, |journal, name| journal.read(name)).await? else { return Ok(()) };
            let Some(task) = entry.site.task(Timestamp::now()) else { return Ok(()) };
            let outcome = self.perform(&entry.site, task).await.unwrap_or_else(Outcome::Failed);
            self.metrics.performed(&outcome);
            if let Outcome::Failed(Failure { kind, detail }) = &outcome {
                tracing::warn!(site = %name, ?kind, detail, "attempt failed");
            }
            let site = entry.site.clone().after(outcome, Timestamp::now(), self.pace()?);
            // When somebody changed the site meanwhile, the next round begins from what they wrote.
            self.journaled(name, move |journal, _| journal.write(Some(&entry), &site)).await?;
        }
    }

    async fn perform(&self, site: &Site, task: Task) -> Result<Outcome, Failure> {
        let step = match task {
            Task::StoreRoute => {
                self.storehouse.put_route(site).await?;
                return Ok(Outcome::RouteStored);
            }
            Task::Confirm => {
                let stored = self.storehouse.stored_bundle(&site.site).await?;
                let version = stored.map_or(0, |(_, info)| info.version);
                if version < site.bundle_version {
                    tracing::warn!(site = %site.site, version, "certstore has not the newest bundle: another one is needed");
                }
                return Ok(Outcome::Confirmed(version));
            }
            Task::Reorder => {
                let (journal, per_day) = (self.journal.clone(), self.reorders_per_day);
                let taken = tokio::task::spawn_blocking(move || journal.take_reorder(Timestamp::now(), per_day));
                let wait = taken.await.map_err(unavailable)?.map_err(unavailable)?;
                let Some(wait) = wait else { return Ok(Outcome::Reordered) };
                let detail = format!(
                    "certstore says that it lost version {}. On its word {per_day} certificates a day are ordered; \
                     `certctl site lost --order` has all of them ordered at once",
                    site.bundle_version
                );
                return Err(Failure::new(FailureKind::Throttled(wait.as_secs().unsigned_abs()), detail));
            }
            Task::Revoke(leaf) => {
                match self.authority.revoke(&leaf.0).await {
                    Err(failure @ Failure { kind: FailureKind::Unavailable | FailureKind::Throttled(_), .. }) => {
                        return Err(failure);
                    }
                    // What the CA will not do must not hold up the site's other work for ever.
                    Err(Failure { detail, .. }) => {
                        tracing::error!(site = %site.site, detail, "compromised certificate is not revoked: the CA refuses");
                    }
                    Ok(()) => tracing::info!(site = %site.site, "compromised certificate is revoked"),
                }
                return Ok(Outcome::Revoked(leaf));
            }
            Task::Abandon(order_url) => {
                match self.authority.abandon(&order_url).await {
                    Err(failure @ Failure { kind: FailureKind::Unavailable | FailureKind::Throttled(_), .. }) => {
                        return Err(failure);
                    }
                    // A CA that does not want to be told must not hold up the orders after this one.
                    Err(Failure { detail, .. }) => tracing::warn!(site = %site.site, detail, "order not deactivated"),
                    Ok(()) => {}
                }
                return Ok(Outcome::Abandoned(order_url));
            }
            Task::Order(step) => step,
        };
        let moved = match step {
            Step::Requested => {
                // Before the CA is asked for anything that would then be left behind.
                self.storehouse.recipients(&site.pools).await?;
                if let Some(thumbprint) = self.authority.prepare().await? {
                    self.storehouse.vouch_for_account(&thumbprint).await?;
                }
                Step::Authorizing { order_url: self.authority.open_order(&site.names).await? }
            }
            Step::Authorizing { order_url } => {
                let answers = self.authority.challenges(&order_url, &site.names).await?;
                Step::ChallengePending { order_url, answers }
            }
            Step::ChallengePending { order_url, answers } => {
                self.storehouse.publish(&answers).await?;
                self.authority.begin_validation(&order_url).await?;
                let validated = self.await_ready(&order_url).await;
                self.storehouse.retract(&answers).await;
                validated.map_err(|failure| name_hosts(failure, &answers))?;
                Step::Authorized { order_url }
            }
            Step::Authorized { order_url } => {
                let recipients = self.storehouse.recipients(&site.pools).await?;
                let version = site.bundle_version.checked_add(1).ok_or_else(versions_used_up)?;
                let sealed =
                    birth::sealed_key(&site.names, version, &recipients, self.storehouse.issuer(), &self.groups);
                Step::KeySealed { order_url, sealed: sealed.map_err(|e| Failure::new(FailureKind::Unavailable, e))? }
            }
            Step::KeySealed { order_url, sealed } => {
                if self.authority.order_state(&order_url).await? != OrderState::Finalized {
                    self.authority.finalize(&order_url, &sealed).await?;
                }
                Step::Retrieving { order_url, sealed }
            }
            Step::Retrieving { order_url, sealed } => {
                let chain = self.await_certificate(&order_url, &sealed).await?;
                let octets: usize = chain.iter().map(Vec::len).sum();
                if octets > MAX_CHAIN {
                    let detail = format!("expected a chain of at most {MAX_CHAIN} octets from the CA, got {octets}");
                    return Err(Failure::new(FailureKind::Rejected, detail));
                }
                Step::Issued { sealed, chain: chain.into_iter().map(Base64).collect() }
            }
            Step::Issued { sealed, chain } => {
                let chain = chain.into_iter().map(|der| der.0).collect();
                let certified = self.storehouse.put_bundle(site, &sealed.bytes.0, chain).await?;
                tracing::info!(site = %site.site, version = site.bundle_version.saturating_add(1), "certificate stored");
                let crate::storehouse::Certified { authority, not_before, not_after } = certified;
                return Ok(Outcome::Stored { authority, not_before, not_after, enveloped: sealed.is_envelope() });
            }
        };
        Ok(Outcome::Moved(moved))
    }

    async fn await_ready(&self, order_url: &str) -> Result<(), Failure> {
        for wait in POLLS {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            if self.authority.order_state(order_url).await? != OrderState::Pending {
                return Ok(());
            }
        }
        Err(Failure::new(FailureKind::Unavailable, "the CA has not finished its validation yet"))
    }

    async fn await_certificate(
        &self,
        order_url: &str,
        sealed: &crate::site::SealedKey,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        for wait in POLLS {
            if let Some(chain) = self.authority.certificate(order_url, sealed).await? {
                return Ok(chain);
            }
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        Err(Failure::new(FailureKind::Unavailable, "the CA has not signed the certificate yet"))
    }

    async fn journaled<T: Send + 'static>(
        &self,
        name: &DnsName,
        work: impl FnOnce(&Journal, &DnsName) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (journal, name) = (self.journal.clone(), name.clone());
        tokio::task::spawn_blocking(move || work(&journal, &name)).await?
    }

    fn pace(&self) -> anyhow::Result<Pace> {
        let random = getrandom::u32().map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        Ok(Pace { retry: self.retry, chance: f64::from(random) / f64::from(u32::MAX) })
    }

    fn busy(&self) -> std::sync::MutexGuard<'_, HashSet<DnsName>> {
        // Held for single operations only, which leave no half-made state behind.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A failed validation that names no host is of one of these.
fn name_hosts(failure: Failure, answers: &[Answer]) -> Failure {
    if answers.iter().any(|answer| failure.detail.contains(answer.host.as_str())) {
        return failure;
    }
    let hosts: Vec<_> = answers.iter().map(|answer| answer.host.to_string()).collect();
    Failure { detail: format!("{} (names: {})", failure.detail, hosts.join(", ")), ..failure }
}

fn unavailable(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Unavailable, error)
}

/// What no honest certman comes to.
pub(crate) fn versions_used_up() -> Failure {
    let detail = "the highest version is signed already: others have the issuer key; \
                  `certctl keys issuers replace --compromised` brings another one";
    Failure::new(FailureKind::Hopeless, detail)
}

/// How long a site rests after its journal could not be read or written.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// The most octets of a chain: three certificates of the usual size have 4,000.
pub(crate) const MAX_CHAIN: usize = 64 * 1024;

/// Milliseconds between looks at an order: 27 s in all. After that the step is tried again later.
const POLLS: [u64; 12] = [50, 100, 250, 500, 1000, 2000, 3000, 4000, 4000, 4000, 4000, 4000];
