//! Retries: how often a kind of work failed, and when it is tried again.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Failure, FailureKind, Moment, Policy, Work, budget::Delay, renewal::fraction};

/// How one kind of work on a site is going.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// Failures in a row that say nothing about the work itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub unavailable: u32,
    /// Rejections in a row.
    #[serde(skip_serializing_if = "is_zero")]
    pub rejected: u32,
    /// When the next attempt begins, after a failed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// The last failure, described.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
    /// No further attempt follows without a change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
    /// The reason of the wait until `retry_at`.
    #[serde(skip_serializing_if = "Wait::is_other")]
    pub wait: Wait,
}

/// Why an attempt waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// For somebody who is away, who wants to be left alone, or for room in a budget.
    #[default]
    Other,
    /// The CA rejected the last order.
    Rejected,
    /// The site's names are not ready.
    Names,
}

impl Wait {
    fn is_other(&self) -> bool {
        *self == Self::Other
    }
}

impl Attempt {
    /// Failures in a row, of any kind.
    pub fn failures(&self) -> u32 {
        self.unavailable.saturating_add(self.rejected)
    }

    /// The attempt after a failure. Each kind of failure has its own ladder: many times unavailable makes no rejection worse.
    pub(crate) fn failed(&mut self, failure: Failure, moment: Moment, policy: &Policy) {
        let wait = match failure.kind {
            FailureKind::Unavailable | FailureKind::Unanswered | FailureKind::Outrun(_) => {
                Some(doubling(self.unavailable))
            }
            FailureKind::Throttled(seconds) => {
                let asked = SignedDuration::from_secs(seconds.min(DAY.as_secs().unsigned_abs()) as i64);
                Some(doubling(self.unavailable).max(asked))
            }
            FailureKind::Rejected | FailureKind::AlreadyReplaced => {
                // 1, 10, 100 minutes, then once a day, as Let's Encrypt advises (its integration guide).
                let growth = 10_i32.checked_pow(self.rejected).filter(|_| self.rejected < 3);
                let wait = growth.map_or(DAY, |growth| policy.retry.saturating_mul(growth).min(DAY));
                (self.rejected + 1 < PAUSED_AFTER).then_some(wait)
            }
            FailureKind::Hopeless => None,
        };
        match failure.kind {
            FailureKind::Rejected | FailureKind::AlreadyReplaced | FailureKind::Hopeless => {
                self.rejected = self.rejected.saturating_add(1)
            }
            _ => self.unavailable = self.unavailable.saturating_add(1),
        }
        // Up to a fifth longer, so that what failed together does not come back together.
        self.retry_at = wait.and_then(|wait| moment.now.checked_add(wait + fraction(wait, moment.chance / 5.0)).ok());
        self.wait = match failure.kind {
            FailureKind::Rejected | FailureKind::AlreadyReplaced => Wait::Rejected,
            _ => Wait::Other,
        };
        self.diagnosis = Some(failure.detail);
        self.dead = wait.is_none();
    }

    /// The attempt after a failure of work for which nobody waits: again after 4, 8, 16 seconds and at most an hour, for as long
    /// as it takes. Whatever the failure was, there is nothing that a person or an order would have to do for it.
    pub(crate) fn put_off(&mut self, failure: Failure, moment: Moment) {
        let asked = match failure.kind {
            FailureKind::Throttled(seconds) => seconds.min(DAY.as_secs().unsigned_abs()) as i64,
            _ => 0,
        };
        let wait = SignedDuration::from_secs(4 << self.unavailable.min(10)).min(HOUR);
        let wait = wait.max(SignedDuration::from_secs(asked));
        self.unavailable = self.unavailable.saturating_add(1);
        self.retry_at = moment.now.checked_add(wait + fraction(wait, moment.chance / 5.0)).ok();
        self.diagnosis = Some(failure.detail);
    }

    /// The attempt after a step that succeeded. Rejections count until the whole does: a CA may take each step but the last one,
    /// again and again.
    pub(crate) fn progressed(&mut self) {
        (self.unavailable, self.retry_at, self.wait) = (0, None, Wait::Other);
        if self.rejected == 0 {
            self.diagnosis = None;
        }
    }

