//! The newest events in memory, rendered once for all readers.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use certseal_service::problem::Refusal;
use certseal_store::Position;
use certseal_wire::{Base64, Cursor, Event, Kind, PoolName, Role};

use super::{MAX_INLINE, Page};
use crate::records::Stored;

/// An event as it is told.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Who hears of it; empty for all.
    pub(super) pools: Vec<PoolName>,
    /// Who gets the record with it; none without a record in it.
    pub(super) holders: Option<Vec<PoolName>>,
    /// The event with its record, as JSON.
    pub(super) full: Bytes,
    /// The event alone.
    pub(super) bare: Bytes,
}

/// All events after `start`, up to `end`: of each record the newest.
pub(super) struct Tail {
    start: u64,
    end: Position,
    events: BTreeMap<u64, Told>,
    newest: HashMap<(Kind, String), u64>,
    octets: usize,
}

impl Tail {
    pub(super) fn new(end: Position) -> Self {
        Self { start: end.seq, end, events: BTreeMap::new(), newest: HashMap::new(), octets: 0 }
    }

    pub(super) fn end(&self) -> Position {
        self.end
    }

    /// Adds what came after the end. The oldest events go when there are too many.
    pub(super) fn extend(&mut self, told: Vec<Told>, end: Position) {
        for event in told {
            let key = (event.kind, event.name.clone());
            if let Some(earlier) = self.newest.insert(key, event.seq) {
                self.remove(earlier);
            }
            self.octets += event.size();
            self.events.insert(event.seq, event);
        }
        self.end = end;
        while self.octets > MAX_OCTETS
            && let Some((seq, event)) = self.events.pop_first()
        {
            self.octets -= event.size();
            self.newest.remove(&(event.kind, event.name));
            self.start = seq;
        }
    }

    fn remove(&mut self, seq: u64) {
        if let Some(event) = self.events.remove(&seq) {
            self.octets -= event.size();
        }
    }

    /// A page for `role`; none when `after` is not within the tail.
    pub(super) fn page(&self, role: &Role, after: u64, limit: usize) -> Option<Page> {
        if after < self.start || after > self.end.seq {
            return None;
        }
        let mut page = Page::new(Cursor { epoch: self.end.epoch, seq: after });
        for (seq, told) in self.events.range(after + 1..) {
            page.add(role, told);
            page.cursor.seq = *seq;
            if page.is_full(limit) {
                return Some(page);
            }
        }
        page.cursor.seq = self.end.seq;
        page.end = true;
        Some(page)
    }
}

impl Told {
    /// Rendered once for all who hear of it. What is larger than fits inside is fetched by name.
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
    fn size(&self) -> usize {
        self.full.len() + self.bare.len() + 2 * self.name.len() + 256
    }
}

/// Octets of events that are kept in memory.
const MAX_OCTETS: usize = 64 * 1024 * 1024;
