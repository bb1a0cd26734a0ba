//! Frames: the length of what follows in four octets, big-endian, then so many octets.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

/// The longest body of a frame, in octets.
pub const MAX_FRAME: usize = 64 * 1024;

/// Reads frames, one at a time. Between two of them the other side has nothing to send.
#[derive(Default)]
pub(crate) struct FrameReader {
    buffer: Vec<u8>,
    filled: usize,
    begun: Option<Instant>,
}

impl FrameReader {
    /// Reads to the end of the next frame; none when the other side has closed before it.
    ///
    /// # Errors
    /// After `WouldBlock`, which a socket's time-out makes, it can go on. `InvalidData` is a frame that is too long, or
    /// something after it.
    pub(crate) fn read(&mut self, from: &mut impl Read) -> io::Result<Option<&[u8]>> {
        if self.buffer.is_empty() {
            self.buffer.resize(FIRST_READ, 0);
        }
        loop {
            if let Some(length) = self.buffer[..self.filled].first_chunk() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > MAX_FRAME || self.filled > HEAD + length {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if self.filled == HEAD + length {
                    (self.filled, self.begun) = (0, None);
                    return Ok(Some(&self.buffer[HEAD..HEAD + length]));
                }
                self.buffer.resize(self.buffer.len().max(HEAD + length), 0);
            }
            match from.read(&mut self.buffer[self.filled..]) {
                Ok(0) if self.filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.filled += count;
                    self.begun.get_or_insert_with(Instant::now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// How long ago the frame began that has not ended yet.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.begun.map(|begun| begun.elapsed())
    }
}

const HEAD: usize = 4;

/// Enough for a request with an envelope for a few pools.
const FIRST_READ: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out one octet at a time, and would block before each.
    struct Drip<'a>(&'a [u8], bool);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let mut one = &self.0[..self.0.len().min(1)];
            self.0 = &self.0[one.len()..];
            one.read(buffer)
        }
    }

    #[test]
    fn a_frame_that_comes_in_pieces_is_put_together() {
        let mut reader = FrameReader::default();
        let mut drip = Drip(b"\0\0\0\x03abc\0\0\0\0", false);
        let mut frames = Vec::new();
        loop {
            match reader.read(&mut drip) {
                Ok(Some(body)) => frames.push(body.to_vec()),
                Ok(None) => break,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!(frames, [b"abc".to_vec(), Vec::new()]);
    }

    #[test]
    fn what_is_too_long_cut_off_or_surplus_is_an_error() {
        let read = |octets: &[u8]| FrameReader::default().read(&mut &*octets).map(|_| ()).map_err(|e| e.kind());
        assert_eq!(read(b"\0\x01\0\x01"), Err(io::ErrorKind::InvalidData));
        assert_eq!(read(b"\xff\xff\xff\xff"), Err(io::ErrorKind::InvalidData));
        assert_eq!(read(b"\0\0\0\x01ab"), Err(io::ErrorKind::InvalidData));
        assert_eq!(read(b"\0\0\0\x02a"), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(read(b"\0\0"), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(read(b""), Ok(()));
        let longest = [&(MAX_FRAME as u32).to_be_bytes()[..], &vec![7; MAX_FRAME]].concat();
        assert_eq!(read(&longest), Ok(()));
    }
}
