//! A page of the feed in the making.

use bytes::Bytes;
use certseal_wire::{Cursor, Kind, Role};

use super::rendered::RenderedEvent;
use crate::{
    events::MAX_PAGE,
    visibility::{is_for, may_read},
};

/// A rendered page.
pub(super) struct Page {
    /// Events as JSON, without the brackets around them.
    pub(super) events: Vec<u8>,
    pub(super) count: usize,
    /// How many bundles are in it.
    pub(super) bundles: usize,
    pub(super) cursor: Cursor,
    pub(super) end: bool,
}

impl Page {
    /// Nothing yet.
    pub(super) fn new(after: Cursor) -> Self {
        Self { events: Vec::new(), count: 0, bundles: 0, cursor: after, end: false }
    }

    pub(super) fn add(&mut self, role: &Role, event: &RenderedEvent) {
        if !is_for(role, &event.pools) {
            return;
        }
        let hands_out = event.holders.as_ref().is_some_and(|pools| may_read(role, event.kind, pools));
        if self.count > 0 {
            self.events.push(b',');
        }
        self.events.extend_from_slice(if hands_out { &event.full } else { &event.bare });
        self.count += 1;
        self.bundles += usize::from(hands_out && event.kind == Kind::Bundle);
    }

    pub(super) fn is_full(&self, limit: usize) -> bool {
        self.count >= limit || self.events.len() >= MAX_PAGE
    }

    /// The page as a [`certseal_wire::FeedPage`] in JSON.
    pub(super) fn rendered(self) -> Bytes {
        let Self { mut events, cursor, end, .. } = self;
        let head = format!(r#"{{"cursor":"{cursor}","end":{end},"events":["#);
        events.splice(0..0, head.into_bytes());
        events.extend_from_slice(b"]}");
        events.into()
    }
}
