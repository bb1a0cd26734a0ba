//! The high-water file: the last acknowledged position, kept apart from the database.
//!
//! It makes a database that lost acknowledged transactions refuse to open instead of serving the past. Two slots are
//! written in turn, each in a block of its own, so that a torn write leaves the other slot intact.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{directory::sync_directory, layout};
use crate::{Position, StoreError};

/// The open file, ready to be advanced.
pub(super) struct HighWater {
    pub(super) file: File,
    path: PathBuf,
    next_slot: u64,
}

impl HighWater {
    /// Opens the file and reads the last position; none if there is no file.
    pub(super) fn open(directory: &Path) -> Result<Option<(Self, Position)>, StoreError> {
        let path = directory.join(FILE_NAME);
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", path)(error)),
        };
        let mut latest: Option<(u64, Position)> = None;
        for slot in 0..SLOTS {
            let mut bytes = [0; layout::POSITION_BYTES];
            // A short or damaged slot is one that no completed write left behind.
            let read = file.read_exact_at(&mut bytes, slot * SLOT_BYTES);
            if let Some(position) = read.ok().and_then(|()| layout::decode_position(&bytes))
                && latest.is_none_or(|(_, other)| position.seq > other.seq)
            {
                latest = Some((slot, position));
            }
        }
        let Some((slot, position)) = latest else {
            return Err(StoreError::Unvouched { path, problem: "damaged" });
        };
        Ok(Some((Self { file, path, next_slot: (slot + 1) % SLOTS }, position)))
    }

    /// Replaces the file, if there is one, by a new one with this position.
    pub(super) fn create(directory: &Path, position: Position) -> Result<Self, StoreError> {
        let path = directory.join(FILE_NAME);
        let unfinished = directory.join(UNFINISHED_NAME);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&unfinished);
        let file = file.map_err(StoreError::io("create", &unfinished))?;
        let mut created = Self { file, path: path.clone(), next_slot: 0 };
        for _ in 0..SLOTS {
            created.advance(position)?;
        }
        fs::rename(&unfinished, &path).map_err(StoreError::io("create", path))?;
        sync_directory(directory)?;
        Ok(created)
    }

    /// Writes the position and returns once it is on the device.
    pub(super) fn advance(&mut self, position: Position) -> Result<(), StoreError> {
        let mut block = [0; SLOT_BYTES as usize];
        block[..layout::POSITION_BYTES].copy_from_slice(&layout::encode_position(position));
        self.file
            .write_all_at(&block, self.next_slot * SLOT_BYTES)
            .and_then(|()| self.file.sync_data())
            .map_err(StoreError::io("write", &self.path))?;
        self.next_slot = (self.next_slot + 1) % SLOTS;
        Ok(())
    }
}

/// The file's name in the store's directory.
pub(super) const FILE_NAME: &str = "high-water";

const UNFINISHED_NAME: &str = "high-water.new";
const SLOTS: u64 = 2;

/// One block of any usual file system and device.
const SLOT_BYTES: u64 = 4096;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_the_position_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |seq| Position { epoch: [1; 16], seq };
        let mut high_water = HighWater::create(directory.path(), at(0)).unwrap();
        for seq in 1..=5 {
            high_water.advance(at(seq)).unwrap();
        }
        let torn_slot = (high_water.next_slot + SLOTS - 1) % SLOTS;
        high_water.file.write_all_at(&[0xff; 13], torn_slot * SLOT_BYTES).unwrap();

        let (mut high_water, position) = HighWater::open(directory.path()).unwrap().unwrap();
        assert_eq!(position, at(4));
        high_water.advance(at(6)).unwrap();
        assert_eq!(HighWater::open(directory.path()).unwrap().unwrap().1, at(6));
    }

    #[test]
    fn a_file_without_an_intact_slot_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE_NAME), [0; 2 * SLOT_BYTES as usize]).unwrap();
        assert!(matches!(HighWater::open(directory.path()), Err(StoreError::Unvouched { .. })));
    }
}
