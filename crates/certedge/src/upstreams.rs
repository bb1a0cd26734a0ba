//! Where upstreams may be: not at addresses that mean this machine's own network segment, or no machine at all.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use certseal_wire::Upstream;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

/// Whether the edge connects to `address`.
///
/// Link-local addresses are where clouds hand out a machine's credentials, and the unspecified address is the edge
/// itself. Loopback is allowed: upstreams run beside an edge.
pub(crate) fn is_allowed(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_unspecified(),
    }
}

/// The address that an upstream states in place of a name. The connector looks no such address up.
pub(crate) fn literal(upstream: &Upstream) -> Option<IpAddr> {
    let (host, _port) = upstream.authority().rsplit_once(':')?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The system's resolver without the addresses that are not allowed.
#[derive(Clone)]
pub(crate) struct Resolver(GaiResolver);

impl Resolver {
    pub(crate) fn new() -> Self {
        Self(GaiResolver::new())
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
        let looked_up = self.0.call(name);
        Box::pin(async move {
            let allowed: Vec<_> = looked_up.await?.filter(|address| is_allowed(address.ip())).collect();
            match allowed.is_empty() {
                false => Ok(allowed.into_iter()),
                true => Err(io::Error::other("the name leads to no address that upstreams may have")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_unspecified_addresses_are_not_connected_to() {
        for bad in ["169.254.169.254", "0.0.0.0", "[fe80::1]", "[febf::1]", "[::]", "[::ffff:169.254.0.1]"] {
            let upstream = format!("http://{bad}:80").parse().unwrap();
            assert!(!is_allowed(literal(&upstream).unwrap()), "{bad}");
        }
        for good in ["127.0.0.1", "10.0.0.7", "192.0.2.1", "[::1]", "[fd00::1]", "[2001:db8::1]"] {
            let upstream = format!("http://{good}:80").parse().unwrap();
            assert!(is_allowed(literal(&upstream).unwrap()), "{good}");
        }
        assert_eq!(literal(&"http://backend.internal:80".parse().unwrap()), None);
    }

    /// The system's resolver reads numbers as addresses, also forms that are no literals to us.
    #[tokio::test]
    async fn names_do_not_lead_to_such_addresses_either() {
        let look_up = async |name: &str| Resolver::new().call(name.parse().unwrap()).await.map(Iterator::count);
        for bad in ["169.254.169.254", "2852039166", "0"] {
            assert!(look_up(bad).await.is_err(), "{bad}");
        }
        for good in ["127.0.0.1", "2130706433"] {
            assert!(look_up(good).await.is_ok_and(|count| count > 0), "{good}");
        }
    }
}
