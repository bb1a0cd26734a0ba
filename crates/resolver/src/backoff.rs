//! Waits between attempts: longer after each failure, and different for each edge.

use std::time::Duration;

/// The next wait is drawn between a half and the whole of a span that doubles from `first` to `longest`.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    span: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { span: first, first, longest }
    }

    /// The next wait. `random` is uniform over all u32.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let wait = self.span / 2 + self.span.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0);
        self.span = (self.span * 2).min(self.longest);
        wait
    }

    pub(crate) fn reset(&mut self) {
        self.span = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_success() {
        let (first, longest) = (Duration::from_millis(200), Duration::from_secs(10));
        let mut backoff = Backoff::new(first, longest);
        assert_eq!(backoff.next(u32::MAX), first);
        assert_eq!(backoff.next(0), first, "half of the doubled span");
        let last = (0..10).map(|_| backoff.next(u32::MAX)).last();
        assert_eq!(last, Some(longest));
        backoff.reset();
        assert_eq!(backoff.next(u32::MAX), first);
    }
}
