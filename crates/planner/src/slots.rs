//! Sites while nobody works on them: what differs from one to the next, in a hundred octets and its names.

use std::collections::HashMap;

use certseal_issuance::{
    AccountRef, Advice, Attempt, Attempts, AuthorityId, Format, Issued, Lineage, Site, Step, Window, budget::Settlement,
};
use certseal_wire::{DnsName, NameSet, PoolName, Upstream};
use jiff::Timestamp;

use crate::{
    chance::Mixing,
    clock::{START_MS, at},
};

/// The sites of a fleet.
pub(crate) struct Slots {
    sites: Vec<Slot>,
    /// Those that a [`Resting`] cannot describe.
    others: HashMap<u32, Box<Site>, Mixing>,
    model: Site,
    under_platform: f64,
    seed: u64,
}

/// A site, and its names.
struct Slot {
    names: NameSet,
    resting: Resting,
}

/// A site with nothing under way but an order that was not placed yet.
#[derive(Debug, Clone, Copy)]
struct Resting {
    version: u32,
    rejected: u16,
    unavailable: u16,
    certificate: Option<Certificate>,
    /// [`NEVER`] for none.
    retry_at: i64,
    route_stored: bool,
    is_ordering: bool,
    is_dead: bool,
    is_failing: bool,
}

impl Resting {
    /// A site that was just added.
    const NEW: Self = Self {
        version: 0,
        rejected: 0,
        unavailable: 0,
        certificate: None,
        retry_at: NEVER,
        route_stored: false,
        is_ordering: true,
        is_dead: false,
        is_failing: false,
    };
}

/// Instants are milliseconds of the simulation.
#[derive(Debug, Clone, Copy)]
struct Certificate {
    serial: u64,
    not_before: i64,
    not_after: i64,
    renew_at: i64,
    /// [`NEVER`] for none.
    ask_at: i64,
    /// Start and end; the same for none.
    window: (i64, i64),
    is_replaced: bool,
}

impl Slots {
    pub(crate) fn new(count: u32, authority: &AuthorityId, under_platform: f64, seed: u64) -> Self {
        let (sites, others) = (Vec::new(), HashMap::default());
        let mut slots = Self { sites, others, model: model(authority), under_platform, seed };
        slots.sites = (0..count).map(|site| Slot { names: only(&slots.name(site)), resting: Resting::NEW }).collect();
        slots
    }

    fn name(&self, site: u32) -> String {
        match self.domain(site) {
            u32::MAX => format!("s{site}.platform.example"),
            _ => format!("www.s{site}.example"),
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
        let Slot { names, resting } = &self.sites[site as usize];
        let name = names.only().expect("it has one").clone();
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
        } = *resting;
        let account = self.model.account.clone();
        let issued = |it: Certificate| Issued {
            authority: String::new(),
            ordered_from: account.as_ref().map(|account| account.authority.clone()),
            names: Some(names.clone()),
            not_before: Some(at(it.not_before)),
            not_after: at(it.not_after),
            renew_at: at(it.renew_at),
            lineage: account.clone().map(|account| Lineage {
                account,
                id: it.serial.to_string(),
                is_replaced: it.is_replaced,
            }),
            advice: Advice {
                window: Window::new(at(it.window.0), at(it.window.1)),
                explanation: None,
                ask_at: (it.ask_at != NEVER).then(|| at(it.ask_at)),
            },
            is_put_forward: false,
        };
        let certificate = certificate.map(issued);
        let order = Attempt {
            rejected: rejected.into(),
            unavailable: unavailable.into(),
            retry_at: (retry_at != NEVER).then(|| at(retry_at)),
            dead: is_dead,
            ..Attempt::default()
        };
        Site {
            site: name.clone(),
            failing: if is_failing { vec![name] } else { Vec::new() },
            names: names.clone(),
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
            Some(resting) => self.sites[number as usize].resting = resting,
            None => drop(self.others.insert(number, Box::new(site))),
        }
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
        && site.staple.is_none()
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
                not_before: milliseconds(issued.not_before?),
                not_after: milliseconds(issued.not_after),
                renew_at: milliseconds(issued.renew_at),
                ask_at: issued.advice.ask_at.map_or(NEVER, milliseconds),
                window: issued.advice.window.map_or((0, 0), |it| (milliseconds(it.start), milliseconds(it.end))),
                is_replaced: lineage.is_replaced,
            })
        }
    };
    is_quiet.then_some(Resting {
        version: u32::try_from(site.bundle_version).ok()?,
        rejected: u16::try_from(attempts.order.rejected).ok()?,
        unavailable: u16::try_from(attempts.order.unavailable).ok()?,
        certificate,
        retry_at: attempts.order.retry_at.map_or(NEVER, milliseconds),
        route_stored: site.route_stored,
        is_ordering,
        is_dead: attempts.order.dead,
        is_failing: !site.failing.is_empty(),
    })
}

fn model(authority: &AuthorityId) -> Site {
    let pool: PoolName = "eu".parse().expect("a pool");
    let upstream: Upstream = "http://127.0.0.1:1".parse().expect("an address");
    let request = certseal_wire::SiteRequest::new(only("model.example"), upstream, vec![pool]);
    let account = AccountRef { authority: authority.clone(), thumbprint: None };
    Site {
        format: Format::Second,
        account: Some(account),
        owed: Settlement::default(),
        ..Site::new("model.example".parse().expect("a name"), request)
    }
}

fn only(name: &str) -> NameSet {
    let name: DnsName = name.parse().expect("a name");
    NameSet::try_from(vec![name]).expect("one name")
}

fn milliseconds(instant: Timestamp) -> i64 {
    instant.as_millisecond() - START_MS
}

/// After every instant.
const NEVER: i64 = i64::MAX;
