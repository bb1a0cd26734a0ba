use std::collections::HashMap;

use certseal_wire::{DnsName, NameSet};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

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

/// An account's buckets, with Let's Encrypt's limits.
#[derive(Default)]
struct Account {
    instants: HashMap<Bucket, Timestamp>,
}

impl Account {
    fn order(&mut self, kind: OrderKind, set: &[&str], at: Timestamp) -> Result<(), Delay> {
        let cost = order_cost(kind, &names(set), registered);
        let granted = grant(&cost, &Limits::letsencrypt(), |bucket| self.instants.get(bucket).copied(), at)?;
        self.instants.extend(granted.0);
        let after = charge(&cost.afterwards, &Limits::letsencrypt(), |bucket| self.instants.get(bucket).copied(), at);
        self.instants.extend(after.0);
        Ok(())
    }

    fn fail(&mut self, name: &str, at: Timestamp) {
        let buckets = failure_cost(&name.parse().unwrap());
        let taken = charge(&buckets, &Limits::letsencrypt(), |bucket| self.instants.get(bucket).copied(), at);
        self.instants.extend(taken.0);
    }

    fn left(&self, limit: LimitName, subject: &str, at: Timestamp) -> u32 {
        let bucket = Bucket { limit, subject: subject.into() };
        Limits::letsencrypt().get(limit).unwrap().left(self.instants.get(&bucket).copied(), at)
    }
}

fn delayed(outcome: Result<(), Delay>) -> (LimitName, i64) {
    let delay = outcome.unwrap_err();
    (delay.bucket.limit, delay.until.duration_since(now()).as_secs())
}

#[test]
fn three_hundred_orders_at_once_and_then_one_in_thirty_six_seconds() {
    let mut account = Account::default();
    for number in 0..300 {
        account.order(OrderKind::New, &[&format!("shop.site-{number}.example")], now()).unwrap();
    }
    assert_eq!(delayed(account.order(OrderKind::New, &["another.example"], now())), (LimitName::NewOrders, 36));
    assert_eq!(account.left(LimitName::NewOrders, "", now()), 0);
    account.order(OrderKind::New, &["another.example"], after(36)).unwrap();
    // A renewal of the same names is no new order.
    account.order(OrderKind::SameNames, &["shop.site-0.example"], after(36)).unwrap();
    assert_eq!(account.left(LimitName::NewOrders, "", after(10_800 + 36)), 300, "all is there again after three hours");
}

#[test]
fn fifty_certificates_for_a_registered_domain_in_a_week_and_renewals_besides() {
    let mut account = Account::default();
    for number in 0..50 {
        account.order(OrderKind::New, &[&format!("shop-{number}.platform.example")], now()).unwrap();
    }
    let week = 7 * 24 * 3600;
    let one_more = account.order(OrderKind::New, &["shop-50.platform.example", "a.other.example"], now());
    assert_eq!(delayed(one_more), (LimitName::CertificatesPerDomain, week / 50));
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
    for _ in 1..5 {
        account.order(OrderKind::SameNames, &["b.example", "a.example"], now()).unwrap();
    }
    let one_more = account.order(OrderKind::SameNames, &["a.example", "b.example"], now());
    assert_eq!(delayed(one_more), (LimitName::CertificatesPerNameSet, 7 * 24 * 3600 / 5));
    account.order(OrderKind::New, &["a.example"], now()).unwrap();
    // Within its window a replacement is asked of no bucket. Its certificate is counted where there is room.
    account.order(OrderKind::Replacement { same_names: true }, &["a.example", "b.example"], now()).unwrap();
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
    assert_eq!(delayed(order), (LimitName::FailedValidations, 12 * 60));
    account.order(OrderKind::New, &["fine.example"], now()).unwrap();
    account.order(OrderKind::New, &["broken.example"], after(12 * 60)).unwrap();
    account.fail("broken.example", after(12 * 60));
    assert_eq!(account.left(LimitName::ConsecutiveFailures, "broken.example", now()), 1152 - 6);
    for bucket in success_resets(&"broken.example".parse().unwrap()) {
        account.instants.remove(&bucket);
    }
    assert_eq!(account.left(LimitName::ConsecutiveFailures, "broken.example", now()), 1152);
    assert_eq!(account.left(LimitName::FailedValidations, "broken.example", after(12 * 60)), 0, "the hour goes on");
}

#[test]
fn an_order_without_a_certificate_gives_back_what_the_certificate_would_have_taken() {
    let mut account = Account::default();
    account.order(OrderKind::New, &["a.x.example"], now()).unwrap();
    let cost = order_cost(OrderKind::New, &names(&["a.x.example"]), registered);
    let instant = |bucket: &Bucket| account.instants.get(bucket).copied();
    let back = refund(&cost.certificate, &Limits::letsencrypt(), instant, after(5));
    account.instants.extend(back.0);
    assert_eq!(account.left(LimitName::CertificatesPerDomain, "x.example", after(5)), 50);
    assert_eq!(account.left(LimitName::CertificatesPerNameSet, "a.x.example", after(5)), 5);
    assert_eq!(account.left(LimitName::NewOrders, "", after(5)), 299, "the order was placed");
}

#[test]
fn a_ca_without_limits_delays_nothing_and_an_override_counts() {
    let cost = order_cost(OrderKind::New, &names(&["a.example"]), registered);
    assert_eq!(grant(&cost, &Limits::unlimited(), |_| Some(Timestamp::MAX), now()), Ok(Grant::default()));
    let one = Limit::new(1, 1, SignedDuration::from_secs(10)).unwrap();
    let limits = "letsencrypt".parse::<Limits>().unwrap().with(LimitName::NewOrders, one);
    let taken = grant(&cost, &limits, |_| None, now()).unwrap();
    let delay = grant(&cost, &limits, |bucket| taken.0.get(bucket).copied(), now()).unwrap_err();
    assert_eq!((delay.bucket.limit, delay.until), (LimitName::NewOrders, after(10)));
    assert!("letsencript".parse::<Limits>().unwrap_err().to_string().contains("expected `letsencrypt`"));
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
