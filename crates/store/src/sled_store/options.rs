//! Limits of the embedded backend.

/// Limits of a [`crate::SledStore`].
#[derive(Clone, Debug)]
pub struct SledOptions {
    /// Commits are refused while less than this is free on the file system.
    pub reserve_bytes: u64,
    /// The largest value of a record.
    pub max_value_bytes: usize,
    /// Memory for the engine's page cache; it holds at least 16 MiB.
    pub cache_bytes: u64,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { reserve_bytes: 64 << 20, max_value_bytes: 256 << 10, cache_bytes: 128 << 20 }
    }
}
