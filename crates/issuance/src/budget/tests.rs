use std::collections::{BTreeMap, HashMap};

use certseal_wire::{DnsName, NameSet};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{Lane, Moment};

fn now() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn names(names: &[&str]) -> NameSet {
    NameSet::try_from(names.iter().map(|name| name.parse().unwrap()).collect::<Vec<DnsName>>()).unwrap()
}

/// The last two labels: the public suffix list is not tried here.
fn registered(name: &DnsName) -> String {
    let labels: Vec<_> = name.as_str().rsplit('.').take(2).collect();
    labels.into_iter().rev().collect::<Vec<_>>().join(".")
}

/// An account's books, with Let's Encrypt's limits.
#[derive(Default)]
struct Account {
    entries: HashMap<Line, Timestamp>,
}

impl Account {
    fn order(&mut self, kind: OrderKind, set: &[&str], at: Timestamp) -> Result<Vec<Bucket>, Delay> {
        self.order_in(Lane::NewSite, kind, set, at)
    }

    fn order_in(&mut self, lane: Lane, kind: OrderKind, set: &[&str], at: Timestamp) -> Result<Vec<Bucket>, Delay> {
        let cost = order_cost(kind, &names(set), registered);
        match take(&cost, lane, &Limits::letsencrypt(), |line| self.entries.get(line).copied(), moment(at)) {
            Ok(taken) => {
                self.entries.extend(taken.entries);
                Ok(taken.certificate)
            }
            Err(delay) => {
                self.entries.extend(delay.entries.clone());
                Err(delay)
            }
        }
    }

    fn settle(&mut self, settlement: Settlement, at: Timestamp) {
        let entries = settle(&settlement, &Limits::letsencrypt(), |line| self.entries.get(line).copied(), at);
        self.entries.extend(entries);
    }

    fn fail(&mut self, name: &str, at: Timestamp) {
        self.settle(Settlement { failed: vec![name.parse().unwrap()], ..Settlement::default() }, at);
    }

    fn left(&self, limit: LimitName, subject: &str, at: Timestamp) -> u32 {
        let line = Line::Bucket(Bucket { limit, subject: subject.into() });
        Limits::letsencrypt().get(limit).unwrap().left(self.entries.get(&line).copied(), at)
    }
}

fn moment(now: Timestamp) -> Moment {
    Moment { now, chance: 0.0 }
}

fn delayed<T: std::fmt::Debug>(outcome: Result<T, Delay>) -> (LimitName, i64) {
    let delay = outcome.unwrap_err();
    (delay.bucket.limit, delay.until.duration_since(now()).as_secs())
}

#[test]
fn nearly_three_hundred_orders_at_once_and_then_one_in_thirty_six_seconds() {
    let mut account = Account::default();
    // The CA may have counted the first of them a minute later than we: two wait for that.
    for number in 0..298 {
        account.order(OrderKind::New, &[&format!("shop.site-{number}.example")], now()).unwrap();
    }
    assert_eq!(delayed(account.order(OrderKind::New, &["another.example"], now())), (LimitName::NewOrders, 24));
    assert_eq!(account.left(LimitName::NewOrders, "", now()), 2);
    account.order(OrderKind::New, &["another.example"], after(24)).unwrap();
    // A renewal of the same names is no new order.
    account.order(OrderKind::SameNames, &["shop.site-0.example"], after(36)).unwrap();
    assert_eq!(account.left(LimitName::NewOrders, "", after(10_800 + 36)), 300, "all is there again after three hours");
}

#[test]
fn fifty_certificates_for_a_registered_domain_in_a_week_and_renewals_besides() {
    let mut account = Account::default();
    for number in 0..49 {
        account.order(OrderKind::New, &[&format!("shop-{number}.platform.example")], now()).unwrap();
    }
    account.order(OrderKind::New, &["shop-49.platform.example"], after(60)).unwrap();
    let week = 7 * 24 * 3600;
    let one_more = account.order(OrderKind::New, &["shop-50.platform.example", "a.other.example"], now());
    assert_eq!(delayed(one_more), (LimitName::CertificatesPerDomain, week / 50 + 60));
    assert_eq!(account.left(LimitName::CertificatesPerDomain, "example", now()), 50, "a refused order takes nothing");
    assert_eq!(account.left(LimitName::NewOrders, "", now()), 250);
    account.order(OrderKind::SameNames, &["shop-7.platform.example"], now()).unwrap();
    assert_eq!(account.left(LimitName::CertificatesPerDomain, "platform.example", now()), 0);
    // Names of several domains take from each, and several of one domain once.
    account.order(OrderKind::New, &["a.x.example", "b.x.example", "c.y.example"], now()).unwrap();
    assert_eq!(account.left(LimitName::CertificatesPerDomain, "x.example", now()), 49);
    assert_eq!(account.left(LimitName::CertificatesPerDomain, "y.example", now()), 49);
}

