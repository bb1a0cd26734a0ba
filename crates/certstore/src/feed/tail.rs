//! The newest events in memory, rendered once for all readers.

use std::collections::{BTreeMap, HashMap};

use certseal_store::Position;
use certseal_wire::{Cursor, Kind, Role};

use super::{page::Page, rendered::RenderedEvent};

/// All events after `start`, up to `end`: of each record the newest.
pub(super) struct Tail {
    start: u64,
    end: Position,
    events: BTreeMap<u64, RenderedEvent>,
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

    /// Adds the events that came after the end. The oldest events go when there are too many.
    pub(super) fn extend(&mut self, rendered: Vec<RenderedEvent>, end: Position) {
        for event in rendered {
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
        for (seq, event) in self.events.range(after + 1..) {
            page.add(role, event);
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

/// Octets of events that are kept in memory.
const MAX_OCTETS: usize = 64 * 1024 * 1024;
