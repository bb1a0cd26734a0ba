//! Which names are asked for: the limits, and what was answered before. A clock is passed in.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use certseal_service::{buckets::Buckets, shares::network};
use certseal_wire::DnsName;

use crate::config::OnDemand as OnDemandConfig;

/// Keeps names back that were asked for already, and those of whom there are too many.
pub(crate) struct Gate {
    /// By the visitor's address, with IPv6 its /64.
    addresses: Buckets<IpAddr>,
    /// By the last two labels.
    domains: Buckets<String>,
    /// It bounds the memory of all the others: nothing is kept of a name that is not asked for.
    all: Buckets<()>,
    under_way: HashSet<DnsName>,
    answered: HashMap<DnsName, Instant>,
}

/// What becomes of a name that a visitor wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ask,
    /// It is being asked for, or was a while ago.
    AskedBefore,
    /// Too many were asked for.
    Limited,
}

impl Gate {
    pub(crate) fn new(config: &OnDemandConfig) -> Self {
        Self {
            addresses: Buckets::new(config.per_address, MINUTE),
            domains: Buckets::new(config.per_domain, MINUTE),
            all: Buckets::new(config.in_all, MINUTE),
            under_way: HashSet::new(),
            answered: HashMap::new(),
        }
    }

    /// A visitor from `address` wants `name`. If it is to be asked for, it is under way from now on.
    pub(crate) fn meet(&mut self, name: &DnsName, address: IpAddr, now: Instant) -> Verdict {
        if self.under_way.contains(name) || self.answered.get(name).is_some_and(|until| *until > now) {
            return Verdict::AskedBefore;
        }
        let (network, domain) = (network(address), last_two_labels(name));
        let waits = [self.all.wait(&(), now), self.addresses.wait(&network, now), self.domains.wait(domain, now)];
        if self.under_way.len() >= MOST_UNDER_WAY || waits.iter().any(|wait| !wait.is_zero()) {
            return Verdict::Limited;
        }
        self.all.take((), now);
        self.addresses.take(network, now);
        self.domains.take(domain.to_owned(), now);
        self.under_way.insert(name.clone());
        Verdict::Ask
    }

    /// A name has its answer, and is not asked for again for a while.
    pub(crate) fn answered(&mut self, name: DnsName, now: Instant, keep: Duration) {
        self.under_way.remove(&name);
        if self.answered.len() >= MOST_ANSWERED {
            self.answered.retain(|_, until| *until > now);
        }
        // One that is not remembered is asked for again, within the same limits.
        if self.answered.len() < MOST_ANSWERED {
            self.answered.insert(name, now + keep);
        }
    }
}

/// The registered domain, as far as it can be told without the public suffix list, which an edge does not have: of names below
/// `co.uk` it is `co.uk`, so that they share what one domain gets.
pub(super) fn last_two_labels(name: &DnsName) -> &str {
    let mut dots = name.as_str().rmatch_indices('.').skip(1);
    dots.next().map_or(name.as_str(), |(dot, _)| &name.as_str()[dot + 1..])
}

const MINUTE: Duration = Duration::from_secs(60);
/// Names that wait for their answers.
pub(crate) const MOST_UNDER_WAY: usize = 1_000;
/// Names whose answers are remembered.
const MOST_ANSWERED: usize = 100_000;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn gate(per_address: u32, per_domain: u32, in_all: u32) -> Gate {
        let count = |count| NonZeroU32::new(count).unwrap();
        Gate {
            addresses: Buckets::new(count(per_address), MINUTE),
            domains: Buckets::new(count(per_domain), MINUTE),
            all: Buckets::new(count(in_all), MINUTE),
            under_way: HashSet::new(),
            answered: HashMap::new(),
        }
    }

    fn name(text: &str) -> DnsName {
        text.parse().unwrap()
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_name_is_asked_for_once_until_its_answer_is_old() {
        let (mut gate, now) = (gate(10, 10, 10), Instant::now());
        let (shop, keep) = (name("shop.example.com"), Duration::from_secs(300));
        assert_eq!(gate.meet(&shop, address(1), now), Verdict::Ask);
        assert_eq!(gate.meet(&shop, address(2), now), Verdict::AskedBefore, "it is under way");
        gate.answered(shop.clone(), now, keep);
        assert_eq!(gate.meet(&shop, address(2), now + keep / 2), Verdict::AskedBefore);
        assert_eq!(gate.meet(&shop, address(2), now + keep), Verdict::Ask);
    }

    #[test]
    fn an_address_a_domain_and_all_together_have_their_limits() {
        let now = Instant::now();
        let mut by_address = gate(2, 100, 100);
        let mut meet = |number: u32, from: IpAddr, now| by_address.meet(&name(&format!("{number}.example")), from, now);
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        let seen = [meet(1, address(1), now), meet(2, address(1), now), meet(3, address(1), now)];
        assert_eq!(seen, [Verdict::Ask, Verdict::Ask, Verdict::Limited]);
        assert_eq!(meet(3, address(2), now), Verdict::Ask, "another address has its own");
        assert_eq!(meet(4, address(1), now + MINUTE / 2), Verdict::Ask);
        let seen =
            [meet(5, v6("2001:db8::1"), now), meet(6, v6("2001:db8::2:2"), now), meet(7, v6("2001:db8::3"), now)];
        assert_eq!(seen, [Verdict::Ask, Verdict::Ask, Verdict::Limited], "they are of the same /64");
        assert_eq!(meet(7, v6("2001:db8:0:1::3"), now), Verdict::Ask);

        let mut by_domain = gate(100, 2, 100);
        let mut meet = |text: &str| by_domain.meet(&name(text), address(1), now);
        let seen = ["a.example.com", "b.example.com", "example.com", "a.example.net"].map(&mut meet);
        assert_eq!(seen, [Verdict::Ask, Verdict::Ask, Verdict::Limited, Verdict::Ask]);

        let mut in_all = gate(100, 100, 3);
        let seen = [1, 2, 3, 4].map(|n| in_all.meet(&name(&format!("a.{n}-x.example")), address(n), now));
        assert_eq!(seen, [Verdict::Ask, Verdict::Ask, Verdict::Ask, Verdict::Limited]);
    }

    #[test]
    fn a_flood_from_everywhere_costs_no_memory() {
        let (mut gate, mut now) = (gate(10, 60, 600), Instant::now());
        let mut asked = 0;
        for number in 0..300_000_u32 {
            now += Duration::from_micros(100);
            let from = IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::from(number) << 64));
            let name = name(&format!("a.{number}x.example"));
            if gate.meet(&name, from, now) == Verdict::Ask {
                asked += 1;
                gate.answered(name, now, Duration::from_secs(300));
            }
        }
        // Half a minute's worth came back meanwhile.
        assert!((600..=901).contains(&asked), "{asked}");
        assert!(gate.addresses.len() <= asked && gate.answered.len() <= asked && gate.under_way.is_empty());
    }

    #[test]
    fn names_that_nobody_answers_are_bounded() {
        let (mut gate, now) = (gate(1_000_000, 1_000_000, 1_000_000), Instant::now());
        let verdicts = (0..2 * MOST_UNDER_WAY).map(|n| gate.meet(&name(&format!("{n}.example.com")), address(1), now));
        assert_eq!(verdicts.filter(|verdict| *verdict == Verdict::Ask).count(), MOST_UNDER_WAY);
    }
}
