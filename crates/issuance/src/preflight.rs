//! Pre-flight: whether a CA could validate a name, judged before it is asked, from what the DNS said.
//!
//! The questions are put elsewhere. [`refused`] judges the name alone, [`judged`] what was [`Observed`], [`fetched()`] the outcomes of
//! fetches of our own challenge. The rules are those of
//! CAs: all places must see the same, DNSSEC must validate, CAA must allow the CA (RFC 8659), and every address must be the
//! platform's, since a CA picks one.
//!
//! A question without an answer is no finding against a name: "could not ask" is [`FindingCode::NotAsked`], which leaves the name
//! unknown.
//!
//! [`FindingCode::NotAsked`]: certseal_wire::FindingCode::NotAsked

mod addresses;
mod caa;
mod fetched;
mod names;
mod observed;
mod persist;
mod targets;
#[cfg(test)]
mod tests;

pub use caa::Issuer;
pub use fetched::{Fetched, Perspective, StrangeAnswer, fetched, fetched_at};
pub use names::{Suffix, refused};
pub use observed::{CaaLookup, CaaRecord, Lookup, Observed, Observer, ServerTrouble, Unresolved, View};
pub use persist::{persist_owner, persist_record, persisted};
pub use targets::{TTL, Targets};

use certseal_wire::NameReport;

/// What is found against a name that was looked at: `targets` is where it should lead to, `issuer` the CA that is to validate it.
pub fn judged(observed: &Observed, targets: &Targets, issuer: &Issuer) -> NameReport {
    // What fails for the addresses fails for CAA as well: it is said once.
    let mut findings: Vec<_> = match addresses::unresolved(observed) {
        Some(finding) => vec![finding],
        None => {
            let leads = issuer.visits(&observed.name).then(|| addresses::misled(observed, targets)).flatten();
            leads.into_iter().chain(caa::objection(observed, targets, issuer)).collect()
        }
    };
    findings.dedup_by_key(|finding| finding.code);
    findings.iter_mut().for_each(|finding| finding.edits.truncate(MOST_EDITS));
    NameReport::new(observed.name.clone(), findings)
}

/// Edits of one finding: nobody pastes more.
const MOST_EDITS: usize = 20;
