//! The changes while the tables were copied, by the feed.

use std::{collections::HashSet, time::Duration};

use certseal_client::StoreClient;
use certseal_wire::{Cursor, Event, FeedPage, FeedQuery, Kind};
use tokio::time::sleep;

use super::{copy_error::CopyError, format::MAX_AGAIN};

/// The records that the feed tells of after `from`, up to `to` at least; each once, whatever happened to it.
///
/// Changes after `to` need not be in the backup, so that this ends however much is written.
///
/// # Errors
/// When the store came back from a backup meanwhile, too much has changed, or certstore cannot be reached.
pub(super) async fn changes(
    store: &StoreClient,
    from: Cursor,
    to: Cursor,
) -> Result<HashSet<(Kind, String)>, CopyError> {
    if from.epoch != to.epoch {
        return Err(CopyError::OtherFeed);
    }
    let mut changed = HashSet::new();
    let (mut cursor, mut rests) = (from, 0);
    while cursor.seq < to.seq && rests < RESTS {
        let query = FeedQuery { after: Some(cursor), limit: Some(EVENTS), wait: Some(0) };
        let FeedPage { cursor: next, events, end } =
            store.feed(&query).await.map_err(|error| CopyError::Feed(Box::new(error)))?;
        let goes_on = next.epoch == cursor.epoch && next.seq >= cursor.seq && (end || next.seq > cursor.seq);
        if !goes_on {
            return Err(CopyError::FeedStands { after: cursor, answer: next });
        }
        cursor = next;
        events.into_iter().for_each(|event| remember(&mut changed, event));
        if changed.len() as u64 > MAX_AGAIN {
            return Err(CopyError::TooManyChanges(MAX_AGAIN));
        }
        if end && cursor.seq < to.seq {
            // certstore's feed in memory is a moment behind; and the last sequence numbers may be of changes that are
            // not in the feed.
            rests += 1;
            sleep(REST).await;
        }
    }
    Ok(changed)
}

fn remember(changed: &mut HashSet<(Kind, String)>, event: Event) {
    let Event { kind, name, .. } = event;
    // With its route, a site comes or leaves: that changes when its bundle is deleted, which the feed does not tell.
    if kind == Kind::Route {
        changed.insert((Kind::Bundle, name.clone()));
    }
    changed.insert((kind, name));
}

/// The key under which certstore keeps what events of `kind` call `name`, in lower-case hex.
pub(super) fn key(kind: Kind, name: &str) -> String {
    let key = match kind {
        Kind::Bundle | Kind::Route | Kind::Checkpoint | Kind::Staple => name,
        Kind::Ring | Kind::Accounts => "only",
        Kind::Unknown(_) => name,
    };
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Events in one page.
const EVENTS: usize = 500;

/// How often the feed's end is looked at again before it counts.
const RESTS: u32 = 3;

/// Longer than certstore takes to see what another process wrote.
const REST: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use certseal_wire::Digest;

    use super::*;

    #[test]
    fn keys_are_those_of_the_store() {
        assert_eq!(key(Kind::Route, "a.example"), "612e6578616d706c65");
        assert_eq!(key(Kind::Ring, ""), "6f6e6c79");
    }

    #[test]
    fn with_a_route_its_bundle_is_copied_again_too() {
        let mut changed = HashSet::new();
        let (name, digest) = ("a.example".to_owned(), Digest([0; 32]));
        let event = Event { kind: Kind::Route, name, version: 1, digest, pools: vec![], body: None, deleted: false };
        remember(&mut changed, event.clone());
        remember(&mut changed, event);
        let both = [Kind::Route, Kind::Bundle].map(|kind| (kind, "a.example".to_owned()));
        assert_eq!(changed, HashSet::from(both));
    }
}
