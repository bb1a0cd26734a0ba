//! Whether certstore's audit log still has what certman saw of it.

use certseal_wire::{AuditMark, AuditPage};

use crate::journal::AuditSeen;

/// Whether the log still has what was seen of it, as far as its entries did not move into files.
pub(crate) fn still_has(page: &AuditPage, seen: &AuditSeen) -> Result<(), String> {
    let AuditMark { number, hash } = seen.head;
    if page.feed.epoch != seen.epoch {
        tracing::warn!(
            entries = number.saturating_sub(page.head.number),
            "certstore's audit log is another one since it came back from a backup"
        );
        return Ok(());
    }
    if page.head.number < number {
        return Err(format!("it ends at entry {}, and had entry {number}: its end was cut off", page.head.number));
    }
    let there = match page.entries.first() {
        _ if page.start.number >= number => (page.start.number == number).then_some(page.start.hash),
        Some(line) if line.mark.number == number => Some(line.mark.hash),
        _ => return Err(format!("entry {number} is missing")),
    };
    // A page may be at odds with itself: the entry from before, under an end that is another one.
    let end = (page.head.number == number).then_some(page.head.hash);
    match there.into_iter().chain(end).find(|there| *there != hash) {
        Some(there) => Err(format!("entry {number} had hash {hash}, and has {there}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use certseal_wire::{AuditLine, Cursor, Digest};

    use super::*;

    fn mark(number: u64, hash: u8) -> AuditMark {
        AuditMark { number, hash: Digest([hash; 32]) }
    }

    /// A log that begins after `start`, has `entry` where it was asked for, and ends at `head`.
    fn page(start: AuditMark, entry: Option<AuditMark>, head: AuditMark) -> AuditPage {
        let entries = entry.into_iter().map(|mark| AuditLine { mark, entry: String::new() }).collect();
        AuditPage { start, head, feed: Cursor { epoch: [1; 16], seq: 9 }, entries }
    }

    #[test]
    fn a_log_that_grew_is_good_and_one_that_was_cut_off_or_changed_is_not() {
        let seen = AuditSeen { epoch: [1; 16], head: mark(5, 5) };
        let (new, head) = (mark(0, 0), mark(8, 8));
        still_has(&page(new, Some(mark(5, 5)), head), &seen).unwrap();
        let said = |page| still_has(&page, &seen).unwrap_err();
        assert!(said(page(new, None, mark(4, 4))).contains("cut off"));
        assert!(said(page(new, Some(mark(5, 6)), head)).contains("had hash"));
        assert!(said(page(new, Some(mark(5, 5)), mark(5, 6))).contains("had hash"), "another end of the same length");
        assert!(said(page(mark(7, 7), None, mark(5, 6))).contains("had hash"), "an end from before its beginning");
        assert!(said(page(new, None, head)).contains("missing"));
        assert!(said(page(new, Some(mark(6, 6)), head)).contains("missing"));
    }

    #[test]
    fn entries_that_moved_into_files_are_not_missed() {
        let seen = AuditSeen { epoch: [1; 16], head: mark(5, 5) };
        still_has(&page(mark(7, 7), Some(mark(8, 8)), mark(8, 8)), &seen).unwrap();
        still_has(&page(mark(5, 5), Some(mark(6, 6)), mark(8, 8)), &seen).unwrap();
        let other = still_has(&page(mark(5, 6), Some(mark(6, 6)), mark(8, 8)), &seen);
        assert!(other.is_err(), "the files end in another log");
    }

    #[test]
    fn a_store_that_was_restored_begins_anew() {
        let seen = AuditSeen { epoch: [2; 16], head: mark(5, 5) };
        still_has(&page(mark(0, 0), None, mark(2, 2)), &seen).unwrap();
    }
}
