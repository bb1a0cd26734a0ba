//! A twin of Boulder: it decides about orders as Let's Encrypt's CA does, by rules written down here once more and not shared
//! with certman's own (`ratelimits` and `wfe2` of Boulder, 2026-08).

use std::collections::HashMap;

use crate::{
    chance::Mixing,
    scenario::{Scenario, ScenarioError},
};

/// One limit: nanoseconds from one piece of room to the next, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    emission: i128,
    burst: i128,
}

/// The limits that the twin enforces; none for one that it has not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TwinLimits {
    new_orders: Option<Rate>,
    per_domain: Option<Rate>,
    per_set: Option<Rate>,
    failures: Option<Rate>,
    in_a_row: Option<Rate>,
}

impl TwinLimits {
    /// Let's Encrypt's (docs/rate-limits, 2026-08).
    pub fn letsencrypt() -> Self {
        let (hour, day) = (3600, 86_400);
        Self {
            new_orders: rate(300, 300, 3 * hour),
            per_domain: rate(50, 50, 7 * day),
            per_set: rate(5, 5, 7 * day),
            failures: rate(5, 5, hour),
            in_a_row: rate(1152, 1, day),
        }
    }

    /// Those of its staging environment (docs/staging-environment, 2026-09).
    pub fn letsencrypt_staging() -> Self {
        let (hour, day) = (3600, 86_400);
        Self {
            new_orders: rate(1500, 1500, 3 * hour),
            per_domain: None,
            per_set: rate(30_000, 30_000, 7 * day),
            failures: rate(200, 200, hour),
            in_a_row: rate(3600, 3600, 6 * hour),
        }
    }

    /// The limits of a scenario's CA.
    ///
    /// # Errors
    /// When there is no such preset.
    pub fn of(scenario: &Scenario) -> Result<Self, ScenarioError> {
        let mut limits = match scenario.limits.as_str() {
            "letsencrypt" => Self::letsencrypt(),
            "letsencrypt-staging" => Self::letsencrypt_staging(),
            "unlimited" => Self::default(),
            other => return Err(ScenarioError(format!("limits: {other:?} is none that the twin knows"))),
        };
        for (name, limit) in &scenario.overrides {
            let rate = rate(limit.burst, limit.count, limit.period_seconds);
            match name.as_str() {
                "new_orders" => limits.new_orders = rate,
                "certificates_per_domain" => limits.per_domain = rate,
                "certificates_per_name_set" => limits.per_set = rate,
                "failed_validations" => limits.failures = rate,
                _ => limits.in_a_row = rate,
            }
        }
        Ok(limits)
    }
}

fn rate(burst: u32, count: u32, seconds: u32) -> Option<Rate> {
    Some(Rate { emission: i128::from(seconds) * 1_000_000_000 / i128::from(count.max(1)), burst: burst.into() })
}

/// The answer to a new order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The CA has it.
    Placed(Placed),
    /// A limit is exceeded: this one.
    Limited(&'static str),
    /// The certificate that it says to replace has a replacement.
    AlreadyReplaced,
    /// Validation of the name failed so often that a person has to go to a web page.
    Paused,
}

/// A certificate that an order says to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// The set of names that it was issued for.
    pub set: u32,
    /// Its serial number.
    pub serial: u64,
}

/// An order that the CA has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    domain: u32,
    set: u32,
    /// A certificate of a known set takes no room of its domain.
    is_known_set: bool,
    replaces: Option<Replaced>,
}

/// A certificate that the CA issued.
#[derive(Debug, Clone, Copy)]
struct Issued {
    serial: u64,
    at: i64,
    window: (i64, i64),
    /// The certificate that it replaced.
    replaces: Option<Replaced>,
    /// A certificate of another set replaced it.
    is_replaced: bool,
}

/// A bucket: the theoretical arrival time of the next one, in nanoseconds.
type Arrival = i128;

/// A set of names.
#[derive(Debug, Clone, Copy, Default)]
struct OfSet {
    certificates: Arrival,
    failures: Arrival,
    in_a_row: Arrival,
    /// The newest certificate.
    issued: Option<Issued>,
}

/// The CA. Instants are milliseconds; domains and sets of names have numbers.
#[derive(Debug, Clone, Default)]
pub struct Twin {
    limits: TwinLimits,
    orders: Arrival,
    domains: HashMap<u32, Arrival, Mixing>,
    /// By their numbers, which leave few out.
    sets: Vec<OfSet>,
    serials: u64,
}

