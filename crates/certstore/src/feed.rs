//! The feed: what changed after a cursor, for those who may see it.
//!
//! ```text
//! storage --catch_up--> tail (newest events in memory, rendered once) --> everybody who waits
//!    \--> a page read for one reader that is behind the tail, when admission allows
//! ```
//!
//! A reader begins with a snapshot, goes on at its cursor, and waits at the end. Whoever waits is answered a moment after
//! news came, not at once: what comes together travels together, and a fleet does not answer in one breath.

mod tail;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use certseal_service::{Shutdown, problem::Refusal};
use certseal_store::Position;
use certseal_wire::{Cursor, FeedQuery, Kind, PoolName, ProblemKind, Role};
use tokio::{sync::watch, time::Instant};

use crate::{
    admission::{Admission, PagePermit},
    audit::{Actor, ReadLog, What},
    vault::{Vault, refusal},
};
use tail::{Tail, Told};

pub(crate) struct Feed {
    vault: Arc<Vault>,
    tail: RwLock<Tail>,
    /// The sequence up to which the tail has everything.
    progress: watch::Sender<u64>,
    admission: Arc<Admission>,
    reads: ReadLog,
}

/// A rendered page.
pub(crate) struct Page {
    /// Events as JSON, without the brackets around them.
    events: Vec<u8>,
    count: usize,
    /// How many bundles are in it.
    bundles: usize,
    cursor: Cursor,
    end: bool,
}

impl Feed {
    pub(crate) fn new(vault: Arc<Vault>, admission: Arc<Admission>, reads: ReadLog) -> Result<Self, Refusal> {
        let head = vault.storage().head().map_err(refusal)?;
        let tail = RwLock::new(Tail::new(head));
        Ok(Self { vault, tail, progress: watch::Sender::new(head.seq), admission, reads })
    }

    /// Keeps the tail up to date until the shutdown begins. Other processes may write to the same database, so it looks
    /// by itself too.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut news = self.vault.news();
        let mut is_failing = false;
        loop {
            tokio::select! {
                _ = news.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = shutdown.begun() => return,
            }
            let feed = self.clone();
            let outcome = tokio::task::spawn_blocking(move || feed.catch_up()).await;
            let failure = outcome.map_err(Refusal::internal).and_then(|outcome| outcome).err();
            if let Some(problem) = failure.as_ref().filter(|_| !is_failing) {
                tracing::error!(problem = %problem.0, "cannot read the feed");
            }
            is_failing = failure.is_some();
        }
    }

    fn catch_up(&self) -> Result<(), Refusal> {
        self.vault.refresh_restoring()?;
        loop {
            let from = self.tail().end();
            let head = self.vault.storage().head().map_err(refusal)?;
            if head == from {
                return Ok(());
            }
            let entries = self.vault.storage().feed(from.seq, CAUGHT_UP_AT_ONCE).map_err(refusal)?;
            let reached = match entries.len() == CAUGHT_UP_AT_ONCE {
                true => entries.last().map_or(head.seq, |entry| entry.seq),
                // Events that came since the head was read are here too.
                false => entries.last().map_or(head.seq, |entry| entry.seq.max(head.seq)),
            };
            let mut told = Vec::with_capacity(entries.len());
            let mut is_new_ring = false;
            for part in entries.chunks(READ_TOGETHER) {
                for (seq, event, stored) in self.vault.with_records(part, |_| true)? {
                    is_new_ring |= event.kind == Kind::Ring;
                    told.push(Told::new(seq, event, stored)?);
                }
            }
            let reached = Position { epoch: head.epoch, seq: reached };
            self.tail.write().unwrap_or_else(PoisonError::into_inner).extend(told, reached);
            if is_new_ring {
                self.vault.refresh()?;
            }
            self.progress.send_replace(reached.seq);
        }
    }

    fn tail(&self) -> std::sync::RwLockReadGuard<'_, Tail> {
        // Every change of the tail is complete at each step.
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page of the feed for `actor`, as JSON. With no news it waits, as long as the query and this server allow.
    pub(crate) async fn page(
        self: Arc<Self>,
        actor: Actor,
        query: FeedQuery,
        shutdown: &Shutdown,
    ) -> Result<(Bytes, PagePermit), Refusal> {
        let Some(after) = query.after else {
            return Err(Refusal::new(
                ProblemKind::Malformed,
                "expected a cursor in `after`: begin with GET /v1/snapshot, which says where the feed goes on",
            ));
        };
        let deadline = Instant::now() + Duration::from_secs(query.wait.unwrap_or(0).min(MAX_WAIT));
        let limit = query.limit.unwrap_or(MAX_EVENTS).clamp(1, MAX_EVENTS);
        let mut progress = self.progress.subscribe();
        let mut seq = after.seq;
        let mut passed_over = 0;
        let page = loop {
            progress.mark_unchanged();
            let page = self.clone().look(&actor, Cursor { seq, ..after }, limit).await?;
            if page.count > 0 || Instant::now() >= deadline || passed_over == MAX_PASSED_OVER {
                break page;
            }
            // What was passed over is for others; reading goes on behind it, for so long that one request does not keep
            // the disk to itself. The reader comes back with the cursor of an empty page.
            seq = page.cursor.seq;
            if !page.end {
                passed_over += 1;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => break page,
                () = shutdown.begun() => break page,
                _ = progress.changed() => {
                    let gathered = tokio::time::Instant::now() + gathering();
                    tokio::time::sleep_until(gathered.min(deadline)).await;
                }
            }
        };
        let permit = self.admission.page(&actor, page.events.len())?;
        if page.bundles > 0 {
            let what = format!("feed from {after} to {}: {} bundles", page.cursor, page.bundles);
            self.reads.note(actor, What::Many(what)).await?;
        }
        Ok((page.rendered(), permit))
    }

    async fn look(self: Arc<Self>, actor: &Actor, after: Cursor, limit: usize) -> Result<Page, Refusal> {
        let end = self.tail().end();
        if after.epoch != end.epoch {
            return Err(Refusal::new(
                ProblemKind::Gone,
                "the cursor is of another epoch: this store was restored; begin again with a snapshot",
            ));
        }
        let page = self.tail().page(&actor.role, after.seq, limit);
        if let Some(page) = page {
            return Ok(page);
        }
        let _permit = self.admission.heavy(&actor.caller).await?;
        let (feed, role) = (self.clone(), actor.role.clone());
        let page = tokio::task::spawn_blocking(move || feed.stored_page(&role, after, limit));
        page.await.map_err(Refusal::internal)?
    }

    /// A page for a reader that is not within the tail.
    fn stored_page(&self, role: &Role, after: Cursor, limit: usize) -> Result<Page, Refusal> {
        let storage = self.vault.storage();
        let Position { epoch, seq: head } = storage.head().map_err(refusal)?;
        // Nobody who was told the truth is ahead: whoever is would hear nothing any more.
        if after.epoch != epoch || after.seq > head {
            return Err(Refusal::new(
                ProblemKind::Gone,
                format!("the cursor is ahead of the feed, which is at {head}: begin again with a snapshot"),
            ));
        }
        let entries = storage.feed(after.seq, limit.max(LEAST_EVENTS)).map_err(refusal)?;
        let floor = storage.floor().map_err(refusal)?;
        if after.seq < floor {
            return Err(Refusal::new(
                ProblemKind::Gone,
                "the cursor is older than what the feed still has: begin again with a snapshot",
            ));
        }
        let full = entries.len() >= limit.max(LEAST_EVENTS);
        let mut page = Page::new(after);
        for part in entries.chunks(READ_TOGETHER) {
            for (seq, event, stored) in self.vault.with_records(part, |_| true)? {
                page.add(role, &Told::new(seq, event, stored)?);
                page.cursor.seq = seq;
                if page.is_full(limit) {
                    return Ok(page);
                }
            }
        }
        page.end = !full;
        Ok(page)
    }
}

