//! Where upstreams may be: not at addresses that mean this machine's own network segment, or its cloud's secrets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use certseal_service::networks::{Denied, Network};
use certseal_wire::Origin;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

/// The address that an upstream states in place of a name. The connector looks no such address up.
pub(crate) fn literal(upstream: &Origin) -> Option<IpAddr> {
    let (host, _port) = upstream.authority().rsplit_once(':')?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
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
}
