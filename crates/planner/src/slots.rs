//! Sites while nobody works on them: what differs from one to the next, in some ninety octets.

use std::collections::HashMap;

use certseal_issuance::{
    AccountRef, Advice, Attempt, Attempts, AuthorityId, Format, Issued, Lineage, Site, Step, Window, budget::Settlement,
};
use certseal_wire::{DnsName, NameSet, PoolName, Upstream};
use jiff::Timestamp;

use crate::chance::Mixing;

/// The sites of a fleet.
pub(crate) struct Slots {
    resting: Vec<Resting>,
    /// Those that a [`Resting`] cannot describe.
    others: HashMap<u32, Box<Site>, Mixing>,
    model: Site,
    under_platform: f64,
    seed: u64,
}

/// A site with nothing under way but an order that was not placed yet.
#[derive(Debug, Clone, Copy, Default)]
struct Resting {
    version: u32,
    rejected: u16,
    unavailable: u16,
    certificate: Option<Certificate>,
    retry_at: Option<Timestamp>,
    route_stored: bool,
    is_ordering: bool,
    is_dead: bool,
    is_failing: bool,
}

#[derive(Debug, Clone, Copy)]
struct Certificate {
    serial: u64,
    not_before: Timestamp,
    not_after: Timestamp,
    renew_at: Timestamp,
    ask_at: Option<Timestamp>,
    window: Option<Window>,
    is_replaced: bool,
}

impl Slots {
    pub(crate) fn new(count: u32, authority: &AuthorityId, under_platform: f64, seed: u64) -> Self {
        let new = Resting { is_ordering: true, ..Resting::default() };
        Self {
            resting: vec![new; count as usize],
            others: HashMap::default(),
            model: model(authority),
            under_platform,
            seed,
        }
    }

    /// The number of a site's registered domain.
    pub(crate) fn domain(&self, site: u32) -> u32 {
        if crate::chance::of_site(self.seed, site) < self.under_platform { u32::MAX } else { site }
    }

    pub(crate) fn take(&mut self, site: u32) -> Site {
        if let Some(other) = self.others.remove(&site) {
            return *other;
        }
        let name: DnsName = match self.domain(site) {
            // These are names.
            u32::MAX => format!("s{site}.platform.example").parse().expect("a name"),
            _ => format!("www.s{site}.example").parse().expect("a name"),
        };
        let names = NameSet::try_from(vec![name.clone()]).expect("one name");
        let Resting {
            version,
            rejected,
            unavailable,
            certificate,
            retry_at,
            route_stored,
            is_ordering,
            is_dead,
            is_failing,
        } = self.resting[site as usize];
        let account = self.model.account.clone();
        let issued = |it: Certificate| Issued {
            authority: String::new(),
            ordered_from: account.as_ref().map(|account| account.authority.clone()),
            names: Some(names.clone()),
            not_before: Some(it.not_before),
            not_after: it.not_after,
            renew_at: it.renew_at,
            lineage: account.clone().map(|account| Lineage {
                account,
                id: it.serial.to_string(),
                is_replaced: it.is_replaced,
            }),
            advice: Advice { window: it.window, explanation: None, ask_at: it.ask_at },
            is_put_forward: false,
        };
        let certificate = certificate.map(issued);
        let order = Attempt {
            rejected: rejected.into(),
            unavailable: unavailable.into(),
            retry_at,
            diagnosis: None,
            dead: is_dead,
        };
        Site {
            site: name.clone(),
            failing: if is_failing { vec![name] } else { Vec::new() },
            names,
            route_stored,
            certificate,
            bundle_version: version.into(),
            // The account is known, and edges answer for it.
            order: account.filter(|_| is_ordering).map(|account| Step::Vouched { account }),
            attempts: Attempts { order, ..Attempts::default() },
            ..self.model.clone()
        }
    }

    pub(crate) fn put(&mut self, number: u32, site: Site) {
        match resting(&site) {
            Some(resting) => self.resting[number as usize] = resting,
            None => drop(self.others.insert(number, Box::new(site))),
        }
    }

    /// Start and end of a site's certificate, without a look at the rest of it.
    pub(crate) fn validity(&self, site: u32) -> Option<(Timestamp, Timestamp)> {
        if let Some(other) = self.others.get(&site) {
            let certificate = other.certificate.as_ref()?;
            return Some((certificate.not_before?, certificate.not_after));
        }
        self.resting[site as usize].certificate.map(|it| (it.not_before, it.not_after))
    }
}

fn resting(site: &Site) -> Option<Resting> {
    let attempts = &site.attempts;
    let is_quiet = site.abandoned.is_empty()
        && site.published.is_empty()
        && site.owed.is_empty()
        && site.reserved.is_none()
        && !site.lost
        && site.compromised.is_none()
        && site.revoke.is_empty()
        && attempts.cleanup == Attempt::default();
    let is_ordering = match &site.order {
        None => false,
        // An account costs nothing to look up again.
        Some(Step::Requested | Step::Vouched { .. }) => true,
        Some(_) => return None,
    };
    let certificate = match &site.certificate {
        None => None,
        Some(issued) => {
            let lineage = issued.lineage.as_ref()?;
            Some(Certificate {
                serial: lineage.id.parse().ok()?,
                not_before: issued.not_before?,
                not_after: issued.not_after,
                renew_at: issued.renew_at,
                ask_at: issued.advice.ask_at,
                window: issued.advice.window,
                is_replaced: lineage.is_replaced,
            })
        }
    };
    is_quiet.then_some(Resting {
        version: u32::try_from(site.bundle_version).ok()?,
        rejected: u16::try_from(attempts.order.rejected).ok()?,
        unavailable: u16::try_from(attempts.order.unavailable).ok()?,
        certificate,
        retry_at: attempts.order.retry_at,
        route_stored: site.route_stored,
        is_ordering,
        is_dead: attempts.order.dead,
        is_failing: !site.failing.is_empty(),
    })
}

fn model(authority: &AuthorityId) -> Site {
    let name: DnsName = "model.example".parse().expect("a name");
    let pool: PoolName = "eu".parse().expect("a pool");
    let upstream: Upstream = "http://127.0.0.1:1".parse().expect("an address");
    let request = certseal_wire::SiteRequest {
        names: NameSet::try_from(vec![name.clone()]).expect("one name"),
        upstream,
        pools: vec![pool],
        owner: None,
    };
    let account = AccountRef { authority: authority.clone(), thumbprint: None };
    Site { format: Format::Second, account: Some(account), owed: Settlement::default(), ..Site::new(name, request) }
}
