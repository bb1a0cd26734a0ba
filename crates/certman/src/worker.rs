//! Takes what is due from the queue and does it, one action at a time. `certseal-issuance` decides what to do.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use certseal_issuance::{
    Action, Answer, Booking, Failure, FailureKind, Moment, Outcome, Policy, RecordError, Site, Stage, Step, Turns,
};
use certseal_service::Shutdown;
use certseal_wire::{Base64, DnsName, FindingCode, NamesReport, Readiness, ValidationMethod, causes};
use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::{
    accounts,
    authority::{Authorities, MAX_CHAIN, certificate_id},
    certstore::{Certstore, versions_used_up},
    dns_challenges::DnsChallenges,
    drive::{self, Todo},
    events,
    journal::{Entry, Journal, StoredChange},
    leases,
    ledger::Ledger,
    metrics::{Metrics, Trouble},
    new_key::{self, Groups},
    on_demand::OnDemand,
    preflight::Preflight,
    queue::Place,
    repeats,
    stapling::{Responders, names_responder},
    warm_up::WarmUps,
};

pub(crate) struct Worker {
    pub(crate) journal: Journal,
    pub(crate) ledger: Ledger,
    pub(crate) authorities: Authorities,
    pub(crate) certstore: Arc<Certstore>,
    /// None where names are not looked at.
    pub(crate) preflight: Option<Arc<Preflight>>,
    /// None where no sites are made for visitors.
    pub(crate) on_demand: Option<OnDemand>,
    /// None where no edges are warmed up.
    pub(crate) warm_ups: Option<Arc<WarmUps>>,
    /// None where nothing is put into the DNS.
    pub(crate) dns_challenges: Option<Arc<DnsChallenges>>,
    pub(crate) metrics: Metrics,
    pub(crate) policy: Policy,
    /// Actions at one time.
    pub(crate) slots: Slots,
    /// Which lane's turn it is to get one.
    pub(crate) turns: Mutex<Turns>,
    /// Wakes the worker when something became due.
    pub(crate) wake: Notify,
    /// The responders of the CAs' certificates.
    pub(crate) responders: Responders,
    /// Sites whose names are looked at or whose responder is asked: those that are worked on besides are bounded without them.
    pub(crate) looking: AtomicUsize,
    /// Sites that are worked on, or that wait for a moment.
    pub(crate) busy: Mutex<HashSet<DnsName>>,
    pub(crate) groups: Mutex<Groups>,
    /// Certificates that are ordered again a day because certstore says that it lost them.
    pub(crate) reorders_per_day: u32,
}

/// Places for actions: each stage of orders has its own.
pub(crate) struct Slots {
    each: u32,
    authorize: Arc<Semaphore>,
    challenge: Arc<Semaphore>,
    retrieval: Arc<Semaphore>,
}

impl Slots {
    pub(crate) fn new(each: usize) -> Self {
        let each = each.clamp(1, 1000);
        let slots = || Arc::new(Semaphore::new(each));
        Self { each: each as u32, authorize: slots(), challenge: slots(), retrieval: slots() }
    }

    fn of(&self, stage: Stage) -> &Arc<Semaphore> {
        match stage {
            Stage::Authorize | Stage::DeadLetter => &self.authorize,
            Stage::Challenge => &self.challenge,
            Stage::Retrieval => &self.retrieval,
        }
    }

    /// Waits until nobody holds one.
    async fn all_free(&self) {
        for slots in [&self.authorize, &self.challenge, &self.retrieval] {
            // They are never closed.
            let _ = slots.acquire_many(self.each).await;
        }
    }
}

