//! How often each of many may do something: token buckets, with a clock that is passed in.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// A bucket for each key, which holds `count` at most and fills up within `period`.
///
/// A key has memory from its first token until its bucket is full again. There are never more keys than about twice the
/// tokens that were taken within a period: whoever takes tokens for keys that strangers choose takes one from a bucket for
/// all of them first.
#[derive(Debug)]
pub struct Buckets<K> {
    period: Duration,
    /// In which a token comes back.
    interval: Duration,
    /// When each bucket is full again.
    full_at: HashMap<K, Instant>,
    /// The number of keys at which those with full buckets are forgotten.
    sweep_at: usize,
}

impl<K: Eq + Hash> Buckets<K> {
    /// `count` in each `period`, and as many at once.
    pub fn new(count: NonZeroU32, period: Duration) -> Self {
        Self { period, interval: period / count.get(), full_at: HashMap::new(), sweep_at: FEW }
    }

    /// How long it takes until the key may have a token; nothing where there is one.
    pub fn wait<Q: Eq + Hash + ?Sized>(&self, key: &Q, now: Instant) -> Duration
    where
        K: Borrow<Q>,
    {
        let missing = self.full_at.get(key).map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        missing.saturating_sub(self.period.saturating_sub(self.interval))
    }

    /// Takes a token, also one that is not there yet.
    pub fn take(&mut self, key: K, now: Instant) {
        self.sweep(now);
        let full_at = self.full_at.entry(key).or_insert(now);
        *full_at = (*full_at).max(now) + self.interval;
    }

    /// Leaves nothing in a key's bucket until an instant: somebody else took it.
    pub fn close(&mut self, key: K, until: Instant, now: Instant) {
        self.sweep(now);
        let closed = until + self.period.saturating_sub(self.interval);
        let full_at = self.full_at.entry(key).or_insert(closed);
        *full_at = (*full_at).max(closed);
    }

    fn sweep(&mut self, now: Instant) {
        if self.full_at.len() >= self.sweep_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = FEW.max(2 * self.full_at.len());
        }
    }

    /// The number of keys that have memory.
    pub fn len(&self) -> usize {
        self.full_at.len()
    }

    /// Whether no key has memory.
    pub fn is_empty(&self) -> bool {
        self.full_at.is_empty()
    }
}

/// Keys that nobody sweeps for.
const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_key_gets_its_count_at_once_and_then_one_in_each_interval() {
        let (mut buckets, now) = (Buckets::<String>::new(NonZeroU32::new(10).unwrap(), MINUTE), Instant::now());
        for _ in 0..10 {
            assert_eq!(buckets.wait("a", now), Duration::ZERO);
            buckets.take("a".to_owned(), now);
        }
        assert_eq!(buckets.wait("a", now), Duration::from_secs(6));
        assert_eq!(buckets.wait("b", now), Duration::ZERO, "the buckets of others are theirs");
        let later = now + Duration::from_secs(6);
        assert_eq!(buckets.wait("a", later), Duration::ZERO);
        buckets.take("a".to_owned(), later);
        assert_eq!(buckets.wait("a", later), Duration::from_secs(6));
        assert_eq!(buckets.wait("a", later + MINUTE), Duration::ZERO, "and no more than its count is saved up");
    }

    #[test]
    fn a_bucket_that_somebody_else_emptied_has_nothing_until_then() {
        let (mut buckets, now) = (Buckets::<String>::new(NonZeroU32::new(10).unwrap(), MINUTE), Instant::now());
        let until = now + Duration::from_secs(7);
        buckets.close("a".to_owned(), until, now);
        assert_eq!(buckets.wait("a", now), Duration::from_secs(7));
        assert_eq!(buckets.wait("a", until), Duration::ZERO);
        buckets.take("a".to_owned(), until);
        assert_eq!(buckets.wait("a", until), Duration::from_secs(6));
    }

    #[test]
    fn keys_whose_buckets_are_full_have_no_memory() {
        let (mut buckets, mut now) = (Buckets::new(NonZeroU32::new(10).unwrap(), MINUTE), Instant::now());
        for key in 0..100_000 {
            buckets.take(key, now);
            now += Duration::from_millis(100);
        }
        // Of each six seconds, in which one token comes back, there are 60.
        assert!(buckets.len() <= 2 * 61 + 64, "{}", buckets.len());
    }
}
