//! An event as readers get it, rendered once for all of them.

use bytes::Bytes;
use certseal_service::problem::Refusal;
use certseal_wire::{Base64, Event, Kind, PoolName};

use crate::{events::MAX_INLINE, records::Stored};

/// An event in the forms in which readers get it.
#[derive(Clone)]
pub(super) struct RenderedEvent {
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) name: String,
    /// The pools that hear of it; empty for all.
    pub(super) pools: Vec<PoolName>,
    /// The pools that get the record with it; none without a record in it.
    pub(super) holders: Option<Vec<PoolName>>,
    /// The event with its record, as JSON.
    pub(super) full: Bytes,
    /// The event alone.
    pub(super) bare: Bytes,
}

impl RenderedEvent {
    /// A record that is too large for the event is fetched by name.
    pub(super) fn new(seq: u64, event: Event, stored: Option<Stored>) -> Result<Self, Refusal> {
        let render = |event: &Event| serde_json::to_vec(event).map(Bytes::from).map_err(Refusal::internal);
        let bare = render(&event)?;
        let (full, holders) = match stored.filter(|stored| stored.bytes.len() <= MAX_INLINE) {
            None => (bare.clone(), None),
            Some(stored) => {
                let full = render(&Event { body: Some(Base64(stored.bytes)), ..event.clone() })?;
                (full, Some(stored.pools))
            }
        };
        let Event { kind, name, pools, .. } = event;
        Ok(Self { seq, kind, name, pools, holders, full, bare })
    }

    /// Octets in memory, about.
    pub(super) fn size(&self) -> usize {
        self.full.len() + self.bare.len() + 2 * self.name.len() + 256
    }
}
