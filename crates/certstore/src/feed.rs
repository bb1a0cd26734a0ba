//! The feed: the changes after a cursor, for readers that may see them.
//!
//! ```text
//! storage --catch_up--> tail (newest events in memory, rendered once) --> all readers that wait
//!    \--> a page read for one reader that is behind the tail, when admission allows
//! ```
//!
//! A reader begins with a snapshot, goes on at its cursor, and waits at the end. A reader that waits is answered a moment
//! after news came, not at once: events that come together travel together, and a fleet does not answer in one breath.

mod page;
mod rendered;
mod tail;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use certseal_service::{Shutdown, problem::Refusal};
use certseal_store::Position;
use certseal_wire::{Cursor, FeedQuery, Kind, ProblemKind, Role};
use tokio::{sync::watch, time::Instant};

use crate::{
    actor::Actor,
    admission::{Admission, PagePermit},
    audit::{ReadLog, ReadOf},
    events::{READ_TOGETHER, with_records},
    refusal::{malformed, storage_refusal},
    vault::Vault,
};
use page::Page;
use rendered::RenderedEvent;
use tail::Tail;

pub(crate) struct Feed {
    vault: Arc<Vault>,
    tail: RwLock<Tail>,
    /// The sequence up to which the tail has everything.
    progress: watch::Sender<u64>,
    admission: Arc<Admission>,
    reads: ReadLog,
}

impl Feed {
    pub(crate) fn new(vault: Arc<Vault>, admission: Arc<Admission>, reads: ReadLog) -> Result<Self, Refusal> {
        let head = vault.storage().head().map_err(storage_refusal)?;
        let tail = RwLock::new(Tail::new(head));
        Ok(Self { vault, tail, progress: watch::Sender::new(head.seq), admission, reads })
    }

    /// Keeps the tail up to date until the shutdown begins. Other processes may write to the same database, so it looks
    /// by itself too.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut news = self.vault.news().subscribe();
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
            let head = self.vault.storage().head().map_err(storage_refusal)?;
            if head == from {
                return Ok(());
            }
            let entries = self.vault.storage().feed(from.seq, CAUGHT_UP_AT_ONCE).map_err(storage_refusal)?;
            let reached = if entries.len() == CAUGHT_UP_AT_ONCE {
                entries.last().map_or(head.seq, |entry| entry.seq)
            } else {
                // Events that came since the head was read are here too.
                entries.last().map_or(head.seq, |entry| entry.seq.max(head.seq))
            };
            let mut rendered = Vec::with_capacity(entries.len());
            let mut is_new_ring = false;
            for part in entries.chunks(READ_TOGETHER) {
                for (seq, event, stored) in with_records(&self.vault, part, |_| true)? {
                    is_new_ring |= event.kind == Kind::Ring;
                    rendered.push(RenderedEvent::new(seq, event, stored)?);
                }
            }
            let reached = Position { epoch: head.epoch, seq: reached };
            self.tail.write().unwrap_or_else(PoisonError::into_inner).extend(rendered, reached);
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
            return Err(malformed(
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
            // The events passed over are for others; reading goes on behind them, for so long that one request does not keep
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
            self.reads.note(actor, ReadOf::Many(what)).await?;
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
        let Position { epoch, seq: head } = storage.head().map_err(storage_refusal)?;
        // No cursor of this feed is ahead of it: a reader with such a one would hear nothing any more.
        if after.epoch != epoch || after.seq > head {
            return Err(Refusal::new(
                ProblemKind::Gone,
                format!("the cursor is ahead of the feed, which is at {head}: begin again with a snapshot"),
            ));
        }
        let entries = storage.feed(after.seq, limit.max(LEAST_EVENTS)).map_err(storage_refusal)?;
        let floor = storage.floor().map_err(storage_refusal)?;
        if after.seq < floor {
            return Err(Refusal::new(
                ProblemKind::Gone,
                "the cursor is older than what the feed still has: begin again with a snapshot",
            ));
        }
        let full = entries.len() >= limit.max(LEAST_EVENTS);
        let mut page = Page::new(after);
        for part in entries.chunks(READ_TOGETHER) {
            for (seq, event, stored) in with_records(&self.vault, part, |_| true)? {
                page.add(role, &RenderedEvent::new(seq, event, stored)?);
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

/// How long news are gathered before waiting readers are answered: not the same for all.
fn gathering() -> Duration {
    // Without randomness all are answered together, which is no reason to fail.
    let spread = getrandom::u32().unwrap_or(0) % GATHERING_SPREAD_MS;
    Duration::from_millis(u64::from(LEAST_GATHERING_MS + spread))
}

/// Between two looks for the writes of other processes.
const LOOK: Duration = Duration::from_millis(200);
/// News are gathered for 20 to 100 ms.
const LEAST_GATHERING_MS: u32 = 20;
const GATHERING_SPREAD_MS: u32 = 80;
/// The longest wait for news, in seconds: shorter than proxies and clients usually allow.
const MAX_WAIT: u64 = 30;
/// The fewest events that one look into the store asks for.
const LEAST_EVENTS: usize = 100;
/// Events that are taken into the tail at one time.
const CAUGHT_UP_AT_ONCE: usize = 500;
/// The most events in one page.
const MAX_EVENTS: usize = 1000;
/// Pages without anything for the caller that one request reads.
const MAX_PASSED_OVER: usize = 16;

#[cfg(test)]
mod tests;
