//! The feed follower: keeps a mirror up to date with certstore.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use certseal_client::{ClientError, StoreClient};
use certseal_wire::{
    Base64, Change, Digest, DnsName, Event, FeedPage, FeedQuery, Kind, ParseError, PoolName, ProblemKind, Snapshot,
};
use jiff::Timestamp;
use tokio::{sync::watch, task::JoinSet};

use crate::{Applied, Mirror, MirrorError, Refused, backoff::Backoff};

/// Follows certstore's feed into a [`Mirror`].
pub struct Follower {
    mirror: Arc<Mirror>,
    store: StoreClient,
    status: watch::Sender<FollowerStatus>,
    /// When refused items were last retried.
    retried: Instant,
    retry: Retry,
    /// When what checkpoints list was last compared with what came.
    compared: Instant,
    /// The changes that were missing then; the first of them.
    withheld: Vec<Change>,
    /// Whether certstore said that the cursor is no good, and no page of its feed came since.
    beginning_anew: bool,
    /// Whether the next turn is the first, or there is no key ring yet.
    fresh: bool,
}

/// How far the retrying of refused items has come.
enum Retry {
    Rests,
    /// The items after this one are next; all of them, without one.
    After(Option<Refused>),
}

/// How a follower does.
#[derive(Debug, Clone, Default)]
pub struct FollowerStatus {
    /// Whether the end of the feed was seen, and nothing but its newest events can be missing.
    pub caught_up: bool,
    /// When certstore answered last.
    pub last_contact: Option<Instant>,
    /// How many items are refused now.
    pub refused: u64,
    /// When the newest checkpoint of this pool was made, by certman's clock: with a store that withholds everything it
    /// stays behind. None before the first.
    pub checkpoint_issued_at: Option<Timestamp>,
    /// The last failure; none once certstore answers again.
    pub last_error: Option<String>,
}

impl Follower {
    /// A follower. Nothing is sent before [`Follower::run`].
    pub fn new(mirror: Arc<Mirror>, store: StoreClient) -> Self {
        let status = FollowerStatus {
            refused: mirror.refused_count(),
            checkpoint_issued_at: mirror.checkpoint_issued_at(),
            ..FollowerStatus::default()
        };
        let (status, now) = (watch::Sender::new(status), Instant::now());
        Self {
            mirror,
            store,
            status,
            retried: now,
            retry: Retry::Rests,
            compared: now,
            withheld: Vec::new(),
            beginning_anew: false,
            fresh: true,
        }
    }

    /// How the follower does, now and from now on.
    pub fn status(&self) -> watch::Receiver<FollowerStatus> {
        self.status.subscribe()
    }

