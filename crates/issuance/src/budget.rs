//! Budgets: how many orders, certificates and failures a CA allows, kept here as the CA keeps them, so that certman asks for
//! nothing that would be refused.
//!
//! A limit is a bucket with one instant in it ([`Limit`]). What an order costs follows the rules of Let's Encrypt, whose server
//! is Boulder ([`order_cost`], [`failure_cost`]). A [`grant`] takes from all buckets of a cost or from none.

mod bucket;
mod cost;
mod limit;
mod limits;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use bucket::Bucket;
pub use cost::{Cost, OrderKind, failure_cost, order_cost, success_resets};
pub use limit::Limit;
pub use limits::{LimitName, Limits, ParseLimitsError};

/// Room that was taken: the instants that stand in the buckets from now on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant(pub BTreeMap<Bucket, Timestamp>);

/// No room yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// The instant from which on there is room, if nobody else takes it.
    pub until: Timestamp,
    /// The bucket that lacks it: of several, the one that is full for longest.
    pub bucket: Bucket,
}

/// Takes the cost from its buckets: `instant` says what stands in one, none for a bucket that nobody took from.
///
/// # Errors
/// When a bucket is full: nothing is taken then.
pub fn grant(
    cost: &Cost,
    limits: &Limits,
    instant: impl Fn(&Bucket) -> Option<Timestamp>,
    now: Timestamp,
) -> Result<Grant, Delay> {
    let (mut grant, mut longest) = (Grant::default(), None::<Delay>);
    let taken = cost.order.iter().chain(&cost.certificate).map(|bucket| (bucket, true));
    let wanted = taken.chain(cost.needs.iter().map(|bucket| (bucket, false)));
    for (bucket, takes) in wanted {
        let Some(limit) = limits.get(bucket.limit) else { continue };
        match limit.take(instant(bucket), now) {
            Ok(after) if takes => drop(grant.0.insert(bucket.clone(), after)),
            Ok(_) => {}
            Err(until) if longest.as_ref().is_none_or(|longest| longest.until < until) => {
                longest = Some(Delay { until, bucket: bucket.clone() });
            }
            Err(_) => {}
        }
    }
    longest.map_or(Ok(grant), Err)
}

/// Takes from buckets whether they are full or not: of what has happened, a failed validation for example. A full bucket stays
/// as it is, as at the CA.
pub fn charge(
    buckets: &[Bucket],
    limits: &Limits,
    instant: impl Fn(&Bucket) -> Option<Timestamp>,
    now: Timestamp,
) -> Grant {
    moved(buckets, |bucket| limits.get(bucket.limit)?.take(instant(bucket), now).ok())
}

/// Gives back what was taken and not used.
pub fn refund(
    buckets: &[Bucket],
    limits: &Limits,
    instant: impl Fn(&Bucket) -> Option<Timestamp>,
    now: Timestamp,
) -> Grant {
    moved(buckets, |bucket| Some(limits.get(bucket.limit)?.give_back(instant(bucket)?, now)))
}

fn moved(buckets: &[Bucket], after: impl Fn(&Bucket) -> Option<Timestamp>) -> Grant {
    Grant(buckets.iter().filter_map(|bucket| Some((bucket.clone(), after(bucket)?))).collect())
}

#[cfg(test)]
mod tests;
