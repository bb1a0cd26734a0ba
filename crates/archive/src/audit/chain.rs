//! The hash chain of the audit log, followed entry by entry. Pure: the holder of the entries pushes them.

use certseal_seal::audit_link;
use certseal_wire::{AuditLine, AuditMark, Digest};

/// Follows the chain, and notices what was changed, removed or put elsewhere.
///
/// Each hash covers the one before it. So an attacker who can write all of the chain can exchange it as a whole: that
/// shows by a mark which was kept elsewhere, and which the chain is told to [`expect`](Self::expect).
///
/// ```
/// use certseal_archive::audit::{Chain, NEW_LOG};
///
/// let chain = Chain::after(NEW_LOG);
/// assert_eq!(chain.finish()?, NEW_LOG);
/// # Ok::<(), certseal_archive::audit::ChainError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Chain {
    start: AuditMark,
    mark: AuditMark,
    expected: Vec<Expected>,
}

/// A mark that has to be met.
#[derive(Debug, Clone)]
struct Expected {
    what: String,
    mark: AuditMark,
}

/// Why entries are not the log that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// An entry does not have its hash.
    #[error(
        "entry {number} does not fit the chain: expected hash {expected}, found {found}: it was altered, or what is \
         before it"
    )]
    Altered {
        /// The entry.
        number: u64,
        /// The hash that follows from the entry and the hash before it.
        expected: Digest,
        /// The hash in the log.
        found: Digest,
    },
    /// Entries are missing, or not in their order.
    #[error("expected entry {expected}, found entry {found}: entries were removed, or put elsewhere")]
    OutOfOrder {
        /// The number that follows.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The chain passes a mark by.
    #[error(
        "{what} has entry {number} with hash {expected}, the log has hash {found} there: one of them is of another log"
    )]
    NotOnChain {
        /// The source of the mark.
        what: String,
        /// The entry.
        number: u64,
        /// The hash that was expected.
        expected: Digest,
        /// The chain's.
        found: Digest,
    },
    /// The chain ends before a mark.
    #[error(
        "{what} has entry {number}, the log ends with entry {end}: its end was cut off, unless the store came back from \
         a backup since"
    )]
    CutOff {
        /// The source of the mark.
        what: String,
        /// The entry that was expected.
        number: u64,
        /// The last one.
        end: u64,
    },
    /// The chain begins after a mark.
    #[error(
        "{what} has entry {number}, which cannot be checked with the entries after {start} only: give the files with the \
         earlier ones"
    )]
    TooEarly {
        /// The source of the mark.
        what: String,
        /// The entry that was expected.
        number: u64,
        /// Where the chain is.
        start: u64,
    },
}

impl Chain {
    /// A chain that begins after the entry of `start`, whose hash is believed.
    pub fn after(start: AuditMark) -> Self {
        Self { start, mark: start, expected: Vec::new() }
    }

    /// Where it began.
    pub fn start(&self) -> AuditMark {
        self.start
    }

    /// Where it is: the mark of the newest entry.
    pub fn mark(&self) -> AuditMark {
        self.mark
    }

    /// How many entries were pushed.
    pub fn entries(&self) -> u64 {
        self.mark.number - self.start.number
    }

    /// Has the chain meet `mark`, which `what` says is on it. To be said before that entry comes.
    ///
    /// # Errors
    /// [`ChainError::NotOnChain`] when the chain is there and has another hash, [`ChainError::TooEarly`] when it is past it.
    pub fn expect(&mut self, what: impl Into<String>, mark: AuditMark) -> Result<(), ChainError> {
        let expected = Expected { what: what.into(), mark };
        if mark.number < self.mark.number {
            return Err(ChainError::TooEarly { what: expected.what, number: mark.number, start: self.mark.number });
        }
        if mark.number == self.mark.number {
            return expected.compare(self.mark);
        }
        self.expected.push(expected);
        Ok(())
    }