    /// The attempt waits until somebody mends the site's names. The CA was not asked: that is no failure.
    pub(crate) fn held_back(&mut self, until: Option<Timestamp>, why: Option<String>) {
        let why = why.map(|why| why.chars().take(Failure::MAX_DETAIL).collect());
        (self.retry_at, self.diagnosis, self.wait) = (until, why, Wait::Names);
    }

    /// The attempt no longer waits for the site's names.
    pub(crate) fn released(&mut self) {
        self.retry_at = None;
        if self.wait == Wait::Names {
            (self.diagnosis, self.wait) = (None, Wait::Other);
        }
    }

    /// The attempt waits for room in the budget of the CA. That is no failure.
    pub(crate) fn delayed(&mut self, delay: &Delay) {
        let subject: String = delay.bucket.subject.chars().take(Failure::MAX_DETAIL / 2).collect();
        let of = if subject.is_empty() { String::new() } else { format!(" of {subject}") };
        (self.retry_at, self.wait) = (Some(delay.until), Wait::Other);
        self.diagnosis =
            Some(format!("waits until {} for room in the CA's limit {}{of}", delay.until, delay.bucket.limit));
    }
}

/// The attempts of all kinds of work.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempts {
    /// Of the route.
    #[serde(skip_serializing_if = "is_fresh")]
    pub route: Attempt,
    /// Of the order.
    #[serde(skip_serializing_if = "is_fresh")]
    pub order: Attempt,
    /// Of revocations.
    #[serde(skip_serializing_if = "is_fresh")]
    pub revocation: Attempt,
    /// Of the remains of orders.
    #[serde(skip_serializing_if = "is_fresh")]
    pub cleanup: Attempt,
    /// Of a doubt.
    #[serde(skip_serializing_if = "is_fresh")]
    pub confirmation: Attempt,
    /// Of the OCSP answer.
    #[serde(skip_serializing_if = "is_fresh")]
    pub staple: Attempt,
}

impl Attempts {
    /// How a kind of work is going.
    pub fn of(&self, work: Work) -> &Attempt {
        match work {
            Work::Route => &self.route,
            Work::Order => &self.order,
            Work::Revocation => &self.revocation,
            Work::Cleanup => &self.cleanup,
            // Questions without an answer are asked again at times of their own.
            Work::Confirmation | Work::Advice | Work::Names => &self.confirmation,
            Work::Staple => &self.staple,
        }
    }

    pub(crate) fn of_mut(&mut self, work: Work) -> &mut Attempt {
        match work {
            Work::Route => &mut self.route,
            Work::Order => &mut self.order,
            Work::Revocation => &mut self.revocation,
            Work::Cleanup => &mut self.cleanup,
            Work::Confirmation | Work::Advice | Work::Names => &mut self.confirmation,
            Work::Staple => &mut self.staple,
        }
    }

    /// The one that people should hear of: dead before failing, the certificate's before others. A certificate is good without
    /// an OCSP answer, so that this one is none of them.
    pub(crate) fn worst(&self) -> &Attempt {
        let all = [&self.order, &self.route, &self.revocation, &self.confirmation, &self.cleanup];
        let by = |holds: fn(&Attempt) -> bool| all.into_iter().find(|attempt| holds(attempt));
        by(|attempt| attempt.dead).or_else(|| by(|attempt| attempt.failures() > 0)).unwrap_or(&self.order)
    }
}

/// 1, 2, 4 ... 256 seconds: a CA that is away for a day is not asked a thousand times by each site.
fn doubling(failures: u32) -> SignedDuration {
    SignedDuration::from_secs(1 << failures.min(8))
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_fresh(attempt: &Attempt) -> bool {
    *attempt == Attempt::default()
}

/// Rejections in a row after which nobody tries again before somebody asks for it: a month. Let's Encrypt pauses a name after
/// 1,152, and then a person has to go to its page.
const PAUSED_AFTER: u32 = 30;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
