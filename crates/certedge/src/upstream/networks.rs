//! Where upstreams may be: not at addresses that mean this machine's own network segment, or its cloud's secrets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use certseal_wire::Origin;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use serde::Deserialize;
use tower::Service;

/// The networks that the edge does not connect to, in whatever form an address of theirs is written.
#[derive(Debug, Clone)]
pub(crate) struct Denied(Arc<[Network]>);

impl Denied {
    pub(crate) fn new(networks: &[Network]) -> Self {
        Self(networks.into())
    }

    /// Whether the edge connects to `address`.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let is_denied = |address| self.0.iter().any(|network| network.contains(address));
        !is_denied(address.to_canonical()) && !embedded(address).into_iter().flatten().any(|v4| is_denied(v4.into()))
    }
}

/// The address that an upstream states in place of a name. The connector looks no such address up.
pub(crate) fn literal(upstream: &Origin) -> Option<IpAddr> {
    let (host, _port) = upstream.authority().rsplit_once(':')?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
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
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(first: [u16; 3], last: u16, prefix: u8) -> Self {
        let [a, b, c] = first;
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last)), prefix }
    }

    fn contains(&self, address: IpAddr) -> bool {
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

/// The networks that the edge does not connect to unless told otherwise.
///
/// The unspecified address is the edge itself. Link-local addresses are where most clouds hand out a machine's credentials;
/// the rest is where some do besides. Loopback is allowed: upstreams run beside an edge.
pub(crate) const DENIED: [Network; 12] = [
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(169, 254, 0, 0, 16),
    // Alibaba Cloud, Oracle Cloud, Azure.
    Network::v4(100, 100, 100, 200, 32),
    Network::v4(192, 0, 0, 192, 32),
    Network::v4(168, 63, 129, 16, 32),
    Network::v6([0, 0, 0], 0, 128),
    Network::v6([0xfe80, 0, 0], 0, 10),
    // Site-local, which was given up (RFC 3879).
    Network::v6([0xfec0, 0, 0], 0, 10),
    // AWS, Google Cloud, Scaleway, Akamai.
    Network::v6([0xfd00, 0xec2, 0], 0, 32),
    Network::v6([0xfd20, 0xce, 0], 0x254, 128),
    Network::v6([0xfd00, 0x42, 0], 0x42, 128),
    Network::v6([0xfd00, 0xa9fe, 0xa9fe], 1, 128),
];

/// The system's resolver without the addresses that are not allowed.
#[derive(Clone)]
pub(crate) struct Resolver(GaiResolver, Denied);

impl Resolver {
    pub(crate) fn new(denied: Denied) -> Self {
        Self(GaiResolver::new(), denied)
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (looked_up, denied) = (self.0.call(name), self.1.clone());
        Box::pin(async move {
            let allowed: Vec<_> = looked_up.await?.filter(|address| denied.allows(address.ip())).collect();
            if allowed.is_empty() {
                Err(io::Error::other("the name leads to no address that upstreams may have"))
            } else {
                Ok(allowed.into_iter())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_clouds_keep_credentials_is_not_connected_to_in_any_form() {
        let denied = Denied::new(&DENIED);
        for bad in [
            "169.254.169.254",
            "0.0.0.0",
            "100.100.100.200",
            "168.63.129.16",
            "[fe80::1]",
            "[febf::1]",
            "[::]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            // 169.254.169.254 again: mapped, compatible, translated, NAT64 of all lengths, 6to4, Teredo.
            "[::ffff:169.254.169.254]",
            "[::169.254.169.254]",
            "[::ffff:0:169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[64:ff9b:1::169.254.169.254]",
            "[64:ff9b:1:a9fe:a9:fe00::]",
            "[64:ff9b:1:a9:fe:a9fe::]",
            "[64:ff9b:1:0:a9:fea9:fe00:0]",
            "[2002:a9fe:a9fe::1]",
            "[2001:0:a9fe:a9fe::1]",
            "[2001:0:4136:e378:8000:63bf:5601:5601]",
            "[64:ff9b::100.100.100.200]",
        ] {
            let upstream = format!("http://{bad}:80").parse().unwrap();
            assert!(!denied.allows(literal(&upstream).unwrap()), "{bad}");
            // The control: it is the list that refuses.
            assert!(Denied::new(&[]).allows(literal(&upstream).unwrap()), "{bad}");
        }
        for good in [
            "127.0.0.1",
            "10.0.0.7",
            "192.0.2.1",
            "[::1]",
            "[fd00::1]",
            "[2001:db8::1]",
            "[64:ff9b::192.0.2.1]",
            "[2002:c000:201::1]",
        ] {
            let upstream = format!("http://{good}:80").parse().unwrap();
            assert!(denied.allows(literal(&upstream).unwrap()), "{good}");
        }
        assert_eq!(literal(&"http://backend.internal:80".parse().unwrap()), None);
    }

    /// The system's resolver reads numbers as addresses, also forms that are no literals to us.
    #[tokio::test]
    async fn names_do_not_lead_to_such_addresses_either() {
        let denied = Denied::new(&DENIED);
        let look_up = async |name: &str| Resolver::new(denied.clone()).call(name.parse().unwrap()).await;
        for bad in ["169.254.169.254", "2852039166", "0", "64:ff9b::a9fe:a9fe"] {
            assert!(look_up(bad).await.is_err(), "{bad}");
        }
        for good in ["127.0.0.1", "2130706433"] {
            assert!(look_up(good).await.is_ok_and(|found| found.count() > 0), "{good}");
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
