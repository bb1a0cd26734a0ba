//! Bounds on what may be under way: in total, for one address and for one site, so that neither a visitor nor the
//! visitors of a site take the others' share.

use std::net::IpAddr;

use anyhow::ensure;
use certseal_service::{
    require_files,
    server::STREAM_BYTES,
    shares::{Share, Shares},
};
use certseal_wire::DnsName;
use prometheus_client::encoding::EncodeLabelValue;

use crate::config::Limits;

/// The bounds of requests, of their memory, and of upgraded connections.
pub(crate) struct Admission {
    pub(crate) requests: Bound,
    /// In octets.
    pub(crate) memory: Bound,
    pub(crate) upgrades: Bound,
}

/// Whether the limits can be kept: by the system, and with each other.
///
/// # Errors
/// Says what does not fit.
pub(crate) fn check(limits: &Limits) -> anyhow::Result<()> {
    let share = Admission::new(limits).memory.smallest_share();
    ensure!(
        share >= LARGEST_REQUEST,
        "expected `memory` in [limits] to give each address and site room for one request, {LARGEST_REQUEST} octets; got \
         {share} for the part that `requests_per_address` or `requests_per_site` is of `requests`: raise one of them"
    );
    let sockets = [limits.connections, limits.connections, limits.requests, limits.upgrades];
    let needed = sockets.iter().fold(0_u64, |sum, count| sum.saturating_add(*count as u64));
    require_files(needed, "`connections` for each of two ports, `requests` and `upgrades` to upstreams")?;
    Ok(())
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let all = limits.requests as u64;
        let [address, site] = [limits.requests_per_address as u64, limits.requests_per_site as u64];
        let bound = |total, of_address, of_site| Bound {
            limits: [total, of_address, of_site],
            all: Shares::default(),
            addresses: Shares::default(),
            sites: Shares::default(),
        };
        let (memory, upgrades) = (limits.memory, limits.upgrades as u64);
        Self {
            requests: bound(all, address, site),
            memory: bound(memory, part(memory, address, all), part(memory, site, all)),
            // An address's connections are bounded, upgraded ones among them.
            upgrades: bound(upgrades, upgrades, part(upgrades, site, all)),
        }
    }
}

/// As much of `total` as `share` is of `all`; at least something where there is anything.
fn part(total: u64, share: u64, all: u64) -> u64 {
    let part = u128::from(total) * u128::from(share.min(all)) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(total).max(total.min(1))
}

/// Something bounded, and its shares.
pub(crate) struct Bound {
    /// In total, for an address, for a site.
    limits: [u64; 3],
    all: Shares<()>,
    addresses: Shares<IpAddr>,
    sites: Shares<DnsName>,
}

/// A part of an address's share.
pub(crate) type OfAddress = Share<IpAddr>;

/// A part of a site's share and of the total.
pub(crate) type OfSite = (Share<DnsName>, Share<()>);

impl Bound {
    /// For a visitor from `network`.
    pub(crate) fn of_address(&self, network: IpAddr, amount: u64) -> Result<OfAddress, Over> {
        self.addresses.take(network, amount, self.limits[1]).ok_or(Over::Address)
    }

    /// For `site`.
    pub(crate) fn of_site(&self, site: &DnsName, amount: u64) -> Result<OfSite, Over> {
        let site = self.sites.take(site.clone(), amount, self.limits[2]).ok_or(Over::Site)?;
        let all = self.all.take((), amount, self.limits[0]).ok_or(Over::All)?;
        Ok((site, all))
    }

    pub(crate) fn smallest_share(&self) -> u64 {
        self.limits.into_iter().min().unwrap_or(0)
    }

    /// For a visitor of `site` from `network`.
    pub(crate) fn of_both(&self, network: IpAddr, site: &DnsName, amount: u64) -> Result<(OfAddress, OfSite), Over> {
        Ok((self.of_address(network, amount)?, self.of_site(site, amount)?))
    }
}

/// Which bound was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Over {
    /// The share of the visitor's address.
    Address,
    /// The share of the site.
    Site,
    /// The total.
    All,
}

/// Memory of a request without its bodies: header fields, both connections' state and smallest buffers.
pub(crate) const REQUEST_BYTES: u64 = 48 * 1024;

/// The largest header of a response, in octets, and the largest part of a body that is read at one time.
pub(crate) const MAX_HEADER: usize = 64 * 1024;

/// The most that is kept of a body: the octets that wait in the stream, a part in between, and the buffer of the other
/// connection.
pub(crate) const BODY_BYTES: u64 = (STREAM_BYTES + 2 * MAX_HEADER) as u64;

/// Memory that one request can need.
const LARGEST_REQUEST: u64 = REQUEST_BYTES + 2 * BODY_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_site_get_their_shares_and_leave_the_rest() {
        let limits =
            Limits { requests: 10, requests_per_address: 2, requests_per_site: 4, memory: 1000, ..Limits::default() };
        let admission = Admission::new(&limits);
        let (a, b): (DnsName, DnsName) = ("a.example".parse().unwrap(), "b.example".parse().unwrap());
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let take = |last, site| admission.requests.of_both(address(last), site, 1);
        let _first = [take(1, &a).unwrap(), take(1, &a).unwrap()];
        assert_eq!(take(1, &b).unwrap_err(), Over::Address);
        let _second = [take(2, &a).unwrap(), take(2, &a).unwrap()];
        assert_eq!(take(3, &a).unwrap_err(), Over::Site);
        let _others: Vec<_> =
            (3..=5).flat_map(|last| [take(last, &b), take(last, &b)]).filter_map(Result::ok).collect();
        let c = "c.example".parse().unwrap();
        let last = [take(6, &c).unwrap(), take(6, &c).unwrap()];
        assert_eq!(take(7, &c).unwrap_err(), Over::All);
        drop(last);
        assert!(take(7, &c).is_ok());

        let memory = |octets| admission.memory.of_both(address(1), &a, octets).map(drop);
        assert_eq!((memory(200), memory(201)), (Ok(()), Err(Over::Address)));
    }
}