    /// Goes on to the next entry. After an error the chain is where it was.
    ///
    /// # Errors
    /// [`ChainError::OutOfOrder`], [`ChainError::Altered`], and [`ChainError::NotOnChain`] for a mark that is expected.
    pub fn push(&mut self, line: &AuditLine) -> Result<(), ChainError> {
        let AuditMark { number, hash: found } = line.mark;
        let expected = self.mark.number.saturating_add(1);
        if number != expected {
            return Err(ChainError::OutOfOrder { expected, found: number });
        }
        let hash = audit_link(&self.mark.hash, number, line.entry.as_bytes());
        if hash != found {
            return Err(ChainError::Altered { number, expected: hash, found });
        }
        self.expected
            .iter()
            .filter(|expected| expected.mark.number == number)
            .try_for_each(|expected| expected.compare(line.mark))?;
        self.mark = line.mark;
        Ok(())
    }

    /// The mark of the newest entry, once there are no more.
    ///
    /// # Errors
    /// [`ChainError::CutOff`] when a mark that is expected has not come.
    pub fn finish(&self) -> Result<AuditMark, ChainError> {
        let end = self.mark.number;
        match self.expected.iter().find(|expected| expected.mark.number > end) {
            Some(Expected { what, mark }) => Err(ChainError::CutOff { what: what.clone(), number: mark.number, end }),
            None => Ok(self.mark),
        }
    }
}

impl Expected {
    fn compare(&self, found: AuditMark) -> Result<(), ChainError> {
        if self.mark.hash == found.hash {
            return Ok(());
        }
        let (number, expected) = (self.mark.number, self.mark.hash);
        Err(ChainError::NotOnChain { what: self.what.clone(), number, expected, found: found.hash })
    }
}

