//! The outcome for items.

use certseal_wire::{DnsName, Kind};

/// The effect of a change.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// Items that were taken.
    pub accepted: usize,
    /// Items that were there already.
    pub unchanged: usize,
    /// Items of a kind that this release does not know.
    pub passed_over: usize,
    /// Items that were not taken.
    pub refused: Vec<Refused>,
    /// Sites whose bundle, route or OCSP answer is another now.
    pub changed: Vec<DnsName>,
    /// Sites that have come back, whose bundle has to be fetched by name.
    pub missing: Vec<DnsName>,
    /// Whether the ring is another now: refused items may be accepted when they are fetched again.
    pub ring_changed: bool,
}

/// An item that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its kind.
    pub kind: Kind,
    /// The site, or the pool of a checkpoint; empty for the ring and the account list.
    pub name: String,
    /// Why.
    pub reason: String,
}