#[test]
fn five_certificates_for_the_same_names_in_a_week_also_as_renewals() {
    let mut account = Account::default();
    account.order(OrderKind::New, &["a.example", "b.example"], now()).unwrap();
    for number in 1..5 {
        let at = if number < 4 { now() } else { after(60) };
        account.order(OrderKind::SameNames, &["b.example", "a.example"], at).unwrap();
    }
    let one_more = account.order(OrderKind::SameNames, &["a.example", "b.example"], now());
    let a_day = 24 * 3600;
    assert_eq!(delayed(one_more), (LimitName::CertificatesPerNameSet, a_day), "it asks again before it can be");
    account.order(OrderKind::New, &["a.example"], now()).unwrap();
    // Within its window a replacement is asked of no bucket. Its certificate is counted where there is room.
    let counted = account.order(OrderKind::Replacement { same_names: true }, &["a.example", "b.example"], now());
    assert_eq!(counted.unwrap(), [], "it is full, so that nothing can be given back");
    account.order(OrderKind::Replacement { same_names: true }, &["a.example"], now()).unwrap();
    assert_eq!(account.left(LimitName::CertificatesPerNameSet, "a.example", now()), 3);
    account.order(OrderKind::Replacement { same_names: false }, &["c.z.example"], now()).unwrap();
    assert_eq!(account.left(LimitName::CertificatesPerDomain, "z.example", now()), 49);
}

#[test]
fn five_failed_validations_of_a_name_in_an_hour_keep_orders_with_it_back() {
    let mut account = Account::default();
    (0..5).for_each(|_| account.fail("broken.example", now()));
    let order = account.order(OrderKind::New, &["broken.example", "fine.example"], now());
    assert_eq!(delayed(order), (LimitName::FailedValidations, 13 * 60));
    account.order(OrderKind::New, &["fine.example"], now()).unwrap();
    account.order(OrderKind::New, &["broken.example"], after(13 * 60)).unwrap();
    account.fail("broken.example", after(12 * 60));
    assert_eq!(account.left(LimitName::ConsecutiveFailures, "broken.example", now()), 288 - 6);
    let validated = vec!["broken.example".parse().unwrap()];
    account.settle(Settlement { validated, ..Settlement::default() }, after(12 * 60));
    assert_eq!(account.left(LimitName::ConsecutiveFailures, "broken.example", after(12 * 60)), 288);
    assert_eq!(account.left(LimitName::FailedValidations, "broken.example", after(12 * 60)), 0, "the hour goes on");
}

#[test]
fn an_order_without_a_certificate_gives_back_what_the_certificate_would_have_taken() {
    let mut account = Account::default();
    let back = account.order(OrderKind::New, &["a.x.example"], now()).unwrap();
    account.settle(Settlement { back, ..Settlement::default() }, after(5));
    assert_eq!(account.left(LimitName::CertificatesPerDomain, "x.example", after(5)), 50);
    assert_eq!(account.left(LimitName::CertificatesPerNameSet, "a.x.example", after(5)), 5);
    assert_eq!(account.left(LimitName::NewOrders, "", after(5)), 299, "the order was placed");
}

#[test]
fn a_ca_without_limits_delays_nothing_and_an_override_counts() {
    let cost = order_cost(OrderKind::New, &names(&["a.example"]), registered);
    let unlimited = take(&cost, Lane::Backfill, &Limits::unlimited(), |_| Some(Timestamp::MAX), moment(now()));
    assert_eq!(unlimited, Ok(Taken::default()));
    let one = Limit::new(1, 1, SignedDuration::from_secs(10)).unwrap();
    let limits = "letsencrypt".parse::<Limits>().unwrap().with(LimitName::NewOrders, one);
    let taken = take(&cost, Lane::NewSite, &limits, |_| None, moment(now())).unwrap();
    let entry = |line: &Line| taken.entries.iter().find(|(of, _)| of == line).map(|(_, at)| *at);
    let delay = take(&cost, Lane::NewSite, &limits, entry, moment(now())).unwrap_err();
    assert_eq!((delay.bucket.limit, delay.until), (LimitName::NewOrders, after(11)));
    assert!("letsencript".parse::<Limits>().unwrap_err().to_string().contains("expected `letsencrypt`"));
}

#[test]
fn those_that_wait_are_told_different_instants_and_none_waits_for_years() {
    let mut account = Account::default();
    let shop = |number: usize| format!("shop-{number}.platform.example");
    for number in 0..50 {
        let at = if number < 49 { now() } else { after(60) };
        account.order(OrderKind::New, &[&shop(number)], at).unwrap();
    }
    let interval = 7 * 24 * 3600 / 50;
    let mut told: Vec<i64> =
        (50..60).map(|number| delayed(account.order(OrderKind::New, &[&shop(number)], now())).1).collect();
    let told_last = told.split_off(7);
    assert_eq!(told, (1..=7).map(|n| n * interval + 60).collect::<Vec<_>>());
    assert_eq!(told_last, [24 * 3600; 3], "a day at most: limits may be raised");
    // Who comes back at the time has the room, and the next one after it.
    account.order(OrderKind::New, &[&shop(50)], after(interval + 60)).unwrap();
    account.order(OrderKind::New, &[&shop(51)], after(interval + 60)).unwrap_err();
    account.order(OrderKind::New, &[&shop(51)], after(2 * interval + 60)).unwrap();
}