/// Before the first entry of a new log.
pub const NEW_LOG: AuditMark = AuditMark { number: 0, hash: Digest([0; 32]) };

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sound log of these entries, after `start`.
    pub(crate) fn log(start: AuditMark, entries: &[&str]) -> Vec<AuditLine> {
        let mut mark = start;
        let line = |entry: &&str| {
            let number = mark.number + 1;
            mark = AuditMark { number, hash: audit_link(&mark.hash, number, entry.as_bytes()) };
            AuditLine { mark, entry: (*entry).to_owned() }
        };
        entries.iter().map(line).collect()
    }

    fn follow(lines: &[AuditLine], expected: &[AuditMark]) -> Result<AuditMark, ChainError> {
        let mut chain = Chain::after(NEW_LOG);
        expected.iter().try_for_each(|mark| chain.expect("the checkpoint", *mark))?;
        lines.iter().try_for_each(|line| chain.push(line))?;
        chain.finish()
    }

    /// The same value as in the store's own test, made with Python:
    /// hashlib.sha256(b"certseal audit v1" + bytes(32) + (1).to_bytes(8, "big") + b"a").
    #[test]
    fn a_link_is_the_digest_that_the_format_says() {
        let first = &log(NEW_LOG, &["a"])[0];
        assert_eq!(first.mark.hash.to_string(), "60463f04ca3911525b598125efe80c0072c605747eaa91e5a0588dd44cd0416f");
    }

    #[test]
    fn a_sound_log_is_followed_to_its_end_from_wherever_it_begins() {
        let lines = log(NEW_LOG, &["a", "b", "c"]);
        assert_eq!(follow(&lines, &[lines[1].mark, lines[2].mark]), Ok(lines[2].mark));
        let mut later = Chain::after(lines[0].mark);
        lines[1..].iter().try_for_each(|line| later.push(line)).unwrap();
        assert_eq!((later.start(), later.finish(), later.entries()), (lines[0].mark, Ok(lines[2].mark), 2));
    }

    #[test]
    fn an_altered_entry_is_named_with_both_hashes() {
        let mut lines = log(NEW_LOG, &["a", "b", "c"]);
        let found = lines[1].mark.hash;
        lines[1].entry = "B".to_owned();
        let expected = audit_link(&lines[0].mark.hash, 2, b"B");
        assert_eq!(follow(&lines, &[]), Err(ChainError::Altered { number: 2, expected, found }));
    }

    #[test]
    fn an_altered_entry_with_a_hash_that_fits_it_breaks_the_next_link() {
        let mut lines = log(NEW_LOG, &["a", "b", "c"]);
        lines[1] = log(lines[0].mark, &["B"]).remove(0);
        assert!(matches!(follow(&lines, &[]), Err(ChainError::Altered { number: 3, .. })));
    }

    #[test]
    fn a_log_that_was_written_anew_as_a_whole_shows_against_a_mark_that_was_kept() {
        let (kept, anew) = (log(NEW_LOG, &["a", "b"]), log(NEW_LOG, &["a", "B", "c"]));
        assert_eq!(follow(&anew, &[]), Ok(anew[2].mark), "the control: without the mark it does not show");
        let error = follow(&anew, &[kept[1].mark]).unwrap_err();
        assert!(matches!(&error, ChainError::NotOnChain { number: 2, .. }), "{error}");
    }

    #[test]
    fn a_removed_entry_leaves_a_gap() {
        let mut lines = log(NEW_LOG, &["a", "b", "c"]);
        lines.remove(1);
        assert_eq!(follow(&lines, &[]), Err(ChainError::OutOfOrder { expected: 2, found: 3 }));
        // With its number closed up, the hashes do not fit.
        lines[1].mark.number = 2;
        assert!(matches!(follow(&lines, &[]), Err(ChainError::Altered { number: 2, .. })));
    }

    #[test]
    fn swapped_entries_are_found_with_and_without_their_numbers() {
        let mut lines = log(NEW_LOG, &["a", "b", "c"]);
        lines.swap(1, 2);
        assert_eq!(follow(&lines, &[]), Err(ChainError::OutOfOrder { expected: 2, found: 3 }));
        let mut lines = log(NEW_LOG, &["a", "b", "c"]);
        (lines[1].entry, lines[2].entry) = ("c".to_owned(), "b".to_owned());
        assert!(matches!(follow(&lines, &[]), Err(ChainError::Altered { number: 2, .. })));
    }

    #[test]
    fn an_end_that_was_cut_off_shows_against_a_checkpoint_only() {
        let lines = log(NEW_LOG, &["a", "b", "c"]);
        assert_eq!(follow(&lines[..2], &[]), Ok(lines[1].mark), "the control: without a checkpoint it does not show");
        let error = ChainError::CutOff { what: "the checkpoint".to_owned(), number: 3, end: 2 };
        assert_eq!(follow(&lines[..2], &[lines[2].mark]), Err(error));
    }

    #[test]
    fn a_mark_that_is_wrong_or_too_early_is_told_apart() {
        let lines = log(NEW_LOG, &["a", "b"]);
        let wrong = AuditMark { hash: Digest([7; 32]), ..lines[0].mark };
        assert!(matches!(follow(&lines, &[wrong]), Err(ChainError::NotOnChain { number: 1, .. })));
        let mut chain = Chain::after(lines[1].mark);
        assert!(matches!(chain.expect("--expect", lines[0].mark), Err(ChainError::TooEarly { start: 2, .. })));
        assert_eq!(chain.expect("--expect", lines[1].mark), Ok(()));
        let wrong = AuditMark { hash: Digest([7; 32]), ..lines[1].mark };
        assert!(matches!(chain.expect("--expect", wrong), Err(ChainError::NotOnChain { .. })));
    }

    #[test]
    fn the_last_number_is_not_passed() {
        let end = AuditMark { number: u64::MAX, hash: Digest([0; 32]) };
        let line = AuditLine { mark: end, entry: "a".to_owned() };
        assert!(Chain::after(end).push(&line).is_err());
    }
}
