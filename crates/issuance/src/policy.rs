//! What the operator wants of all sites, and which CAs are there.

use certseal_wire::{DnsName, ProfileName};
use jiff::SignedDuration;

use crate::{AuthorityId, Looked, Method};

/// The operator's configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The CA that new orders go to, unless it is away, or a site's names do not allow it.
    pub authority: AuthorityId,
    /// The CAs that they go to then, the first first.
    pub further: Vec<AuthorityId>,
    /// Those of all CAs that are away: they get no new orders while another one may have them.
    pub away: Vec<AuthorityId>,
    /// The wait after a first rejected order.
    pub retry: SignedDuration,
    /// The certificate profile of sites that name none; the CA's default when absent.
    pub profile: Option<ProfileName>,
    /// Names are looked at in the DNS before a CA is asked for anything.
    pub looks_first: bool,
    /// The ways to validate names, the first first; after a rejection the next one. With none, http-01.
    pub methods: Vec<Method>,
}

impl Policy {
    /// The CA for a new order of a site whose names were looked at.
    pub fn authority_for(&self, looked: Option<&Looked>) -> &AuthorityId {
        let is_allowed =
            |authority: &&AuthorityId| looked.is_none_or(|looked| !looked.forbidden_to.contains(authority));
        let allowed = || std::iter::once(&self.authority).chain(&self.further).filter(is_allowed);
        let is_there = |authority: &&AuthorityId| !self.away.contains(authority);
        allowed().find(is_there).or_else(|| allowed().next()).unwrap_or(&self.authority)
    }

    /// The way to validate `host` after so many rejections.
    pub fn method(&self, host: &DnsName, rejected: u32) -> Method {
        if host.is_wildcard() {
            return Method::Dns;
        }
        let turn = rejected as usize % self.methods.len().max(1);
        self.methods.get(turn).copied().unwrap_or_default()
    }
}
