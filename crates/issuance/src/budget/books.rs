//! The books of an account at a CA: what stands in its buckets, and how lanes share the scarcest one.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    bucket::Bucket,
    cost::Cost,
    limit::Limit,
    limits::{LimitName, Limits},
};
use crate::{
    lane::{ALL_WEIGHTS, Lane},
    moment::Moment,
};

/// A line of the books; its entry is one instant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Line {
    /// The bucket as the CA keeps it.
    Bucket(Bucket),
    /// A bucket of the lane's part of a limit that all lanes share.
    Share(LimitName, Lane),
    /// The last instant that somebody was told to wait for who found the bucket full. Each is told another one, so that they
    /// do not all come back at once.
    Promise(Bucket, Lane),
}

/// New entries of the books, one for each line.
pub type Entries = Vec<(Line, Timestamp)>;

/// Room that was taken for an order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// The new entries.
    pub entries: Entries,
    /// The buckets that the certificate takes from, to be given back if none comes.
    pub certificate: Vec<Bucket>,
}

/// No room yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// When to ask again.
    pub until: Timestamp,
    /// The bucket that lacks room: of several, the one that is full for longest.
    pub bucket: Bucket,
    /// The new entries: nothing is taken, but others who wait are told a later instant.
    pub entries: Entries,
}

/// Takes the cost of an order from all of its buckets. `entry` says what stands in a line, none for one that has nothing.
///
/// Lanes share the limit on new orders: while others wait, a lane that had its part of it waits for them. A lane that nobody
/// waits beside may take everything.
///
/// # Errors
/// When a bucket is full, or it is another lane's turn: nothing is taken then.
pub fn take(
    cost: &Cost,
    lane: Lane,
    limits: &Limits,
    entry: impl Fn(&Line) -> Option<Timestamp>,
    moment: Moment,
) -> Result<Taken, Delay> {
    let now = moment.now;
    let (mut taken, mut longest) = (Taken::default(), None::<(Timestamp, &Bucket, Limit)>);
    let mut lacks = |until: Timestamp, bucket, limit| {
        if longest.as_ref().is_none_or(|(longest, ..)| *longest < until) {
            longest = Some((until, bucket, limit));
        }
    };
    let limited = |bucket: &Bucket| limits.get(bucket.limit);
    let at_ca = |bucket: &Bucket, limit: Limit| limit.take_from_copy(entry(&Line::Bucket(bucket.clone())), now);
    for (bucket, is_certificate) in
        cost.order.iter().map(|bucket| (bucket, false)).chain(cost.certificate.iter().map(|bucket| (bucket, true)))
    {
        let Some(limit) = limited(bucket) else { continue };
        match at_ca(bucket, limit) {
            Ok(after) => {
                taken.entries.push((Line::Bucket(bucket.clone()), after));
                taken.certificate.extend(is_certificate.then(|| bucket.clone()));
            }
            Err(until) => lacks(until, bucket, limit),
        }
        if bucket.limit == LimitName::NewOrders {
            match shared(limit, lane, &entry, now) {
                Ok(after) => taken.entries.push((Line::Share(bucket.limit, lane), after)),
                Err(until) => lacks(until, bucket, limit),
            }
        }
    }
    for bucket in &cost.counted {
        // What is counted and not asked for: a full bucket stays as it is.
        let line = Line::Bucket(bucket.clone());
        let Some(after) = limited(bucket).and_then(|limit| limit.take(entry(&line), now).ok()) else { continue };
        taken.entries.push((line, after));
        taken.certificate.push(bucket.clone());
    }
    for bucket in &cost.needs {
        let Some(limit) = limited(bucket) else { continue };
        if let Err(until) = at_ca(bucket, limit) {
            lacks(until, bucket, limit);
        }
    }
    match longest {
        None => Ok(taken),
        Some((until, bucket, limit)) => Err(delayed(until, bucket, limit, lane, entry, moment)),
    }
}

/// What the lane's bucket of its part has after another one. A lane beyond its part gives way to lanes that wait and are not.
fn shared(
    limit: Limit,
    lane: Lane,
    entry: impl Fn(&Line) -> Option<Timestamp>,
    now: Timestamp,
) -> Result<Timestamp, Timestamp> {
    let take_part = |lane: Lane| {
        let part = limit.part(lane.weight(), ALL_WEIGHTS);
        part.take(entry(&Line::Share(LimitName::NewOrders, lane)), now)
    };
    match take_part(lane) {
        Ok(after) => Ok(after),
        Err(_) => {
            let waits = |lane: &Lane| {
                entry(&Line::Promise(Bucket::of_account(LimitName::NewOrders), *lane))
                    .is_some_and(|promise| promise > now)
            };
            let is_owed = |other: &Lane| *other != lane && waits(other) && take_part(*other).is_ok();
            if Lane::ALL.iter().any(is_owed) {
                return Err(now.saturating_add(limit.interval()).unwrap_or(Timestamp::MAX));
            }
            // All of its part is taken, and stays taken.
            Ok(entry(&Line::Share(LimitName::NewOrders, lane)).unwrap_or(now))
        }
    }
}

fn delayed(
    until: Timestamp,
    bucket: &Bucket,
    limit: Limit,
    lane: Lane,
    entry: impl Fn(&Line) -> Option<Timestamp>,
    moment: Moment,
) -> Delay {
    let line = Line::Promise(bucket.clone(), lane);
    let behind = entry(&line).filter(|promise| *promise > moment.now);
    let behind = behind.and_then(|promise| promise.checked_add(limit.interval()).ok());
    let until = behind.map_or(until, |behind| behind.max(until));
    // Nobody is told to wait for years: limits may be raised. Those that would be come back at different times of the day.
    let longest = MAX_WAIT - SignedDuration::from_millis((SPREAD.as_millis() as f64 * moment.chance) as i64);
    let longest = moment.now.saturating_add(longest).unwrap_or(Timestamp::MAX);
    if until > longest {
        return Delay { until: longest, bucket: bucket.clone(), entries: Entries::new() };
    }
    Delay { until, bucket: bucket.clone(), entries: vec![(line, until)] }
}

/// The books after an order ended: what it did not use is given back, failures count at the CA whether there is room for them
/// or not, and a success ends a row of failures.
pub fn settle(
    settlement: &super::Settlement,
    limits: &Limits,
    entry: impl Fn(&Line) -> Option<Timestamp>,
    now: Timestamp,
) -> Entries {
    let mut entries = BTreeMap::new();
    let mut change = |bucket: &Bucket, after: &dyn Fn(Limit, Option<Timestamp>) -> Option<Timestamp>| {
        let line = Line::Bucket(bucket.clone());
        let before = entries.get(&line).copied().or_else(|| entry(&line));
        if let Some(after) = limits.get(bucket.limit).and_then(|limit| after(limit, before)) {
            entries.insert(line, after);
        }
    };
    for bucket in &settlement.back {
        change(bucket, &|limit, before| Some(limit.give_back(before?, now)));
    }
    for name in &settlement.validated {
        for bucket in super::cost::success_resets(name) {
            change(&bucket, &|_, before| before.map(|before| before.min(now)));
        }
    }
    for name in &settlement.failed {
        for bucket in super::cost::failure_cost(name) {
            change(&bucket, &|limit, before| limit.take(before, now).ok());
        }
    }
    entries.into_iter().collect()
}

/// The longest wait before somebody asks again.
const MAX_WAIT: SignedDuration = SignedDuration::from_hours(24);
/// How far those that would wait longer come back apart.
const SPREAD: SignedDuration = SignedDuration::from_hours(12);
