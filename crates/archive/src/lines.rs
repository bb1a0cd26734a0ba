//! Lines of a file that may be larger than memory, and that may be damaged.

use std::io::{self, BufRead, Read};

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The file cannot be read on.
    #[error("cannot read line {number}")]
    Unreadable {
        /// The line; the first is 1.
        number: u64,
        /// The system's error.
        source: io::Error,
    },
    /// The line has no end within the limit.
    #[error("line {0}: expected at most {MAX_LINE} octets in a line, got more")]
    TooLong(u64),
    /// The file ends within the line.
    #[error("line {0}: expected a line feed at its end, but the file ends: something is cut off")]
    CutOff(u64),
}

/// Reads line after line, none longer than [`MAX_LINE`].
pub(crate) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), number: 0 }
    }

    /// The number of the line that was read last; the first is 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next line with its line feed; none at the end.
    ///
    /// # Errors
    /// When it has no line feed, since the file ends before it, or is too long; and when the file cannot be read.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.buffer.clear();
        let number = self.number + 1;
        let mut rest = self.input.by_ref().take(MAX_LINE);
        rest.read_until(b'\n', &mut self.buffer).map_err(|source| LineError::Unreadable { number, source })?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        self.number = number;
        if self.buffer.ends_with(b"\n") {
            return Ok(Some(self.buffer.as_slice()));
        }
        if self.buffer.len() as u64 == MAX_LINE {
            return Err(LineError::TooLong(number));
        }
        Err(LineError::CutOff(number))
    }
}

/// The longest line in octets. certstore takes 4 MiB in one transaction, which is 5.6 MB as base64.
const MAX_LINE: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_a_last_one_without_its_end_is_refused() {
        let mut lines = Lines::new(b"a\nb\nc".as_slice());
        assert_eq!(lines.next_line().unwrap(), Some(b"a\n".as_slice()));
        assert_eq!(lines.next_line().unwrap(), Some(b"b\n".as_slice()));
        assert_eq!(lines.number(), 2);
        let error = lines.next_line().unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("cut off"), "{error}");
        assert_eq!(Lines::new(b"".as_slice()).next_line().unwrap(), None);
    }

    #[test]
    fn a_line_without_an_end_does_not_fill_the_memory() {
        let mut endless = Lines::new(std::io::BufReader::new(std::io::repeat(b'x')));
        let error = endless.next_line().unwrap_err().to_string();
        assert!(error.contains("line 1: expected at most"), "{error}");
    }
}