    /// Follows the feed until it is dropped. It goes on after every failure.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            match self.turn().await {
                Ok(()) => backoff.reset(),
                Err(_) => {
                    // Without randomness all edges wait alike, which is no reason to stop.
                    tokio::time::sleep(backoff.next(getrandom::u32().unwrap_or(u32::MAX))).await;
                }
            }
        }
    }

    /// The beginning, or one step; an error is reported.
    async fn turn(&mut self) -> Result<(), FollowError> {
        // Items that were refused in an earlier run may have been repaired since.
        let outcome = if std::mem::take(&mut self.fresh) { self.begin().await } else { self.step().await };
        if let Err(error) = &outcome {
            self.fresh |= self.mirror.ring().is_none();
            self.report(error);
            // A store that gives errors only would withhold without being seen.
            self.note_withheld();
        }
        outcome
    }

    /// The ring first: without it nothing can be verified. Then what was refused in an earlier run.
    async fn begin(&mut self) -> Result<(), FollowError> {
        if self.mirror.ring().is_none() {
            let Fetched::Record(ring) = fetch(&self.store, Kind::Ring, "").await? else {
                return Err(FollowError::NoRing);
            };
            let applied = self.apply_items(vec![item(Kind::Ring, "", Some(ring))]).await?;
            if self.mirror.ring().is_none() {
                let reason = applied.refused.into_iter().next().map(|refused| refused.reason);
                return Err(FollowError::BadRing(reason.unwrap_or_default()));
            }
        }
        self.begin_retry();
        Ok(())
    }

    /// One page of the feed, and some of the refused items while they are retried.
    async fn step(&mut self) -> Result<(), FollowError> {
        let asked = Instant::now();
        let Some(after) = self.mirror.cursor() else { return self.read_snapshot().await };
        let has_time = self.status.borrow().caught_up && matches!(self.retry, Retry::Rests);
        let wait = if has_time { WAIT.as_secs() } else { 0 };
        let query = FeedQuery { after: Some(after), limit: Some(PAGE), wait: Some(wait) };
        let mut page = match self.store.feed(&query).await {
            Err(ClientError::Refused(problem)) if problem.kind == ProblemKind::Gone => {
                tracing::warn!(detail = problem.detail, "the cursor is no good any more: beginning with a snapshot");
                self.blocking(|mirror| mirror.reset_cursor()).await?;
                // The first time is no fault of anybody's; after a snapshot that led nowhere there is a pause.
                let again = std::mem::replace(&mut self.beginning_anew, true);
                return if again { Err(FollowError::Gone) } else { Ok(()) };
            }
            other => other?,
        };
        self.beginning_anew = false;
        let idle = page.events.is_empty() && page.end;
        if !page.end && after == page.cursor {
            return Err(FollowError::Stuck);
        }
        let end = page.end;
        self.fetch_bodies(&mut page.events).await?;
        self.finish_page(page).await?;
        let retries = self.retried.elapsed() > RETRY_REFUSED || self.mirror.take_retry();
        if retries {
            self.begin_retry();
        }
        self.go_on_retrying().await?;
        // A store whose feed never ends is not waited for.
        if end || self.compared.elapsed() > COMPARE {
            self.compare_with_checkpoint(retries).await?;
        }
        if idle && asked.elapsed() < LEAST_INTERVAL {
            tokio::time::sleep(LEAST_INTERVAL).await;
        }
        Ok(())
    }

    /// Takes everything that the store has. Items that are here already stay as they are, so that an interrupted
    /// attempt costs little when it is made again.
    async fn read_snapshot(&mut self) -> Result<(), FollowError> {
        let Snapshot { cursor, segments } = self.store.snapshot().await?;
        let (count, began) = (segments.len(), Instant::now());
        for segment in segments {
            let mut events = self.store.segment(&segment).await?;
            self.fetch_bodies(&mut events).await?;
            let applied = self.apply_items(events).await?;
            if applied.ring_changed {
                self.begin_retry();
            }
            let missing = applied.missing.iter().map(|site| item(Kind::Bundle, site.as_str(), None)).collect();
            self.fetch_and_apply(missing).await?;
            if self.compared.elapsed() > COMPARE {
                self.compare_with_checkpoint(false).await?;
            }
        }
        self.blocking(move |mirror| mirror.apply(&FeedPage { cursor, events: Vec::new(), end: false })).await?;
        tracing::info!(segments = count, took = ?began.elapsed(), "snapshot read; following the feed from {cursor}");
        // Not only where the feed ends: a store that sends its readers back to the start each time never lets it end.
        self.compare_with_checkpoint(true).await
    }

    async fn finish_page(&mut self, page: FeedPage) -> Result<(), FollowError> {
        let end = page.end;
        let nothing_new = page.events.is_empty() && self.mirror.cursor() == Some(page.cursor);
        let applied =
            if nothing_new { Applied::default() } else { self.blocking(move |mirror| mirror.apply(&page)).await? };
        self.contact(|status| status.caught_up = end);
        if applied.ring_changed {
            self.begin_retry();
        }
        let missing = applied.missing.iter().map(|site| item(Kind::Bundle, site.as_str(), None)).collect();
        self.fetch_and_apply(missing).await.map(drop)
    }

    fn begin_retry(&mut self) {
        self.retried = Instant::now();
        self.retry = Retry::After(None);
    }

    /// Fetches by name the next few of the items that were refused, and offers them to the mirror again. An item that
    /// certstore does not know and the mirror never had is forgiven.
    async fn go_on_retrying(&mut self) -> Result<(), FollowError> {
        let Retry::After(last) = &self.retry else { return Ok(()) };
        let mut refused = self.mirror.refused(last.as_ref(), RETRIES_PER_STEP);
        // Before anything can fail: the items after those that cannot be fetched have their turn too.
        self.retry = match refused.last() {
            Some(end) => Retry::After(Some(end.clone())),
            None => Retry::Rests,
        };
        let items = refused.iter().map(|refused| item(refused.kind, &refused.name, None)).collect();
        let unknown = self.fetch_and_apply(items).await?;
        refused.retain(|refused| unknown.iter().any(|(kind, name)| *kind == refused.kind && *name == refused.name));
        if !refused.is_empty() {
            self.blocking(move |mirror| mirror.forgive_unknown(&refused)).await?;
            self.contact(|_| ());
        }
        Ok(())
    }

    /// Fetches by name the changes that a checkpoint lists and the feed did not bring, again when `retries`. Those that
    /// are not here then are withheld.
    async fn compare_with_checkpoint(&mut self, retries: bool) -> Result<(), FollowError> {
        self.compared = Instant::now();
        let awaited = self.mirror.awaited(AWAITED_BATCH);
        let items = awaited.iter().map(|change| item(change.kind, &change.name, None)).collect();
        let fetched =
            if awaited == self.withheld && !retries { Ok(()) } else { self.fetch_and_apply(items).await.map(drop) };
        // Also when certstore failed to answer: that would be a way to withhold without being seen.
        self.note_withheld();
        fetched
    }

    /// Logs what is withheld once, and again when it is something else.
    fn note_withheld(&mut self) {
        let (withheld, count) = (self.mirror.awaited(AWAITED_BATCH), self.mirror.awaited_count());
        if withheld.is_empty() && !self.withheld.is_empty() {
            tracing::info!("nothing of what checkpoints list is missing any more");
        } else if withheld != self.withheld {
            let first: Vec<_> = withheld.iter().take(LOGGED).map(Change::to_string).collect();
            tracing::error!(
                count,
                first = first.join(", "),
                "what checkpoints list is not here: certstore withholds it, or it was refused"
            );
        }
        self.withheld = withheld;
    }

    /// Answers what certstore does not know.
    async fn fetch_and_apply(&mut self, mut items: Vec<Event>) -> Result<Vec<(Kind, String)>, FollowError> {
        let unknown = self.fetch_bodies(&mut items).await?;
        items.retain(|item| item.body.is_some());
        if !items.is_empty() {
            self.apply_items(items).await?;
        }
        Ok(unknown)
    }

    /// Fills in the bodies that the mirror needs. An item that certstore does not hand out stays without; answers those
    /// that it does not know.
    async fn fetch_bodies(&self, events: &mut [Event]) -> Result<Vec<(Kind, String)>, FollowError> {
        let mut unknown = Vec::new();
        let mut wanted =
            events.iter_mut().filter(|event| event.body.is_none() && !event.deleted && !self.mirror.holds(event));
        loop {
            let mut fetches = JoinSet::new();
            let batch: Vec<&mut Event> = wanted.by_ref().take(FETCHES).collect();
            if batch.is_empty() {
                return Ok(unknown);
            }
            for (index, event) in batch.iter().enumerate() {
                let (store, kind, name) = (self.store.clone(), event.kind, event.name.clone());
                fetches.spawn(async move { (index, fetch(&store, kind, &name).await) });
            }
            let mut batch = batch;
            while let Some(fetched) = fetches.join_next().await {
                let (index, fetched) = fetched.map_err(|_| FollowError::Interrupted)?;
                match fetched? {
                    Fetched::Record(body) => batch[index].body = Some(Base64(body)),
                    Fetched::Unknown => unknown.push((batch[index].kind, batch[index].name.clone())),
                    Fetched::Refused => {}
                }
            }
        }
    }

    async fn apply_items(&self, items: Vec<Event>) -> Result<Applied, FollowError> {
        let applied = self.blocking(move |mirror| mirror.apply_items(&items)).await?;
        self.contact(|_| ());
        Ok(applied)
    }

    /// Writes away from the reactor. A write that has begun is finished even when the follower is dropped.
    async fn blocking<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Mirror) -> Result<T, MirrorError> + Send + 'static,
    ) -> Result<T, FollowError> {
        let mirror = self.mirror.clone();
        let written = tokio::task::spawn_blocking(move || write(&mirror)).await;
        Ok(written.map_err(|_| FollowError::Interrupted)??)
    }

    fn contact(&self, more: impl FnOnce(&mut FollowerStatus)) {
        let (refused, checkpoint_issued_at) = (self.mirror.refused_count(), self.mirror.checkpoint_issued_at());
        self.status.send_modify(|status| {
            status.last_contact = Some(Instant::now());
            status.refused = refused;
            status.checkpoint_issued_at = checkpoint_issued_at;
            if status.last_error.take().is_some() {
                tracing::info!("certstore answers again");
            }
            more(status);
        });
    }

    /// Logs an error once, however often it repeats.
    fn report(&self, error: &FollowError) {
        let text = error.to_string();
        self.status.send_if_modified(|status| {
            let is_new = status.last_error.as_deref() != Some(&text);
            if is_new {
                tracing::warn!(error = text, "cannot follow the feed; serving from the mirror");
                status.last_error = Some(text);
            }
            is_new
        });
    }
}

