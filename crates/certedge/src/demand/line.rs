//! Names that wait to be asked for: each domain and each visitor's network has a part of the calls, so that one whose answers are slow
//! holds up itself.

use std::{collections::VecDeque, net::IpAddr};

use certseal_service::shares::{Share, Shares};
use certseal_wire::DnsName;

use super::gate::last_two_labels;

/// Names in the order in which they came. [`super::gate::Gate`] bounds their number.
#[derive(Default)]
pub(super) struct Line {
    waiting: VecDeque<Wanted>,
    domains: Shares<String>,
    networks: Shares<IpAddr>,
}

/// A name, and the network of the visitor who wants it.
pub(super) struct Wanted {
    pub(super) name: DnsName,
    pub(super) network: IpAddr,
}

/// A name that is to be asked for. Its parts of the calls are free again when it is dropped.
pub(super) struct Call {
    pub(super) name: DnsName,
    _shares: (Share<String>, Share<IpAddr>),
}

impl Line {
    pub(super) fn push(&mut self, wanted: Wanted) {
        self.waiting.push_back(wanted);
    }

    /// Begins the call for the first name that may be asked for now.
    pub(super) fn begin(&mut self) -> Option<Call> {
        let shares = |wanted: &Wanted| {
            let domain = self.domains.take(last_two_labels(&wanted.name).to_owned(), 1, OF_A_DOMAIN)?;
            Some((domain, self.networks.take(wanted.network, 1, OF_A_NETWORK)?))
        };
        let (place, shares) = self.waiting.iter().enumerate().find_map(|(place, it)| Some((place, shares(it)?)))?;
        let Wanted { name, .. } = self.waiting.remove(place)?;
        Some(Call { name, _shares: shares })
    }
}

/// Calls at one time.
pub(super) const CALLS: usize = 8;
/// How many of them are for the names of one domain, and for those that visitors of one network want.
const OF_A_DOMAIN: u64 = 2;
const OF_A_NETWORK: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, last: u8) -> Wanted {
        Wanted { name: name.parse().unwrap(), network: IpAddr::from([192, 0, 2, last]) }
    }

    /// All that may be asked for now, as names.
    fn begun(line: &mut Line) -> Vec<Call> {
        std::iter::from_fn(|| line.begin()).collect()
    }

    fn names(calls: &[Call]) -> Vec<&str> {
        calls.iter().map(|call| call.name.as_str()).collect()
    }

    #[test]
    fn a_domain_whose_answers_are_slow_holds_up_no_other() {
        let mut line = Line::default();
        (1..=20).for_each(|number| line.push(wanted(&format!("shop-{number}.slow.example"), number)));
        line.push(wanted("shop.quick.example", 21));
        let mut calls = begun(&mut line);
        assert_eq!(names(&calls), ["shop-1.slow.example", "shop-2.slow.example", "shop.quick.example"]);
        assert!(calls.len() < CALLS);
        drop(calls.remove(0));
        assert_eq!(names(&begun(&mut line)), ["shop-3.slow.example"]);
    }

    #[test]
    fn a_network_that_wants_many_names_leaves_calls_to_others() {
        let mut line = Line::default();
        (1..=20).for_each(|number| line.push(wanted(&format!("shop.{number}-x.example"), 1)));
        line.push(wanted("shop.other.example", 2));
        let calls = begun(&mut line);
        let first = ["shop.1-x.example", "shop.2-x.example", "shop.3-x.example", "shop.4-x.example"];
        assert_eq!(names(&calls), [&first[..], &["shop.other.example"]].concat());
        // A name whose network has its part takes none of its domain's.
        drop(calls);
        assert_eq!(begun(&mut line).len(), 4);
    }
}
