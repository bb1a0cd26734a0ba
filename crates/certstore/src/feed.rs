//! The feed: what changed after a cursor, for those who may see it.

use std::{sync::Arc, time::Duration};

use certseal_service::{Shutdown, problem::Refusal};
use certseal_store::Entry;
use certseal_wire::{Base64, Caller, Cursor, Event, FeedPage, FeedQuery, Kind, ProblemKind, Role};

use crate::vault::{Vault, parse_event};

/// A page of the feed for `caller`. With no news it waits, as long as the query and this server allow.
pub(crate) async fn page(
    vault: Arc<Vault>,
    caller: &Caller,
    query: FeedQuery,
    shutdown: &Shutdown,
) -> Result<FeedPage, Refusal> {
    let mut news = vault.news();
    let deadline = tokio::time::sleep(Duration::from_secs(query.wait.unwrap_or(0).min(MAX_WAIT)));
    tokio::pin!(deadline);
    let limit = query.limit.unwrap_or(MAX_EVENTS).clamp(1, MAX_EVENTS);
    let mut after = query.after;
    loop {
        news.mark_unchanged();
        let (vault, role) = (vault.clone(), caller.role.clone());
        let page = tokio::task::spawn_blocking(move || read(&vault, &role, after, limit));
        let page = page.await.map_err(Refusal::internal)??;
        if !page.events.is_empty() || deadline.is_elapsed() {
            return Ok(page);
        }
        // What was passed over is for others; reading goes on behind it.
        after = Some(page.cursor);
        if !page.end {
            continue;
        }
        tokio::select! {
            () = &mut deadline => return Ok(page),
            () = shutdown.begun() => return Ok(page),
            _ = news.changed() => {}
        }
    }
}

fn read(vault: &Vault, role: &Role, after: Option<Cursor>, limit: usize) -> Result<FeedPage, Refusal> {
    let storage = vault.storage();
    let epoch = storage.head().map_err(Refusal::internal)?.epoch;
    let mut seq = match after {
        Some(cursor) if cursor.epoch != epoch => {
            return Err(Refusal::new(
                ProblemKind::Gone,
                "the cursor is of another epoch: this store was restored; read the feed again from its start",
            ));
        }
        Some(cursor) => cursor.seq,
        None => 0,
    };
    let entries = storage.feed(seq, limit).map_err(Refusal::internal)?;
    let full = entries.len() == limit;
    let mut events = Vec::new();
    let mut octets = 0;
    let mut cut = false;
    for entry in entries {
        let Entry { seq: at, event } = entry;
        let event = parse_event(&event)?;
        if is_for(role, &event) {
            let event = with_body(vault, role, event)?;
            octets += event.body.as_ref().map_or(0, |body| body.0.len());
            events.push(event);
        }
        seq = at;
        if octets >= MAX_PAGE {
            cut = true;
            break;
        }
    }
    Ok(FeedPage { cursor: Cursor { epoch, seq }, events, end: !full && !cut })
}

/// An edge sees what concerns its pool; the others see all.
fn is_for(role: &Role, event: &Event) -> bool {
    match role {
        Role::Edge(pool) => event.pools.is_empty() || event.pools.contains(pool),
        _ => true,
    }
}

/// The record goes along unless it has been replaced meanwhile (the newer one's event follows), is too large, or is a
/// bundle that left the caller's pool.
fn with_body(vault: &Vault, role: &Role, event: Event) -> Result<Event, Refusal> {
    let stored = vault.get(event.kind, &event.name)?;
    let body = stored
        .filter(|stored| stored.version == event.version && stored.bytes.len() <= MAX_INLINE)
        .filter(|stored| event.kind != Kind::Bundle || may_read(role, event.kind, &stored.pools))
        .map(|stored| Base64(stored.bytes));
    Ok(Event { body, ..event })
}

/// Whether `role` may read a record of `kind` that is for `pools`.
pub(crate) fn may_read(role: &Role, kind: Kind, pools: &[certseal_wire::PoolName]) -> bool {
    match (role, kind) {
        (Role::Edge(pool), Kind::Bundle | Kind::Route | Kind::Checkpoint) => pools.contains(pool),
        (Role::Edge(_) | Role::Issuer | Role::Admin, _) => true,
        (Role::Platform | Role::Service, _) => false,
    }
}

/// The longest wait for news, in seconds: shorter than what proxies and clients usually allow.
const MAX_WAIT: u64 = 30;
/// The most events in one page.
const MAX_EVENTS: usize = 1000;
/// Records up to this many octets travel inside their events.
const MAX_INLINE: usize = 16 * 1024;
/// A page ends once its records have this many octets.
const MAX_PAGE: usize = 4 * 1024 * 1024;
