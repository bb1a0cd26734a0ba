//! What the operator wants of all sites, and which CAs are there.

use certseal_wire::{DnsName, ProfileName, ValidationMethod};
use jiff::SignedDuration;

use crate::{AuthorityId, Looked};

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
    pub methods: Vec<ValidationMethod>,
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

    /// The way to validate a name of a site that has its `own` methods, or none, after so many rejections.
    pub fn method(&self, own: &[ValidationMethod], host: &DnsName, rejected: u32) -> ValidationMethod {
        let ways = ways(if own.is_empty() { &self.methods } else { own }, host);
        ways[rejected as usize % ways.len()]
    }
}

/// The ways of `methods` in which a name can be validated, at least one.
pub fn ways(methods: &[ValidationMethod], host: &DnsName) -> Vec<ValidationMethod> {
    let ways: Vec<ValidationMethod> =
        methods.iter().copied().filter(|method| !host.is_wildcard() || method.takes_wildcards()).collect();
    match (ways.is_empty(), host.is_wildcard()) {
        (false, _) => ways,
        (true, true) => vec![ValidationMethod::Dns],
        (true, false) => vec![ValidationMethod::default()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_validated_in_the_dns_whatever_other_names_are_validated_by() {
        let (host, wildcard): (DnsName, DnsName) = ("a.example".parse().unwrap(), "*.a.example".parse().unwrap());
        let all = [ValidationMethod::Http, ValidationMethod::DnsPersist, ValidationMethod::Dns];
        assert_eq!(ways(&all, &host), all);
        assert_eq!(ways(&all, &wildcard), [ValidationMethod::DnsPersist, ValidationMethod::Dns]);
        assert_eq!(
            (ways(&[], &host), ways(&[ValidationMethod::TlsAlpn], &wildcard)),
            (vec![ValidationMethod::Http], vec![ValidationMethod::Dns])
        );
    }
}
