//! The name servers that may be asked.

use std::{fmt, net::IpAddr, sync::Arc};

/// Which addresses name servers may have to be asked: whoever owns a name chooses them.
#[derive(Clone)]
pub struct AllowedServers(Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl AllowedServers {
    /// Those that `allows` answers true for.
    pub fn new(allows: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(allows))
    }

    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        (self.0)(address)
    }
}

impl fmt::Debug for AllowedServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AllowedServers")
    }
}
