//! The key ring as text.

use certseal_seal::Suite;
use certseal_wire::KeyRing;

use crate::output::{details, table};

/// The key ring with its keys and issuers, and what is known of its signature.
pub(super) fn ring_text(ring: &KeyRing, verdict: &str) -> String {
    let head = details([("version", ring.version.to_string()), ("signature", verdict.to_owned())]);
    let keys = ring.keys.iter().map(|entry| {
        let (epoch, suite) = (entry.epoch.to_string(), suite_name(entry.suite));
        [entry.pool.to_string(), epoch, entry.state.to_string(), suite, entry.key_id.to_string()]
    });
    let keys = table(["POOL", "EPOCH", "STATE", "SUITE", "KEY ID"], keys);
    let issuers = table(["ISSUER"], ring.issuers.iter().map(|entry| [entry.id.to_string()]));
    format!("{head}\n{keys}\n{issuers}")
}

/// A suite's name on the command line.
pub(super) fn suite_name(id: u16) -> String {
    Suite::try_from(id).map_or_else(|_| format!("unknown ({id})"), |suite| suite.name().to_owned())
}
