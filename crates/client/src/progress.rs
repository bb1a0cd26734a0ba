//! How far a long series of calls has come.

/// A watcher of how far a long series of calls has come: a progress bar, say, or `()`, which ignores it.
pub trait Progress: Send + Sync {
    /// A step of `total` items begins; 0 when their number is not known.
    fn begin(&self, what: &str, total: u64);
    /// So many items more are done.
    fn advance(&self, items: u64);
    /// Nothing goes on until somebody else has done something.
    fn waiting(&self, what: &str);
}

impl Progress for () {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn waiting(&self, _: &str) {}
}
