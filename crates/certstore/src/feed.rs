//! The feed: what changed after a cursor, for those who may see it.

use std::{sync::Arc, time::Duration};

use certseal_service::{Shutdown, problem::Refusal};
use certseal_store::{Entry, Position};
use certseal_wire::{Base64, Caller, Cursor, Event, FeedPage, FeedQuery, Kind, ProblemKind, Role};

use tokio::time::Instant;

use crate::vault::{Vault, parse_event};

/// A page of the feed for `caller`. With no news it waits, as long as the query and this server allow.
pub(crate) async fn page(
    vault: Arc<Vault>,
    caller: &Caller,
    query: FeedQuery,
    shutdown: &Shutdown,
) -> Result<FeedPage, Refusal> {
    let mut news = vault.news();
    let deadline = Instant::now() + Duration::from_secs(query.wait.unwrap_or(0).min(MAX_WAIT));
    let limit = query.limit.unwrap_or(MAX_EVENTS).clamp(LEAST_EVENTS, MAX_EVENTS);
    let mut after = query.after;
    let mut passed_over = 0;
    loop {
        news.mark_unchanged();
        let (vault, role) = (vault.clone(), caller.role.clone());
        let page = tokio::task::spawn_blocking(move || read(&vault, &role, after, limit));
        let page = page.await.map_err(Refusal::internal)??;
        if !page.events.is_empty() || Instant::now() >= deadline {
            return Ok(page);
        }
        // What was passed over is for others; reading goes on behind it, for so long that one request does not keep
        // the disk to itself. The reader comes back with the cursor of an empty page.
        after = Some(page.cursor);
        if !page.end {
            passed_over += 1;
            if passed_over == MAX_PASSED_OVER {
                return Ok(page);
            }
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return Ok(page),
            () = shutdown.begun() => return Ok(page),
            _ = news.changed() => {}
        }
    }
}

fn read(vault: &Vault, role: &Role, after: Option<Cursor>, limit: usize) -> Result<FeedPage, Refusal> {
    let storage = vault.storage();
    let Position { epoch, seq: head } = storage.head().map_err(Refusal::internal)?;
    let mut seq = match after {
        Some(cursor) if cursor.epoch != epoch => {
            return Err(Refusal::new(
                ProblemKind::Gone,
                "the cursor is of another epoch: this store was restored; read the feed again from its start",
            ));
        }
        // Nobody who was told the truth is ahead: whoever is would hear nothing any more.
        Some(cursor) if cursor.seq > head => {
            return Err(Refusal::new(
                ProblemKind::Gone,
                format!("the cursor is ahead of the feed, which is at {head}: read the feed again from its start"),
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
/// The fewest events that one look into the store asks for.
const LEAST_EVENTS: usize = 100;
/// The most events in one page.
const MAX_EVENTS: usize = 1000;
/// Pages without anything for the caller that one request reads.
const MAX_PASSED_OVER: usize = 16;
/// Records up to this many octets travel inside their events.
const MAX_INLINE: usize = 16 * 1024;
/// A page ends once its records have this many octets.
const MAX_PAGE: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::tests::vault;

    #[test]
    fn a_cursor_that_this_feed_never_gave_out_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path());
        let Position { epoch, seq } = vault.storage().head().unwrap();
        let page = |cursor| read(&vault, &Role::Admin, Some(cursor), LEAST_EVENTS).map(|page| page.end);
        assert!(page(Cursor { epoch, seq }).unwrap());
        for cursor in [Cursor { epoch, seq: seq + 1 }, Cursor { epoch, seq: u64::MAX }, Cursor { epoch: [7; 16], seq }]
        {
            assert_eq!(page(cursor).unwrap_err().0.kind, ProblemKind::Gone);
        }
    }
}
