//! The names of records, conditions and points in time.

use std::fmt;

/// The name of a set of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table(&'static str);

impl Table {
    /// Names a table, with 1 to 32 bytes.
    ///
    /// # Panics
    ///
    /// For other lengths. In a constant, that is a compile error.
    pub const fn new(name: &'static str) -> Self {
        assert!(!name.is_empty() && name.len() <= MAX_TABLE_BYTES, "a table name has 1 to 32 bytes");
        Self(name)
    }

    /// The name as given.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The condition of a write on the record it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: it may be absent, present or damaged.
    Any,
    /// There is no such record.
    Absent,
    /// The record has this version.
    Version(u64),
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anything"),
            Self::Absent => f.write_str("no record"),
            Self::Version(version) => write!(f, "version {version}"),
        }
    }
}

/// A point in the life of a store. Sequences compare only within one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Random id, new whenever the history begins anew: at creation and after a restore.
    pub epoch: [u8; 16],
    /// Grows with every event and every transaction.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}:{}", u128::from_be_bytes(self.epoch), self.seq)
    }
}

const MAX_TABLE_BYTES: usize = 32;