impl Worker {
    /// Works until the shutdown begins, and then until the actions under way are done.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        while !shutdown.has_begun() {
            // Also when no key is sealed any more: an old group's content key has no reason to be here.
            self.groups.lock().unwrap_or_else(PoisonError::into_inner).close_old(Timestamp::now());
            self.clone().start_due(&shutdown).await;
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = shutdown.begun() => {}
            }
        }
        // Everything goes on after a restart; waiting only saves its repetition.
        let _ = tokio::time::timeout(Duration::from_secs(10), self.slots.all_free()).await;
        let released = self.journaled(|journal| Ok(journal.leases().release()?)).await;
        if let Err(error) = released {
            tracing::warn!(error = causes(error.as_ref()), "what this process held is left to its time");
        }
    }

    /// Keeps this process's part of the sites until the shutdown begins.
    pub(crate) async fn keep_leases(self: Arc<Self>, shutdown: Shutdown) {
        // How far the sites whose certificates are near their end were looked at.
        let mut looked_until = None::<Vec<u8>>;
        for round in 0_u64.. {
            tokio::select! {
                () = tokio::time::sleep(leases::RENEW_EVERY) => {}
                () = shutdown.begun() => return,
            }
            let after = looked_until.take();
            let kept = self.journaled(move |journal| {
                journal.leases().renew(Timestamp::now())?;
                if !round.is_multiple_of(COUNT_EVERY) {
                    return Ok((None, after));
                }
                // One process tells, and the others have nothing to tell.
                if !journal.leases().leads() {
                    return Ok((Some(Trouble::default()), None));
                }
                let (storage, now) = (journal.storage(), Timestamp::now());
                repeats::forget_old(&*storage, now)?;
                events::forget_old(&*storage, now)?;
                let after = journal.tell_expiring(now, after)?;
                Ok((Some(journal.trouble(now)?), after))
            });
            match kept.await {
                Ok((trouble, after)) => {
                    looked_until = after;
                    trouble.into_iter().for_each(|trouble| self.metrics.troubled(trouble));
                    self.wake.notify_one();
                }
                Err(error) => tracing::error!(error = causes(error.as_ref()), "cannot renew the leases"),
            }
        }
    }

    /// Finishes changes of accounts, until the shutdown begins.
    pub(crate) async fn keep_accounts(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = accounts::tidy(&self.authorities, &self.certstore) => {}
                () = shutdown.begun() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(TIDY_EVERY) => {}
                () = shutdown.begun() => return,
            }
        }
    }

    /// The policy as it is now: CAs that are away get no new orders.
    fn policy(&self) -> Policy {
        Policy { away: self.authorities.away(), ..self.policy.clone() }
    }

    async fn start_due(self: Arc<Self>, shutdown: &Shutdown) {
        // Each site begins there, and goes on where it was.
        let first = self.slots.of(Stage::Authorize);
        let (free, worker) = (first.available_permits(), self.clone());
        let looking = self.looking.load(Ordering::Relaxed).min(MOST_LOOKING);
        if free == 0 || self.busy().len() >= looking + self.slots.each as usize * IN_FLIGHT {
            return;
        }
        let due = self.journaled(move |journal| {
            // Sites under way still stand in the queue.
            let is_idle = |site: &DnsName| !worker.busy().contains(site);
            // Held for this alone: one task asks. Turns that were cut short by a panic are turns all the same.
            let mut turns = worker.turns.lock().unwrap_or_else(PoisonError::into_inner);
            journal.due(Timestamp::now(), free, &mut turns, is_idle)
        });
        let due = match due.await {
            Ok(due) => due,
            Err(error) => return tracing::error!(error = causes(error.as_ref()), "cannot read the queue"),
        };
        for place in due {
            let site = place.site.clone();
            if !self.busy().insert(site.clone()) {
                continue;
            }
            let Ok(slot) = first.clone().try_acquire_owned() else {
                self.busy().remove(&site);
                return;
            };
            let (worker, shutdown) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                if let Err(error) = worker.drive(place, slot, &shutdown).await {
                    let pause = match error.downcast_ref() {
                        Some(RecordError::Later(_)) => LEFT_ALONE,
                        _ => AFTER_ERROR,
                    };
                    tracing::error!(%site, error = causes(error.as_ref()), "cannot work on the site");
                    // It is still due: without a pause it would be taken up again at once.
                    tokio::time::sleep(pause).await;
                }
                worker.busy().remove(&site);
                worker.wake.notify_one();
            });
        }
    }

    /// Does one action after another until nothing is due soon. Short waits take no slot, and are not written down.
    async fn drive(
        self: &Arc<Self>,
        place: Place,
        slot: OwnedSemaphorePermit,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let name = &place.site.clone();
        let mut slot = Some((Stage::Authorize, slot));
        let Some(mut entry) = self.read(name).await? else { return Ok(()) };
        let mut site = entry.site.clone().resumed();
        if let Some(order) = site.order.as_ref().and_then(Step::order) {
            self.authorities.forget(order);
        }
        let mut has_acted = false;
        loop {
            let now = Timestamp::now();
            let action = match drive::next(&site, &entry.site, now, &self.policy()) {
                Todo::Perform(action) => action,
                Todo::Write => {
                    (entry, site) = self.write(entry, site, Vec::new()).await?;
                    continue;
                }
                Todo::Book(booking) => {
                    has_acted = true;
                    match self.ledger.unlimited(&booking) {
                        Some(booked) => site = site.booked(&booking, booked),
                        None => (entry, site) = self.book(entry, site, booking).await?,
                    }
                    continue;
                }
                Todo::Wait(at) if at.duration_since(now) <= SHORT_WAIT && !shutdown.has_begun() => {
                    if slot.take().is_some() {
                        // Another site may begin meanwhile.
                        self.wake.notify_one();
                    }
                    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = shutdown.begun() => {}
                    }
                    continue;
                }
                Todo::Wait(_) | Todo::Rest => {
                    if site != entry.site {
                        self.write(entry, site, Vec::new()).await?;
                    } else if !has_acted && !shutdown.has_begun() {
                        // Its place came from elsewhere, from a release that reckons otherwise for example.
                        self.journaled(move |journal| journal.remove_stray(place, &entry)).await?;
                        // Should it be due for another reason, it is taken up again soon, and not at once.
                        drop(slot.take());
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                    return Ok(());
                }
            };
            let stage = action.stage();
            let is_look = matches!(action, Action::LookAtNames | Action::FetchStaple { .. });
            let looking = is_look.then(|| Looking::new(self));
            if looking.is_some() {
                // It waits for servers of others, and takes no place of the orders.
                drop(slot.take());
                self.wake.notify_one();
            } else if slot.as_ref().is_none_or(|(held, _)| *held != stage) {
                if slot.take().is_some() {
                    self.wake.notify_one();
                }
                slot = Some((stage, self.slots.of(stage).clone().acquire_owned().await?));
            }
            has_acted = true;
            let mut stored = Vec::new();
            let outcome = self.perform(&site, &action, &mut stored).await.unwrap_or_else(Outcome::Failed);
            drop(looking);
            self.metrics.performed(&outcome);
            if let Outcome::Failed(Failure { kind, detail, .. }) = &outcome {
                tracing::warn!(site = %name, ?kind, detail, "attempt failed");
            }
            let is_written = drive::is_written_after(&action, &outcome) || shutdown.has_begun();
            site = site.after(&action, outcome, self.moment()?, &self.policy());
            if is_written {
                (entry, site) = self.write(entry, site, stored).await?;
            }
            if shutdown.has_begun() {
                return Ok(());
            }
        }
    }

    /// Performs one action. Changes that certstore took are noted in `stored`.
    async fn perform(&self, site: &Site, action: &Action, stored: &mut Vec<StoredChange>) -> Result<Outcome, Failure> {
        Ok(match action {
            Action::StoreRoute => {
                stored.push(self.certstore.put_route(site).await?);
                Outcome::RouteStored
            }
            Action::Confirm => {
                let found = self.certstore.stored_bundle(&site.site).await?;
                let version = found.map_or(0, |(_, info)| info.version);
                if version < site.bundle_version {
                    tracing::warn!(site = %site.site, version, "certstore has not the newest bundle: another one is needed");
                }
                Outcome::Confirmed(version)
            }
            Action::TakeReorder => self.take_reorder(site).await?,
            Action::Revoke(revocation) => {
                let reason = revocation.reason;
                match self.authorities.revoke(revocation).await {
                    Err(failure) if failure.may_pass() => {
                        return Err(failure);
                    }
                    // A refusal of the CA must not hold up the site's other work for ever.
                    Err(Failure { detail, .. }) => {
                        tracing::error!(site = %site.site, %reason, detail, "certificate is not revoked: the CA refuses");
                    }
                    Ok(()) => tracing::info!(site = %site.site, %reason, "certificate is revoked"),
                }
                Outcome::Revoked(revocation.clone())
            }
            Action::Deactivate(order) => {
                let abandoned = match self.authorities.of(order) {
                    Ok(authority) => authority.abandon(&order.url).await,
                    Err(failure) => Err(failure),
                };
                match abandoned {
                    Err(failure) if failure.may_pass() => {
                        return Err(failure);
                    }
                    // A CA that does not want to be told, or is configured no more, must not hold up the orders after this one.
                    Err(Failure { detail, .. }) => tracing::warn!(site = %site.site, detail, "order not deactivated"),
                    Ok(()) => {}
                }
                Outcome::Deactivated(order.clone())
            }
            Action::RetractChallenges(answers) => {
                let (beside, below) = by_method(answers);
                if let Some(dns) = &self.dns_challenges {
                    dns.retract(&beside).await;
                }
                let standing = site.order.as_ref().map(Step::published).unwrap_or_default();
                self.certstore.retract(&below, standing).await;
                Outcome::Retracted
            }
            Action::OpenAccount(authority) => {
                // Before the CA is asked for anything that would then be left behind.
                self.certstore.recipients(&site.pools).await?;
                Outcome::AccountReady(self.authorities.open_account(authority).await?)
            }
            Action::VouchForAccount(account) => {
                // The key that it has now, whichever the account is known by.
                if let Some(thumbprint) = self.authorities.thumbprint(&account.authority).await? {
                    self.certstore.vouch_for_account(&thumbprint).await?;
                }
                Outcome::Vouched
            }
            Action::LookAtNames => match &self.preflight {
                Some(preflight) => {
                    let (accounts, account) = (self.authorities.account_urls(), self.probed_account(preflight).await);
                    Outcome::NamesAre(preflight.look(&site.names, &site.challenges, &accounts, account).await)
                }
                // The configuration was another one when somebody wanted a look.
                None => Outcome::NamesAre(NamesReport {
                    looked_at: Timestamp::now(),
                    readiness: Readiness::Ready,
                    names: Vec::new(),
                    forbidden_to: Vec::new(),
                }),
            },
            Action::AskAdvice(lineage) => self.authorities.advice(lineage).await?,
            Action::FetchStaple { version } => self.fetch_staple(site, *version).await?,
            Action::OpenOrder { account, replaces, profile } => {
                if let Some(denied) = self.preflight.as_ref().and_then(|preflight| preflight.denied(&site.names)) {
                    return Err(Failure::new(FailureKind::Hopeless, denied.detail));
                }
                // What is served goes on being served: a renewal does not wait for others.
                if site.certificate.is_none()
                    && let Some(preflight) = &self.preflight
                    && let Some(found) = preflight.unvetted(&site.names).await
                {
                    let is_listed = found.code == FindingCode::Denied;
                    let kind = if is_listed { FailureKind::Hopeless } else { FailureKind::Unavailable };
                    return Err(Failure::new(kind, found.detail));
                }
                let replaces = replaces.as_deref();
                Outcome::OrderOpened(
                    self.authorities.open_order(account, &site.names, replaces, profile.as_ref()).await?,
                )
            }
            Action::FetchChallenges(order) => {
                let rejected = site.attempts.order.rejected;
                let method = |host: &DnsName| self.policy.method(&site.challenges, host, rejected);
                Outcome::ChallengesKnown(self.authorities.of(order)?.challenges(&order.url, &site.names, method).await?)
            }
            Action::PublishChallenges(answers) => {
                let (beside, below) = by_method(answers);
                match &self.dns_challenges {
                    Some(dns) => dns.publish(&beside).await?,
                    None if beside.is_empty() => {}
                    None => return Err(no_dns_challenges()),
                }
                self.certstore.publish(&below).await?;
                Outcome::Published
            }
            Action::BeginValidation(order) => {
                let answers = site.order.as_ref().map(Step::published).unwrap_or_default();
                let retry_after = self.authorities.of(order)?.begin_validation(&order.url, answers).await?;
                Outcome::ValidationBegun { retry_after }
            }
            Action::LookAtOrder(order) => Outcome::OrderIs(self.authorities.of(order)?.order_report(&order.url).await?),
            Action::SealKey => {
                let recipients = self.certstore.recipients(&site.pools).await?;
                let version = site.bundle_version.checked_add(1).ok_or_else(versions_used_up)?;
                let issuer = self.certstore.issuer();
                let sealed =
                    new_key::sealed_key(site.key_type, &site.names, version, &recipients, issuer, &self.groups);
                Outcome::KeySealed(sealed.await.map_err(|error| Failure::new(FailureKind::Unavailable, error))?)
            }
            Action::Finalize(order, sealed) => {
                Outcome::OrderIs(self.authorities.of(order)?.finalize(&order.url, sealed).await?)
            }
            Action::FetchCertificate(order, sealed) => {
                let chain = self.authorities.of(order)?.certificate(&order.url, sealed).await?;
                let octets: usize = chain.iter().flatten().map(Vec::len).sum();
                if octets > MAX_CHAIN {
                    let detail = format!("expected a chain of at most {MAX_CHAIN} octets from the CA, got {octets}");
                    return Err(Failure::new(FailureKind::Rejected, detail));
                }
                Outcome::Certificate(chain.map(|chain| chain.into_iter().map(Base64).collect()))
            }
            Action::StoreBundle { sealed, chain } => {
                let id = chain.first().and_then(|leaf| certificate_id(&leaf.0));
                let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.0.clone()).collect();
                let responder = names_responder(&chain);
                let leaf = chain.first().filter(|_| site.certificate.is_none()).cloned();
                let (certified, change) = self.certstore.put_bundle(site, &sealed.bytes.0, chain).await?;
                stored.push(change);
                if let (Some(warm_ups), Some(leaf)) = (&self.warm_ups, leaf) {
                    warm_ups.add(site, leaf);
                }
                let version = site.bundle_version.saturating_add(1);
                tracing::info!(site = %site.site, version, "certificate stored");
                let crate::certstore::Certified { authority, not_before, not_after } = certified;
                Outcome::Stored { authority, id, not_before, not_after, responder }
            }
        })
    }

    /// The account that edges answer probes for, by the thumbprint of its key; none where nothing is fetched, before there is an
    /// account, and while certstore cannot say.
    pub(crate) async fn probed_account(&self, preflight: &Preflight) -> Option<String> {
        if !preflight.fetches() {
            return None;
        }
        let listed = self.certstore.listed_account().await;
        listed.unwrap_or_else(|Failure { detail, .. }| {
            tracing::warn!(detail, "names are looked at without fetches: the list of accounts cannot be read");
            None
        })
    }

    /// Enters a booking in the books. Answers the site as it is then; as somebody else wrote it, when they came first, and then
    /// nothing is entered.
    async fn book(&self, entry: Entry, site: Site, booking: Booking) -> anyhow::Result<(Entry, Site)> {
        let (name, moment) = (site.site.clone(), self.moment()?);
        let entry = match self.ledger.book(entry, site, booking, moment).await? {
            Some(entry) => entry,
            None => {
                anyhow::ensure!(self.journal.leases().has(&name), "another process works on it now");
                self.read(&name).await?.ok_or_else(|| anyhow::anyhow!("its record is gone"))?
            }
        };
        let site = entry.site.clone();
        Ok((entry, site))
    }

    /// Fetches the OCSP answer for the stored certificate, and stores it.
    async fn fetch_staple(&self, site: &Site, version: u64) -> Result<Outcome, Failure> {
        let found = self.certstore.stored_bundle(&site.site).await?;
        // An older one is not what edges serve.
        let Some((bundle, _)) = found.filter(|(_, info)| info.version >= site.bundle_version) else {
            let detail = format!("certstore has not version {} of the bundle", site.bundle_version);
            return Err(Failure::new(FailureKind::Unavailable, detail));
        };
        let (chain, name) = (bundle.chain(), &site.site);
        let (Some(answer), Some(leaf)) = (self.responders.answer(name, chain).await?, chain.first()) else {
            return Ok(Outcome::NoResponder);
        };
        let (this_update, next_update) = (answer.this_update, answer.next_update);
        self.certstore.put_staple(site, version, leaf, answer).await?;
        tracing::debug!(site = %name, version, %next_update, "OCSP answer stored");
        Ok(Outcome::Stapled { version, this_update, next_update })
    }

    async fn take_reorder(&self, site: &Site) -> Result<Outcome, Failure> {
        let per_day = self.reorders_per_day;
        let taken = self.journaled(move |journal| journal.take_reorder(Timestamp::now(), per_day)).await;
        let Some(wait) = taken.map_err(|error| Failure::new(FailureKind::Unavailable, causes(error.as_ref())))? else {
            return Ok(Outcome::ReorderTaken);
        };
        let detail = format!(
            "certstore says that it lost version {}. On its word {per_day} certificates a day are ordered; \
             `certctl site lost --order` has all of them ordered at once",
            site.bundle_version
        );
        Err(Failure::new(FailureKind::Throttled(wait.as_secs().unsigned_abs()), detail))
    }

    async fn read(&self, name: &DnsName) -> anyhow::Result<Option<Entry>> {
        let name = name.clone();
        self.journaled(move |journal| journal.read(&name)).await
    }

    /// Writes a site, and answers it as it is now: as somebody else wrote it, when they came first.
    async fn write(&self, before: Entry, site: Site, stored: Vec<StoredChange>) -> anyhow::Result<(Entry, Site)> {
        let entry = self.journaled(move |journal| journal.write_work(before, &site, &stored)).await?;
        let site = entry.site.clone();
        Ok((entry, site))
    }

    async fn journaled<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || work(&journal)).await?
    }

    pub(crate) fn moment(&self) -> anyhow::Result<Moment> {
        let random = getrandom::u32().map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        Ok(Moment { now: Timestamp::now(), chance: f64::from(random) / f64::from(u32::MAX) })
    }

    fn busy(&self) -> std::sync::MutexGuard<'_, HashSet<DnsName>> {
        // Held for single operations only, which leave no half-made state behind.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A site whose names are looked at, or whose responder is asked, as long as this lives.