#[test]
fn lanes_that_wait_share_new_orders_by_weight_and_one_that_is_alone_has_all() {
    let mut account = Account::default();
    let mut number = 0;
    let mut order = |account: &mut Account, lane: Lane, at: i64| {
        number += 1;
        account.order_in(lane, OrderKind::New, &[&format!("shop.site-{number}.example")], after(at))
    };
    // Nobody else waits: the least lane takes all that there is.
    (0..298).for_each(|_| drop(order(&mut account, Lane::Backfill, 0).unwrap()));
    assert_eq!(delayed(order(&mut account, Lane::Backfill, 0)), (LimitName::NewOrders, 24));
    // Now all lanes have more to do than there is room for. Each site comes back when it was told to.
    let mut agenda: BTreeMap<(i64, usize), Lane> = BTreeMap::new();
    for (n, lane) in Lane::ALL.into_iter().enumerate() {
        agenda.extend((0..20).map(|site| ((0, site * Lane::ALL.len() + n), lane)));
    }
    let (mut granted, mut next, mut asked) = (BTreeMap::<Lane, u32>::new(), 1_000, 0);
    while let Some(((at, _), lane)) = agenda.pop_first() {
        if at > 2_000 * 36 {
            break;
        }
        asked += 1;
        next += 1;
        match order(&mut account, lane, at) {
            Ok(_) => {
                *granted.entry(lane).or_default() += 1;
                // Another site of the lane takes its place.
                agenda.insert((at, next), lane);
            }
            Err(delay) => {
                let until = delay.until.duration_since(now());
                let until = until.as_secs() + i64::from(until.subsec_nanos() > 0);
                assert!(until > at);
                agenda.insert((until, next), lane);
            }
        }
    }
    let all: u32 = granted.values().sum();
    assert!(all > 1_950, "{all} of 2,000 were used: {granted:?}");
    for lane in Lane::ALL {
        let part = f64::from(granted[&lane]) / f64::from(all);
        let due = f64::from(lane.weight()) / 70.0;
        assert!(part > 0.8 * due, "{lane:?} has {part:.3} of all, and {due:.3} is due: {granted:?}");
    }
    assert!(asked < 40_000, "sites come back in vain: {asked} questions for {all} orders");
}

#[test]
fn limits_that_no_bucket_can_hold_are_refused() {
    let second = SignedDuration::from_secs(1);
    for (burst, count, period) in [(0, 1, second), (1, 0, second), (1, 1, -second), (1, u32::MAX, second)] {
        assert_eq!(Limit::new(burst, count, period), None, "{burst} {count} {period}");
    }
    assert_eq!(Limit::new(u32::MAX, 1, SignedDuration::MAX), None);
    assert_eq!(Limit::new(1_000_000, 1, SignedDuration::from_hours(24)), None, "2,700 years");
}

proptest! {
    /// Whatever is asked for when: what is granted is never more than a burst, and one more for each interval that passed.
    #[test]
    fn no_more_is_granted_than_the_limit_says(
        burst in 1u32..50, count in 1u32..50, seconds in 1i64..10_000, pauses in prop::collection::vec(0i64..500, 1..300),
    ) {
        let limit = Limit::new(burst, count, SignedDuration::from_secs(seconds)).unwrap();
        let (mut instant, mut at, mut granted) = (None, now(), 0u32);
        for pause in pauses {
            at += SignedDuration::from_secs(pause);
            let left = limit.left(instant, at);
            match limit.take(instant, at) {
                Ok(after) => {
                    prop_assert!(left > 0);
                    (instant, granted) = (Some(after), granted + 1);
                    prop_assert_eq!(limit.left(Some(limit.give_back(after, at)), at), left);
                }
                Err(until) => {
                    prop_assert!(left == 0 && until > at);
                    prop_assert!(limit.take(instant, until).is_ok(), "there is room when it said");
                    let before = until - SignedDuration::from_nanos(1);
                    prop_assert!(limit.take(instant, before).is_err());
                }
            }
            let passed = at.duration_since(now()).as_nanos() / limit.interval().as_nanos();
            prop_assert!(i128::from(granted) <= i128::from(burst) + passed);
        }
    }

    /// A clock that goes back makes a bucket no fuller than it was.
    #[test]
    fn a_clock_that_jumps_back_grants_nothing_twice(burst in 1u32..20, back in 1i64..100_000) {
        let limit = Limit::new(burst, 1, SignedDuration::from_secs(60)).unwrap();
        let mut instant = None;
        for _ in 0..burst {
            instant = Some(limit.take(instant, now()).unwrap());
        }
        prop_assert!(limit.take(instant, now() - SignedDuration::from_secs(back)).is_err());
    }
}
