//! Networks, and addresses that are not to be connected to: whoever owns a name chooses where it leads.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use serde::Deserialize;

/// Networks that are not connected to, in whatever form an address of theirs is written.
#[derive(Debug, Clone)]
pub struct Denied(Arc<[Network]>);

impl Denied {
    /// All addresses but those of `networks`.
    pub fn new(networks: &[Network]) -> Self {
        Self(networks.into())
    }

    /// Whether `address` is in none of them.
    pub fn allows(&self, address: IpAddr) -> bool {
        let is_denied = |address| self.0.iter().any(|network| network.contains(address));
        !is_denied(address.to_canonical()) && !embedded(address).into_iter().flatten().any(|v4| is_denied(v4.into()))
    }
}

/// The IPv4 addresses that an IPv6 address may stand for, where something on the way translates. Any of them counts.
fn embedded(address: IpAddr) -> [Option<Ipv4Addr>; 5] {
    let IpAddr::V6(address) = address else { return [None; 5] };
    let bits = address.to_bits();
    // The 32 bits behind the first `prefix`.
    let after = |prefix: u32| Some(Ipv4Addr::from_bits((bits << prefix >> 96) as u32));
    // RFC 6052, 2.2: the octet after the first 64 bits is left out.
    let around = |prefix: u32| {
        let without = bits >> 64 << 64 | bits << 72 >> 64;
        Some(Ipv4Addr::from_bits((without << prefix >> 96) as u32))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => [None; 5],
        // IPv4-compatible, IPv4-mapped, IPv4-translated (RFC 4291, 2.5.5; RFC 2765, 2.1), and NAT64 (RFC 6052, 2.1).
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => {
            [after(96), None, None, None, None]
        }
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [after(96), None, None, None, None],
        // NAT64 with a network's own prefix length (RFC 8215).
        [0x64, 0xff9b, 1, ..] => [around(48), around(56), around(64), after(96), None],
        // 6to4 (RFC 3056, 2), and Teredo's server and, inverted, client (RFC 4380, 4).
        [0x2002, ..] => [after(16), None, None, None, None],
        [0x2001, 0, ..] => [after(32), Some(Ipv4Addr::from_bits(!(bits as u32))), None, None, None],
        _ => [None; 5],
    }
}

/// Addresses with a common beginning: `169.254.0.0/16`, or one address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// `a.b.c.d/prefix`.
    pub const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    /// Its first three groups, its last one, and the prefix.
    pub const fn v6(first: [u16; 3], last: u16, prefix: u8) -> Self {
        let [a, b, c] = first;
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last)), prefix }
    }

    /// Whether it has the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                is_common(u128::from(ours.to_bits() ^ theirs.to_bits()) << 96, self.prefix)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => is_common(ours.to_bits() ^ theirs.to_bits(), self.prefix),
            _ => false,
        }
    }
}

/// Whether the first `prefix` bits are zero.
fn is_common(difference: u128, prefix: u8) -> bool {
    difference.leading_zeros() >= u32::from(prefix)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected an address or a network such as 169.254.0.0/16 or fe80::/10, got {text:?}");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let (bits, length) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let prefix: u8 = prefix.map_or(Ok(length), |prefix| prefix.parse().map_err(|_| expected()))?;
        if prefix > length {
            return Err(expected());
        }
        if bits.checked_shl(prefix.into()).unwrap_or(0) != 0 {
            return Err(format!(
                "expected the first address of a network, got {text:?}: it has bits set behind the first {prefix}"
            ));
        }
        Ok(Self { address, prefix })
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Networks without a place on the Internet (the registries of special-purpose addresses of RFC 6890): nothing that customers
/// name is looked for there.
pub const NOT_PUBLIC: [Network; 22] = [
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(100, 64, 0, 0, 10),
    Network::v4(127, 0, 0, 0, 8),
    Network::v4(169, 254, 0, 0, 16),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 0, 0, 0, 24),
    Network::v4(192, 0, 2, 0, 24),
    Network::v4(192, 168, 0, 0, 16),
    Network::v4(198, 18, 0, 0, 15),
    Network::v4(198, 51, 100, 0, 24),
    Network::v4(203, 0, 113, 0, 24),
    Network::v4(224, 0, 0, 0, 3),
    // Azure's, which hands out secrets.
    Network::v4(168, 63, 129, 16, 32),
    Network::v6([0, 0, 0], 0, 127),
    Network::v6([0x100, 0, 0], 0, 64),
    Network::v6([0x2001, 0xdb8, 0], 0, 32),
    Network::v6([0x3fff, 0, 0], 0, 20),
    Network::v6([0xfc00, 0, 0], 0, 7),
    Network::v6([0xfe80, 0, 0], 0, 10),
    Network::v6([0xfec0, 0, 0], 0, 10),
    Network::v6([0xff00, 0, 0], 0, 8),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_public_is_told_in_every_form() {
        let denied = Denied::new(&NOT_PUBLIC);
        let allows = |text: &str| denied.allows(text.parse().unwrap());
        for bad in [
            "10.1.2.3", "127.0.0.53", "192.168.0.1", "169.254.169.254", "239.1.1.1", "255.255.255.255", "::", "::1",
            "fd00::1", "fe80::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::1",
        ] {
            assert!(!allows(bad), "{bad}");
        }
        for good in ["1.1.1.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "64:ff9b::1.1.1.1"] {
            assert!(allows(good), "{good}");
        }
    }

    #[test]
    fn a_network_is_read_as_it_is_meant() {
        let parse = |text: &str| text.parse::<Network>();
        assert_eq!(parse("169.254.0.0/16"), Ok(Network::v4(169, 254, 0, 0, 16)));
        assert_eq!(parse("fe80::/10"), Ok(Network::v6([0xfe80, 0, 0], 0, 10)));
        assert_eq!(parse("192.0.2.1"), Ok(Network::v4(192, 0, 2, 1, 32)));
        assert!(parse("0.0.0.0/0").unwrap().contains("192.0.2.1".parse().unwrap()));
        for bad in ["", "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::/129"] {
            assert!(parse(bad).unwrap_err().contains("169.254.0.0/16"), "{bad}");
        }
        assert!(parse("10.0.0.1/8").unwrap_err().contains("the first address"));
    }
}