/// The outcome of asking for one record.
enum Fetched {
    Record(Vec<u8>),
    /// There is none of this name.
    Unknown,
    /// Not for us, or not now.
    Refused,
}

/// Fetches one record by name. Only what concerns certstore as a whole is an
/// error: one bad record must not hold up the others.
async fn fetch(store: &StoreClient, kind: Kind, name: &str) -> Result<Fetched, FollowError> {
    let (site, pool) = (|| name.parse::<DnsName>(), || name.parse::<PoolName>());
    let document = |signed: Option<certseal_wire::Signed>| signed.and_then(|signed| serde_json::to_vec(&signed).ok());
    let fetched: Result<_, ClientError> = match kind {
        Kind::Ring => store.ring().await.map(document),
        Kind::Accounts => store.accounts().await.map(document),
        Kind::Route => match site() {
            Ok(site) => store.route(&site).await.map(document),
            Err(error) => return Ok(unnamed(kind, &error)),
        },
        Kind::Staple => match site() {
            Ok(site) => store.staple(&site).await.map(document),
            Err(error) => return Ok(unnamed(kind, &error)),
        },
        Kind::Bundle => match site() {
            Ok(site) => store.bundle(&site).await.map(|body| body.map(Vec::from)),
            Err(error) => return Ok(unnamed(kind, &error)),
        },
        Kind::Checkpoint => match pool() {
            Ok(pool) => store.checkpoint(&pool).await.map(document),
            Err(error) => return Ok(unnamed(kind, &error)),
        },
        // There is no request for what this release does not know.
        Kind::Unknown(_) => return Ok(Fetched::Refused),
    };
    match fetched {
        Ok(Some(body)) => Ok(Fetched::Record(body)),
        Ok(None) => Ok(Fetched::Unknown),
        Err(ClientError::Refused(problem)) if !is_passing(problem.kind) => {
            tracing::warn!(%kind, name, %problem, "certstore does not hand out a record");
            Ok(Fetched::Refused)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether certstore may well answer the same question soon.
fn is_passing(kind: ProblemKind) -> bool {
    matches!(kind, ProblemKind::Unavailable | ProblemKind::Internal | ProblemKind::Busy | ProblemKind::Full)
}

fn unnamed(kind: Kind, error: &ParseError) -> Fetched {
    tracing::debug!(%kind, %error, "an event has no name to fetch by");
    Fetched::Unknown
}

fn item(kind: Kind, name: &str, body: Option<Vec<u8>>) -> Event {
    let body = body.map(Base64);
    Event { kind, name: name.to_owned(), version: 0, digest: Digest([0; 32]), pools: Vec::new(), body, deleted: false }
}

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error("certstore has no key ring yet: the security team signs one with certctl")]
    NoRing,
    #[error("certstore's key ring is refused: {0}")]
    BadRing(String),
    #[error("certstore's feed does not end, and does not go on either")]
    Stuck,
    #[error("certstore takes no cursor of its feed, not even that of the snapshot before")]
    Gone,
    #[error("a task of the follower was stopped")]
    Interrupted,
}

/// How long certstore may hold a request while there are no news.
const WAIT: Duration = Duration::from_secs(25);

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Between two requests without news, whatever the server does.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);

/// Refused items are fetched again when the ring changes, and this often.
const RETRY_REFUSED: Duration = Duration::from_secs(15 * 60);

/// The lists of checkpoints are compared with what came at each end of the feed, and when none was seen for this long.
const COMPARE: Duration = Duration::from_secs(60);

/// Withheld changes named in one line of the log.
const LOGGED: usize = 20;

/// Events asked for at one time.
const PAGE: usize = 500;

/// Awaited items fetched and offered again in one transaction.
const AWAITED_BATCH: usize = 100;

/// Refused items fetched again between two pages of the feed, which go on meanwhile.
const RETRIES_PER_STEP: usize = 2 * FETCHES;

/// Requests by name at one time.
const FETCHES: usize = 16;

#[cfg(test)]
mod adversary;
