//! Looks at a site's names in the DNS: the last one, and when the next one follows.

use certseal_wire::{NameReport, NamesReport, Readiness};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{AuthorityId, Failure, Moment, renewal::fraction};

/// The last look at the names of a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Looked {
    /// When it was taken, by the clock of who goes by it.
    pub at: Timestamp,
    /// Whether a CA could validate them.
    pub readiness: Readiness,
    /// The first of the names that are not ready, or of which nobody knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameReport>,
    /// The CAs that CAA records of the names do not allow, while another one that is configured is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forbidden_to: Vec<AuthorityId>,
    /// Looks in a row that did not find them ready.
    #[serde(default)]
    pub failures: u32,
    /// The last look at which somebody could say so found them not ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_bad: bool,
    /// How often names that were mended had a rejected order tried again since the last success. Names that seem mended again
    /// and again, and are not, cost a CA's patience.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub woken: u32,
    /// When the next look follows although no order is due: the CA rejected the last one, and somebody may put right what it
    /// rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_at: Option<Timestamp>,
}

impl Looked {
    /// The look that brought `report`, after the one `before` it.
    pub(crate) fn new(report: NamesReport, before: Option<&Self>, now: Timestamp) -> Self {
        let NamesReport { readiness, names, forbidden_to, .. } = report;
        let forbidden_to = match readiness {
            // What nobody can say now is taken to be as it was.
            Readiness::Unknown if forbidden_to.is_empty() => {
                before.map(|before| before.forbidden_to.clone()).unwrap_or_default()
            }
            _ => forbidden_to.into_iter().map(AuthorityId::from).collect(),
        };
        let mut names: Vec<_> =
            names.into_iter().filter(|name| name.readiness == readiness && readiness != Readiness::Ready).collect();
        names.truncate(MOST_KEPT);
        // The words of others are kept in the journal: they must not grow without bound.
        for finding in names.iter_mut().flat_map(|name| &mut name.findings) {
            finding.detail = finding.detail.chars().take(Failure::MAX_DETAIL).collect();
            finding.edits.truncate(MOST_EDITS);
        }
        let failures = match readiness {
            Readiness::Ready => 0,
            _ => before.map_or(0, |before| before.failures).saturating_add(1),
        };
        let was_bad = match readiness {
            Readiness::Ready => false,
            Readiness::NotReady => true,
            Readiness::Unknown => before.is_some_and(|before| before.was_bad),
        };
        let woken = before.map_or(0, |before| before.woken);
        Self { at: now, readiness, names, forbidden_to, failures, was_bad, woken, again_at: None }
    }

    /// No look: an order may go, and what the next look finds is no change.
    pub(crate) fn unknown(at: Timestamp) -> Self {
        Self {
            at,
            readiness: Readiness::Unknown,
            names: Vec::new(),
            forbidden_to: Vec::new(),
            failures: 0,
            was_bad: false,
            woken: 0,
            again_at: None,
        }
    }

    /// Whether an order may go by it.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        self.readiness != Readiness::NotReady && now.duration_since(self.at) < FRESH
    }

    /// Whether the names are not ready.
    pub fn is_not_ready(&self) -> bool {
        self.readiness == Readiness::NotReady
    }

    /// Whether names that are mended may have the order tried again before its time.
    pub(crate) fn may_wake(&self) -> bool {
        self.woken < MOST_WAKES
    }

    /// Until the next look. Looks cost a CA nothing, and whoever mends a record waits for the next one.
    pub(crate) fn pause(&self, moment: Moment) -> Option<Timestamp> {
        let wait = match self.failures {
            0..30 => SignedDuration::from_mins(1),
            30..300 => SignedDuration::from_mins(5),
            _ => SignedDuration::from_hours(1),
        };
        // Up to a fifth longer, so that what failed together does not come back together.
        moment.now.checked_add(wait + fraction(wait, moment.chance / 5.0)).ok()
    }

    /// What was found, as far as it is kept.
    pub(crate) fn report(&self) -> NamesReport {
        NamesReport {
            looked_at: self.at,
            readiness: self.readiness,
            names: self.names.clone(),
            forbidden_to: self.forbidden_to.iter().map(ToString::to_string).collect(),
        }
    }

    /// What was found, for people.
    pub fn summary(&self) -> Option<String> {
        self.report().summary()
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Rejected orders that are tried again before their time, in a row.
const MOST_WAKES: u32 = 5;
/// How old a look may be by which an order goes.
const FRESH: SignedDuration = SignedDuration::from_mins(10);
/// Names and edits of a look that are kept.
const MOST_KEPT: usize = 3;
const MOST_EDITS: usize = 20;