impl Twin {
    /// A CA that has issued nothing.
    pub fn new(limits: TwinLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes an order or refuses it (`wfe2.NewOrder`). `shares_name` says whether it has a name of what it replaces.
    pub fn new_order(
        &mut self,
        domain: u32,
        set: u32,
        replaces: Option<Replaced>,
        shares_name: bool,
        now: i64,
    ) -> Answer {
        let known = self.sets.get(set as usize).copied().unwrap_or_default();
        let newest = replaces.and_then(|replaced| self.issued(replaced.set));
        // Before anything else; also before it looks whether it has the order already.
        if newest.is_some_and(|newest| newest.is_replaced || newest.replaces == replaces) {
            return Answer::AlreadyReplaced;
        }
        let replaced = newest.filter(|newest| replaces.is_some_and(|replaced| replaced.serial == newest.serial));
        let in_window = replaced.is_some_and(|issued| (issued.window.0..issued.window.1).contains(&now));
        let is_known_set = known.issued.is_some_and(|issued| now - issued.at < 120 * DAY);
        if in_window && shares_name {
            return Answer::Placed(Placed { domain, set, is_known_set, replaces });
        }
        if self.limits.in_a_row.is_some_and(|rate| !has_room(rate, known.in_a_row, now)) {
            return Answer::Paused;
        }
        let checks = [
            ("failed_validations", self.limits.failures, known.failures),
            ("certificates_per_name_set", self.limits.per_set, known.certificates),
        ];
        let of_new = [
            ("certificates_per_domain", self.limits.per_domain, self.domains.get(&domain).copied().unwrap_or_default()),
            ("new_orders", self.limits.new_orders, self.orders),
        ];
        let asked = checks.into_iter().chain(of_new.into_iter().filter(|_| !is_known_set));
        for (name, rate, arrival) in asked {
            if rate.is_some_and(|rate| !has_room(rate, arrival, now)) {
                return Answer::Limited(name);
            }
        }
        if !is_known_set {
            // Orders are counted at once, certificates when they are issued.
            self.orders = self.limits.new_orders.map_or(0, |rate| taken(rate, self.orders, now));
        }
        Answer::Placed(Placed { domain, set, is_known_set, replaces })
    }

    /// Issues the certificate of an order. Answers its serial number.
    pub fn issue(&mut self, order: Placed, lifetime: i64, now: i64) -> u64 {
        let Placed { domain, set, is_known_set, replaces } = order;
        if let Some(rate) = self.limits.per_domain.filter(|_| !is_known_set) {
            spend(self.domains.entry(domain).or_default(), rate, now);
        }
        self.serials += 1;
        // Centred at two thirds of the lifetime, at half of it where that is below ten days; 2 % wide.
        let centre = if lifetime < 10 * DAY { lifetime / 2 } else { lifetime * 2 / 3 };
        let window = (now + centre - lifetime / 100, now + centre + lifetime / 100);
        let before = replaces.filter(|replaced| replaced.set != set).and_then(|it| self.sets.get_mut(it.set as usize));
        let before = before.and_then(|before| before.issued.as_mut());
        before.into_iter().for_each(|before| before.is_replaced = true);
        let (serial, per_set) = (self.serials, self.limits.per_set);
        let of_set = self.set_mut(set);
        if let Some(rate) = per_set {
            spend(&mut of_set.certificates, rate, now);
        }
        of_set.in_a_row = 0;
        of_set.issued = Some(Issued { serial, at: now, window, replaces, is_replaced: false });
        serial
    }

    /// A validation of the only name of a set failed.
    pub fn fail(&mut self, set: u32, now: i64) {
        let (failures, in_a_row) = (self.limits.failures, self.limits.in_a_row);
        let of_set = self.set_mut(set);
        if let Some(rate) = failures {
            spend(&mut of_set.failures, rate, now);
        }
        if let Some(rate) = in_a_row {
            spend(&mut of_set.in_a_row, rate, now);
        }
    }

    /// When it wants the set's newest certificate to be renewed.
    pub fn window(&self, set: u32) -> Option<(i64, i64)> {
        self.issued(set).map(|issued| issued.window)
    }

    fn set_mut(&mut self, set: u32) -> &mut OfSet {
        let index = set as usize;
        if index >= self.sets.len() {
            self.sets.resize(index + 1, OfSet::default());
        }
        &mut self.sets[index]
    }

    fn issued(&self, set: u32) -> Option<Issued> {
        self.sets.get(set as usize)?.issued
    }

    /// Says that a set's newest certificate will be revoked: its window lies in the past on purpose.
    pub fn will_revoke(&mut self, set: u32, now: i64) {
        if let Some(issued) = self.sets.get_mut(set as usize).and_then(|of_set| of_set.issued.as_mut()) {
            issued.window = (now - 2 * HOUR, now - HOUR);
        }
    }

    /// Forgets domains whose arrivals have passed.
    pub fn forget(&mut self, now: i64) {
        let now = nanoseconds(now);
        self.domains.retain(|_, arrival| *arrival > now);
    }
}

/// Whether a bucket has room (`ratelimits/gcra.go`): one theoretical arrival time.
fn has_room(rate: Rate, arrival: Arrival, now: i64) -> bool {
    let now = nanoseconds(now);
    let next = arrival.max(now) + rate.emission;
    next - rate.emission * rate.burst <= now
}

fn taken(rate: Rate, arrival: Arrival, now: i64) -> Arrival {
    arrival.max(nanoseconds(now)) + rate.emission
}

/// Takes from a bucket, full or not: a full one stays as it is.
fn spend(arrival: &mut Arrival, rate: Rate, now: i64) {
    if has_room(rate, *arrival, now) {
        *arrival = taken(rate, *arrival, now);
    }
}

fn nanoseconds(milliseconds: i64) -> i128 {
    i128::from(milliseconds) * 1_000_000
}

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1000;

