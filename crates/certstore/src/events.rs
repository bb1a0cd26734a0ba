//! Events, with the records that they tell of.

use certseal_service::problem::Refusal;
use certseal_store::{Entry as FeedEntry, Record};
use certseal_wire::Event;

use crate::{
    records::{self, Stored},
    refusal::storage_refusal,
    vault::Vault,
};

/// Events with the records that they tell of: none for a record that is gone, damaged, or was replaced meanwhile; the newer
/// event follows then. Events that `is_wanted` does not take are left out.
pub(crate) fn with_records(
    vault: &Vault,
    entries: &[FeedEntry],
    is_wanted: impl Fn(&Event) -> bool,
) -> Result<Vec<(u64, Event, Option<Stored>)>, Refusal> {
    let mut events = Vec::with_capacity(entries.len());
    for entry in entries {
        let event = parse(&entry.event)?;
        if is_wanted(&event) {
            events.push((entry.seq, event));
        }
    }
    let keys: Vec<_> = events.iter().map(|(_, event)| records::table_and_key(event.kind, &event.name)).collect();
    let found = vault.storage().get_all(&keys).map_err(storage_refusal)?;
    let together = |((seq, event), record): ((u64, Event), Option<Record>)| {
        let stored = record.and_then(|record| {
            let stored = Stored::decode(&record);
            if stored.is_none() {
                tracing::error!(kind = %event.kind, name = event.name, "left out a record that is not one of ours");
            }
            stored
        });
        let stored = stored.filter(|stored| !event.deleted && stored.version == event.version);
        (seq, event, stored.filter(|stored| !stored.is_tombstone()))
    };
    Ok(events.into_iter().zip(found).map(together).collect())
}

/// Reads an event as it was stored.
pub(crate) fn parse(bytes: &[u8]) -> Result<Event, Refusal> {
    serde_json::from_slice(bytes).map_err(Refusal::internal)
}

/// Records that are read at one time: the largest ones take some megabytes together.
pub(crate) const READ_TOGETHER: usize = 50;
/// Records up to this many octets travel inside their events.
pub(crate) const MAX_INLINE: usize = 16 * 1024;
/// A page of events ends once it has this many octets.
pub(crate) const MAX_PAGE: usize = 1024 * 1024;