impl Page {
    /// Nothing yet.
    fn new(after: Cursor) -> Self {
        Self { events: Vec::new(), count: 0, bundles: 0, cursor: after, end: false }
    }

    fn add(&mut self, role: &Role, told: &Told) {
        if !is_for(role, &told.pools) {
            return;
        }
        let hands_out = told.holders.as_ref().is_some_and(|pools| may_read(role, told.kind, pools));
        if self.count > 0 {
            self.events.push(b',');
        }
        self.events.extend_from_slice(if hands_out { &told.full } else { &told.bare });
        self.count += 1;
        self.bundles += usize::from(hands_out && told.kind == Kind::Bundle);
    }

    fn is_full(&self, limit: usize) -> bool {
        self.count >= limit || self.events.len() >= MAX_PAGE
    }

    /// The page as a [`certseal_wire::FeedPage`] in JSON.
    fn rendered(self) -> Bytes {
        let Self { mut events, cursor, end, .. } = self;
        let head = format!(r#"{{"cursor":"{cursor}","end":{end},"events":["#);
        events.splice(0..0, head.into_bytes());
        events.extend_from_slice(b"]}");
        events.into()
    }
}

/// How long news are gathered before waiting readers are answered: not the same for all.
fn gathering() -> Duration {
    // Without randomness all are answered together, which is no reason to fail.
    let spread = getrandom::u32().unwrap_or(0) % GATHERING_SPREAD_MS;
    Duration::from_millis(u64::from(LEAST_GATHERING_MS + spread))
}

/// An edge sees what concerns its pool; the others see all.
pub(crate) fn is_for(role: &Role, pools: &[PoolName]) -> bool {
    match role {
        Role::Edge(pool) => pools.is_empty() || pools.contains(pool),
        _ => true,
    }
}

/// Whether `role` may read a record of `kind` that is for `pools`.
pub(crate) fn may_read(role: &Role, kind: Kind, pools: &[PoolName]) -> bool {
    match (role, kind) {
        (Role::Edge(pool), Kind::Bundle | Kind::Route | Kind::Checkpoint) => pools.contains(pool),
        (Role::Edge(_) | Role::Issuer | Role::Admin, _) => true,
        (Role::Platform | Role::Service, _) => false,
    }
}

/// Between two looks for what other processes wrote.
const LOOK: Duration = Duration::from_millis(200);
/// News are gathered for 20 to 100 ms.
const LEAST_GATHERING_MS: u32 = 20;
const GATHERING_SPREAD_MS: u32 = 80;
/// The longest wait for news, in seconds: shorter than what proxies and clients usually allow.
const MAX_WAIT: u64 = 30;
/// The fewest events that one look into the store asks for.
const LEAST_EVENTS: usize = 100;
/// Events that are taken into the tail at one time.
const CAUGHT_UP_AT_ONCE: usize = 500;
/// Records that are read at one time: the largest ones take some megabytes together.
pub(crate) const READ_TOGETHER: usize = 50;
/// The most events in one page.
const MAX_EVENTS: usize = 1000;
/// Pages without anything for the caller that one request reads.
const MAX_PASSED_OVER: usize = 16;
/// Records up to this many octets travel inside their events.
pub(crate) const MAX_INLINE: usize = 16 * 1024;
/// A page ends once its events have this many octets.
pub(crate) const MAX_PAGE: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
