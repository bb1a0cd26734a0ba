//! The instants at which sites become due, in their order.

use std::{cmp::Reverse, collections::BinaryHeap};

use certseal_issuance::Lane;

/// An instant, a site and its lane.
pub(crate) type Entry = (i64, u32, Lane);

/// A priority queue with a page for each ten minutes, which is sorted when it is opened: a heap of a million entries has its
/// memory all over the place.
pub(crate) struct Agenda {
    /// The open page, the first last.
    page: Vec<Entry>,
    /// What came to the open page, or to one before it, after it was opened.
    late: BinaryHeap<Reverse<Entry>>,
    /// The later pages.
    pages: Vec<Vec<Entry>>,
    open: usize,
}

impl Agenda {
    /// An agenda that ends at `end`: what is due later is left out.
    pub(crate) fn new(end: i64) -> Self {
        Self { page: Vec::new(), late: BinaryHeap::new(), pages: vec![Vec::new(); page(end) + 1], open: 0 }
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        let page = page(entry.0);
        if page <= self.open {
            self.late.push(Reverse(entry));
        } else if let Some(page) = self.pages.get_mut(page) {
            page.push(entry);
        }
    }

    /// The first entry, wherever it is. Pages up to it are opened, so that it is asked for when nothing else is left to do.
    pub(crate) fn first(&mut self) -> Option<Entry> {
        self.first_up_to(self.pages.len() - 1)
    }

    fn first_up_to(&mut self, page: usize) -> Option<Entry> {
        while self.page.is_empty() && self.late.is_empty() && self.open < page {
            self.open += 1;
            self.page = std::mem::take(&mut self.pages[self.open]);
            self.page.sort_unstable_by(|a, b| b.cmp(a));
        }
        let late = self.late.peek().map(|Reverse(entry)| *entry);
        self.page.last().copied().into_iter().chain(late).min()
    }

    /// Takes the first one, if it is due.
    pub(crate) fn pop(&mut self, now: i64) -> Option<Entry> {
        let last = self.pages.len() - 1;
        let first = self.first_up_to(page(now).min(last)).filter(|(due, ..)| *due <= now)?;
        if self.page.last() == Some(&first) { self.page.pop() } else { self.late.pop().map(|Reverse(entry)| entry) }
    }
}

/// The page of an instant that is not before the start.
fn page(at: i64) -> usize {
    (at.max(0) / PAGE) as usize
}

/// Ten minutes.
const PAGE: i64 = 600_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    #[test]
    fn entries_come_in_their_order_whenever_they_were_made() {
        let (end, mut chance) = (100 * PAGE, Chance::new(1));
        let (mut agenda, mut other) = (Agenda::new(end), BinaryHeap::new());
        let mut now = 0;
        while now < end {
            for site in 0..3 {
                let entry = (now + (chance.part() * 5.0 * PAGE as f64) as i64, site, Lane::Renewal);
                agenda.push(entry);
                other.push(Reverse(entry));
            }
            now += (chance.part() * PAGE as f64) as i64;
            while let Some(entry) = agenda.pop(now) {
                assert_eq!(other.pop(), Some(Reverse(entry)));
            }
            assert!(other.peek().is_none_or(|Reverse((due, ..))| *due > now || *due >= end));
        }
        assert_eq!(agenda.pop(0), None);
    }
}