struct Looking<'a>(&'a Worker);

impl<'a> Looking<'a> {
    fn new(worker: &'a Worker) -> Self {
        worker.looking.fetch_add(1, Ordering::Relaxed);
        Self(worker)
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.looking.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The answers that go into the DNS, and those for edges. What is in the DNS for ever goes nowhere.
fn by_method(answers: &[Answer]) -> (Vec<&Answer>, Vec<&Answer>) {
    let goes_somewhere = |answer: &&Answer| answer.method != ValidationMethod::DnsPersist;
    answers.iter().filter(goes_somewhere).partition(|answer| answer.method == ValidationMethod::Dns)
}

fn no_dns_challenges() -> Failure {
    let detail = "a wildcard takes dns-01, for which the configuration has no [dns.challenges]";
    Failure::new(FailureKind::Hopeless, detail)
}

/// How long a site rests after its journal could not be read or written.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// Renewals of leases for each count of what somebody should look at.
const COUNT_EVERY: u64 = 6;

/// Between two looks at changes of accounts.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// How long a site rests whose record a later release wrote.
const LEFT_ALONE: Duration = Duration::from_secs(300);

/// Longer waits are written down, and the site leaves memory.
const SHORT_WAIT: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);

/// Sites whose names are looked at or whose responder is asked, beside those under way. With more of them everything waits for
/// that.
const MOST_LOOKING: usize = 4096;

/// Sites under way for each slot: most of them wait for the CA.
const IN_FLIGHT: usize = 64;