    fn twin() -> Twin {
        Twin::new(TwinLimits::letsencrypt())
    }

    fn order(twin: &mut Twin, domain: u32, set: u32, now: i64) -> Placed {
        match twin.new_order(domain, set, None, false, now) {
            Answer::Placed(placed) => placed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn new_orders_are_three_hundred_at_once_and_one_in_thirty_six_seconds() {
        let mut twin = twin();
        for n in 0..300 {
            order(&mut twin, n, n, 0);
        }
        assert_eq!(twin.new_order(300, 300, None, false, 35 * SECOND), Answer::Limited("new_orders"));
        order(&mut twin, 300, 300, 36 * SECOND);
        assert_eq!(twin.new_order(301, 301, None, false, 36 * SECOND), Answer::Limited("new_orders"));
    }

    #[test]
    fn certificates_of_a_domain_count_when_they_are_issued_and_not_for_a_known_set() {
        let mut twin = twin();
        let placed: Vec<_> = (0..50).map(|n| order(&mut twin, 7, n, 0)).collect();
        order(&mut twin, 7, 50, 0);
        for placed in placed {
            twin.issue(placed, 90 * DAY, 0);
        }
        assert_eq!(twin.new_order(7, 51, None, false, 0), Answer::Limited("certificates_per_domain"));
        let again = order(&mut twin, 7, 3, DAY);
        twin.issue(again, 90 * DAY, DAY);
        // A day and a bit gives seven.
        (60..67).for_each(|set| {
            let placed = order(&mut twin, 7, set, DAY);
            twin.issue(placed, 90 * DAY, DAY);
        });
        assert_eq!(twin.new_order(7, 70, None, false, DAY), Answer::Limited("certificates_per_domain"));
    }

    #[test]
    fn the_same_set_has_five_certificates_in_a_week() {
        let mut twin = twin();
        for _ in 0..5 {
            let placed = order(&mut twin, 1, 1, 0);
            twin.issue(placed, 90 * DAY, 0);
        }
        assert_eq!(twin.new_order(1, 1, None, false, 0), Answer::Limited("certificates_per_name_set"));
        order(&mut twin, 1, 1, 7 * DAY / 5);
        // A set is known for 120 days.
        for n in 100..400 {
            order(&mut twin, n, n, 8 * DAY);
        }
        order(&mut twin, 1, 1, 8 * DAY);
        assert_eq!(twin.new_order(2, 2, None, false, 8 * DAY), Answer::Limited("new_orders"));
    }

    #[test]
    fn a_replacement_is_free_within_its_window_only_and_one_certificate_has_one() {
        let mut twin = twin();
        let placed = order(&mut twin, 1, 1, 0);
        let serial = twin.issue(placed, 90 * DAY, 0);
        let (start, end) = twin.window(1).unwrap();
        assert_eq!((start / DAY, end / DAY), (59, 60));
        for n in 1000..1300 {
            order(&mut twin, n, n, start);
        }
        let Answer::Placed(placed) = twin.new_order(1, 1, Some(Replaced { set: 1, serial }), true, start) else {
            panic!()
        };
        twin.issue(placed, 90 * DAY, start);
        assert_eq!(twin.new_order(1, 1, Some(Replaced { set: 1, serial }), true, start), Answer::AlreadyReplaced);
        // The one of an incident is not free, but its set is known.
        let mut incident = self::twin();
        let placed = order(&mut incident, 1, 1, 0);
        let serial = incident.issue(placed, 90 * DAY, 0);
        incident.will_revoke(1, DAY);
        for _ in 0..4 {
            let Answer::Placed(placed) = incident.new_order(1, 1, None, true, DAY) else { panic!() };
            incident.issue(placed, 90 * DAY, DAY);
        }
        let refused = incident.new_order(1, 1, Some(Replaced { set: 1, serial }), true, DAY);
        assert_eq!(refused, Answer::Limited("certificates_per_name_set"));
    }

    #[test]
    fn failures_close_a_name_for_a_while_and_in_a_row_for_good() {
        let mut twin = twin();
        (0..5).for_each(|_| twin.fail(1, 0));
        assert_eq!(twin.new_order(1, 1, None, false, 0), Answer::Limited("failed_validations"));
        order(&mut twin, 1, 1, 12 * 60 * SECOND);
        (0..1152).for_each(|_| twin.fail(2, 0));
        assert_eq!(twin.new_order(2, 2, None, false, HOUR), Answer::Paused);
    }

    #[test]
    fn other_names_are_a_new_order_but_in_the_window_where_one_name_is_enough() {
        let mut twin = twin();
        let placed = order(&mut twin, 1, 1, 0);
        let serial = twin.issue(placed, 90 * DAY, 0);
        let (start, end) = twin.window(1).unwrap();
        let replaced = Some(Replaced { set: 1, serial });
        // All room for new orders is gone at both instants.
        (1000..1300).for_each(|n| _ = order(&mut twin, n, n, start - 1));
        assert_eq!(twin.new_order(1, 2, replaced, true, start - 1), Answer::Limited("new_orders"), "before the window");
        assert_eq!(
            twin.new_order(1, 2, replaced, false, start),
            Answer::Limited("new_orders"),
            "without a shared name"
        );
        let Answer::Placed(placed) = twin.new_order(1, 2, replaced, true, start) else { panic!() };
        twin.issue(placed, 90 * DAY, start);
        assert_eq!(twin.new_order(1, 1, replaced, true, start), Answer::AlreadyReplaced);
        assert_eq!(twin.new_order(1, 3, replaced, true, start), Answer::AlreadyReplaced);
        (2000..2300).for_each(|n| _ = twin.new_order(n, n, None, false, end));
        let other = Some(Replaced { set: 2, serial: serial + 1 });
        assert_eq!(twin.new_order(1, 4, other, true, end), Answer::Limited("new_orders"), "that one's window is later");
    }

    #[test]
    fn the_window_lies_at_two_thirds_and_of_short_certificates_at_half() {
        let mut twin = twin();
        for (set, lifetime, centre) in [(1, 90 * DAY, 60 * DAY), (2, 160 * HOUR, 80 * HOUR)] {
            let placed = order(&mut twin, set, set, 0);
            twin.issue(placed, lifetime, 0);
            let (start, end) = twin.window(set).unwrap();
            assert_eq!((start + end) / 2, centre);
            assert_eq!(end - start, lifetime / 50);
        }
    }

    #[test]
    fn a_success_ends_failures_in_a_row_and_a_day_gives_one_back() {
        let mut twin = twin();
        (0..1152).for_each(|_| twin.fail(1, 0));
        assert_eq!(twin.new_order(1, 1, None, false, 23 * HOUR), Answer::Paused);
        let placed = order(&mut twin, 1, 1, DAY);
        twin.fail(1, DAY);
        assert_eq!(twin.new_order(1, 1, None, false, DAY), Answer::Paused);
        twin.issue(placed, 90 * DAY, DAY);
        (0..1151).for_each(|_| twin.fail(1, 2 * DAY));
        order(&mut twin, 1, 1, 2 * DAY + HOUR);
    }

    #[test]
    fn an_order_without_a_certificate_takes_from_new_orders_alone() {
        let mut twin = twin();
        // Of one domain and one set, more often than either allows certificates.
        (0..61).for_each(|_| _ = order(&mut twin, 1, 1, 0));
        (61..300).for_each(|n| _ = order(&mut twin, n, n, 0));
        assert_eq!(twin.new_order(9, 9, None, false, 0), Answer::Limited("new_orders"));
    }

    #[test]
    fn an_override_and_the_staging_environment_count_as_they_say() {
        let one = crate::Override { burst: 2, count: 1, period_seconds: 60 };
        let overrides = [(certseal_issuance::budget::LimitName::NewOrders, one)].into();
        let scenario = Scenario { overrides, ..Scenario::default() };
        let mut twin = Twin::new(TwinLimits::of(&scenario).unwrap());
        (1..3).for_each(|n| _ = order(&mut twin, n, n, 0));
        assert_eq!(twin.new_order(3, 3, None, false, 59 * SECOND), Answer::Limited("new_orders"));
        order(&mut twin, 3, 3, 60 * SECOND);
        let mut staging = Twin::new(TwinLimits::letsencrypt_staging());
        (0..1500).for_each(|n| _ = order(&mut staging, 1, n, 0));
        assert_eq!(staging.new_order(1, 1500, None, false, 0), Answer::Limited("new_orders"));
        order(&mut staging, 1, 1500, 7200);
    }
}
