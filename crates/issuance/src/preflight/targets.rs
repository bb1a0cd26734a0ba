//! Where customers' names should lead.

use std::net::{IpAddr, Ipv4Addr};

use certseal_wire::{DnsName, DnsRecord, Edit, RecordEdit};

/// Where the names of a platform's customers should lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// The host that their names should be aliases of, which has the addresses of the platform's edges wherever one asks.
    pub alias: Option<DnsName>,
    /// The addresses of the platform's edges. A name that can be no alias, such as a zone's own, has them itself.
    pub addresses: Vec<IpAddr>,
    /// Addresses that `alias` leads to, wherever somebody asked: names that have these lead here, too, those of zones that flatten
    /// aliases for example.
    pub found: Vec<IpAddr>,
}

impl Targets {
    /// Whether names are compared with anything.
    pub fn is_empty(&self) -> bool {
        self.alias.is_none() && self.addresses.is_empty()
    }

    /// Whether an address is the platform's.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_known = |address| self.addresses.contains(&address) || self.found.contains(&address);
        is_known(address) || behind_nat64(address).is_some_and(is_known)
    }

    pub(super) fn is_alias(&self, host: &str) -> bool {
        self.alias.as_ref().is_some_and(|alias| alias.as_str().eq_ignore_ascii_case(host))
    }

    /// The records that lead `name` here: an alias where one may be, else addresses.
    pub fn records(&self, name: &DnsName, is_apex: bool) -> Vec<RecordEdit> {
        match &self.alias {
            Some(alias) if !is_apex => vec![record(Edit::Add, name.as_str(), "CNAME", format!("{alias}."))],
            // Found ones may be of one region only: they are not to be pasted.
            _ => self.addresses.iter().map(|address| address_record(Edit::Add, name.as_str(), *address)).collect(),
        }
    }

    /// The records that [`Targets::records`] gives, for people.
    pub(super) fn described(&self, is_apex: bool) -> String {
        match &self.alias {
            Some(alias) if !is_apex => format!("a CNAME to {alias}"),
            _ if self.addresses.is_empty() => joined(self.found.iter()),
            _ => joined(self.addresses.iter()),
        }
    }
}

/// The address that a resolver with DNS64 made one of IPv6 from (RFC 6052, 2.1).
fn behind_nat64(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            Some(Ipv4Addr::from_bits(v6.to_bits() as u32).into())
        }
        _ => None,
    }
}

/// A record to be put in or taken out.
pub(super) fn record(edit: Edit, owner: &str, kind: &str, value: String) -> RecordEdit {
    let owner = owner.trim_end_matches('.').to_owned();
    RecordEdit { edit, record: DnsRecord { owner, ttl: TTL, kind: kind.to_owned(), value } }
}

pub(super) fn address_record(edit: Edit, owner: &str, address: IpAddr) -> RecordEdit {
    record(edit, owner, if address.is_ipv4() { "A" } else { "AAAA" }, address.to_string())
}

/// A list for people: what customers have in their DNS can be long.
pub(super) fn joined<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let mut items: Vec<_> = items.map(|item| item.to_string()).collect();
    let more = items.len().saturating_sub(MOST_SHOWN);
    items.truncate(MOST_SHOWN);
    let shown = items.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Seconds that others may keep a record to be pasted: an hour, so that a mistake does not stay for a day.
pub const TTL: u32 = 3600;
const MOST_SHOWN: usize = 6;
