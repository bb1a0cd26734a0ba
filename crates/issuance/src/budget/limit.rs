//! A token bucket as one instant: the generic cell rate algorithm, as Boulder's `ratelimits` has it.

use jiff::{SignedDuration, Timestamp};

/// So many at once, and another one after each interval.
///
/// A bucket is one theoretical arrival time: the instant at which it would be empty of everything that was taken. Each take
/// moves it an interval into the future, and no further than all of a burst from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    burst: u32,
    interval: SignedDuration,
}

impl Limit {
    /// `burst` at once, and `count` more in each `period`. None where one of them is nothing, or their product beyond what an
    /// instant holds.
    pub fn new(burst: u32, count: u32, period: SignedDuration) -> Option<Self> {
        let interval = period.checked_div(i32::try_from(count).ok()?)?;
        let is_possible = interval.is_positive() && interval.checked_mul(i32::try_from(burst).ok()?)? < MAX_SPAN;
        (burst > 0 && is_possible).then_some(Self { burst, interval })
    }

    /// The instant in the bucket after one is taken from it.
    ///
    /// # Errors
    /// When the bucket is full: the instant from which on it is not.
    pub fn take(self, instant: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Timestamp> {
        self.taken(instant, now, SignedDuration::ZERO)
    }

    /// Like [`Self::take`], from our copy of a bucket that somebody else keeps: theirs is up to a minute behind, since an order
    /// comes to them after it was entered here. A tenth of the bucket is the most that is held back for that.
    pub(super) fn take_from_copy(self, instant: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Timestamp> {
        // What is empty here is empty there, or not yet begun.
        let is_empty = instant.is_none_or(|instant| instant <= now);
        let behind = if is_empty { SignedDuration::ZERO } else { MOST_BEHIND.min(self.span() / 10) };
        self.taken(instant, now, behind)
    }

    fn taken(self, instant: Option<Timestamp>, now: Timestamp, behind: SignedDuration) -> Result<Timestamp, Timestamp> {
        // What was not taken in the past is not there twice.
        let begin = instant.map_or(now, |instant| instant.max(now));
        let after = begin.saturating_add(self.interval).unwrap_or(Timestamp::MAX);
        let allowed_from = after.saturating_sub(self.span() - behind).unwrap_or(Timestamp::MIN);
        if allowed_from > now { Err(allowed_from) } else { Ok(after) }
    }

    /// The instant in the bucket after one is given back.
    pub fn give_back(self, instant: Timestamp, now: Timestamp) -> Timestamp {
        if instant <= now {
            return instant;
        }
        instant.saturating_sub(self.interval).unwrap_or(now).max(now)
    }

    /// How many can be taken now.
    pub fn left(self, instant: Option<Timestamp>, now: Timestamp) -> u32 {
        let used = instant.map_or(SignedDuration::ZERO, |instant| instant.max(now).duration_since(now));
        let free = self.span().saturating_sub(used).as_nanos().max(0);
        // At most the burst, by construction.
        u32::try_from(free / self.interval.as_nanos().max(1)).unwrap_or(self.burst)
    }

    /// A part of it, `weight` of `of`: as slow as the part is small, and with at least one at once.
    pub(super) fn part(self, weight: u32, of: u32) -> Self {
        let burst = u64::from(self.burst) * u64::from(weight) / u64::from(of.max(1));
        let nanoseconds = self.interval.as_nanos().saturating_mul(of.into()) / i128::from(weight.max(1));
        // A part of an instant that could be held can be held, or is as long as all of it.
        let interval = SignedDuration::try_from_nanos_i128(nanoseconds).unwrap_or(MAX_SPAN);
        Self { burst: u32::try_from(burst).unwrap_or(self.burst).max(1), interval: interval.min(MAX_SPAN) }
    }

    /// How many can be taken at once.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// The time after which another one can be taken.
    pub fn interval(self) -> SignedDuration {
        self.interval
    }

    fn span(self) -> SignedDuration {
        // `new` has seen that this does not overflow.
        self.interval.checked_mul(self.burst as i32).unwrap_or(MAX_SPAN)
    }
}

/// A century: no limit of a CA refills more slowly.
const MAX_SPAN: SignedDuration = SignedDuration::from_hours(100 * 366 * 24);

/// From the entry of an order to its arrival at the CA, with a few attempts to reach it; or to its certificate.
const MOST_BEHIND: SignedDuration = SignedDuration::from_secs(60);
