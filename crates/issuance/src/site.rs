//! A site: the state that is wanted, the state that is stored, and the work between the two.

mod companion;
mod outcome;

use certseal_wire::{
    Base64, DnsName, KeyType, NameSet, PoolName, ProfileName, SiteRequest, Upstream, ValidationMethod,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    AccountRef, Action, Answer, Attempt, Attempts, AuthorityId, Booking, Compromised, Due, Issued, Lane, Looked, Next,
    OrderRef, Policy, Revocation, Stage, Stapling, Step, Work,
    budget::{LimitName, OrderKind, Reserved, Settlement},
    version::{below_ceiling, successor},
};

/// Everything that certman knows about one site. As JSON it is the site's record in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// The format of the record.
    pub format: Format,
    /// The site's own name.
    pub site: DnsName,
    /// The names that lead to it.
    pub names: NameSet,
    /// The server behind the edge.
    pub upstream: Upstream,
    /// The pools that may serve it, sorted.
    pub pools: Vec<PoolName>,
    /// Whose site it is, if the platform says so.
    pub owner: Option<String>,
    /// The certificate profile that it asks the CA for; that of the policy if it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// The type of key that it asks the CA to certify, from the next order on.
    #[serde(default, skip_serializing_if = "KeyType::is_usual")]
    pub key_type: KeyType,
    /// How its names are validated, if it has ways of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub challenges: Vec<ValidationMethod>,
    /// The site whose companion it is: it has the RSA certificate for that site's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub companion_of: Option<DnsName>,
    /// Pools that served it before, and may not have been told yet that they no longer do; sorted.
    pub left: Vec<PoolName>,
    /// The site has left; its remains keep its versions from being used again.
    pub departed: bool,
    /// The version of its route.
    pub route_version: u64,
    /// Whether certstore has that version.
    pub route_stored: bool,
    /// The stored certificate.
    pub certificate: Option<Issued>,
    /// The version of the stored bundle; 0 before the first.
    pub bundle_version: u64,
    /// The order under way.
    pub order: Option<Step>,
    /// Orders that were given up: their pending authorizations are to be deactivated at the CA.
    pub abandoned: Vec<OrderRef>,
    /// Challenges that certstore may still have, and that nobody asks for any more.
    pub published: Vec<Answer>,
    /// The stored certificate, if it is to be revoked: another one is ordered first. If others may have its key, that goes before
    /// everything else.
    pub compromised: Option<Compromised>,
    /// Whether certstore has a bundle that counts is to be looked at: it came back from a backup, or an issuer is listed no
    /// more.
    pub unconfirmed: bool,
    /// Should it have none, another one is ordered at once: the security team's ring says that what was there counts no
    /// more. On certstore's word alone orders are few.
    pub issuer_left: bool,
    /// certstore says that it has no such bundle any more. Another one is ordered when there is room for it.
    pub lost: bool,
    /// A bundle of the site had its key in an envelope: no key in a legacy format takes its place, also after the site left.
    pub enveloped: bool,
    /// Certificates that their CAs are to revoke now: others took their place, or none is to.
    pub revoke: Vec<Revocation>,
    /// Room in the CA's budget that is reserved for the order under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reserved>,
    /// What the books of the CA's budget are to be told, and the account that it concerns.
    #[serde(default, skip_serializing_if = "Settlement::is_empty")]
    pub owed: Settlement,
    /// The account of the last order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountRef>,
    /// Names whose last validation failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<DnsName>,
    /// It was made for a visitor, who waits for its first certificate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_demand: bool,
    /// The last look at its names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<Looked>,
    /// The end of the certificate of which the platform was told that it is near.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_expiring: Option<Timestamp>,
    /// The OCSP answers for its certificate, once one of its certificates named a responder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staple: Option<Stapling>,
    /// How its work is going.
    pub attempts: Attempts,
    /// When the record was written: work that is due at once is done in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_at: Option<Timestamp>,
}

/// The formats of a record that this release writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The second: the first one has no such member.
    #[serde(rename = "2")]
    Second,
    /// The third, of sites with a key type or challenges of their own: a release before would lose them, and leaves it alone.
    #[serde(rename = "3")]
    Third,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Second, Self::Third];

    /// As it stands in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "2",
            Self::Third => "3",
        }
    }
}

/// Requests of people and programs.
impl Site {
    /// A new site, with nothing done yet.
    pub fn new(site: DnsName, request: SiteRequest) -> Self {
        Self {
            format: Format::Second,
            site,
            names: request.names,
            upstream: request.upstream,
            pools: request.pools,
            owner: request.owner,
            profile: request.profile,
            key_type: request.key_type,
            challenges: request.challenges,
            companion_of: None,
            left: Vec::new(),
            departed: false,
            route_version: 1,
            route_stored: false,
            certificate: None,
            bundle_version: 0,
            order: Some(Step::Requested),
            abandoned: Vec::new(),
            published: Vec::new(),
            compromised: None,
            unconfirmed: false,
            issuer_left: false,
            lost: false,
            enveloped: false,
            revoke: Vec::new(),
            reserved: None,
            owed: Settlement::default(),
            account: None,
            failing: Vec::new(),
            on_demand: false,
            looked: None,
            told_expiring: None,
            staple: None,
            attempts: Attempts::default(),
            written_at: None,
        }
    }

    /// The site as `others` wrote it meanwhile, where this is what became of it here: an order that they do not know of is
    /// given up.
    pub fn outrun_by(self, mut others: Self) -> Self {
        let ours = self.order.as_ref().and_then(Step::order);
        let is_theirs = |order: &OrderRef| {
            others.order.as_ref().and_then(Step::order) == Some(order) || others.abandoned.contains(order)
        };
        if let Some(order) = ours.filter(|order| !is_theirs(order)) {
            others.abandoned.push(order.clone());
            // It was placed, which they do not know of.
            if let Some(reserved) = &mut others.reserved {
                reserved.placed();
            }
            others.owed.back.retain(|bucket| bucket.limit != LimitName::NewOrders);
        }
        others
    }

    /// The site after certstore came back from a backup, which may be from before the newest route and bundle: the route is
    /// put again, and a bundle that is not there any more is ordered anew. Dead work is tried once more, and the OCSP answer is
    /// fetched again.
    pub fn unconfirmed(mut self) -> Self {
        for work in [Work::Route, Work::Order] {
            let attempt = self.attempts.of_mut(work);
            if attempt.dead {
                *attempt = Attempt::default();
            }
        }
        if let Some(staple) = &mut self.staple {
            staple.fetch_at = None;
        }
        Self { route_stored: false, unconfirmed: !self.departed, ..self }
    }

    /// The site after an issuer is listed no more: its documents count for nothing, and are put or ordered anew.
    pub fn after_issuer_left(self) -> Self {
        Self { issuer_left: !self.departed, ..self.unconfirmed() }
    }

    /// The site once another issuer key signs: everything is signed anew, under versions above `floor`, which the security
    /// team signed. A key that is sealed and not stored was sealed under the other issuer, so that its order begins anew.
    pub fn signed_anew(mut self, floor: u64) -> Self {
        self.route_version = successor(self.route_version, floor);
        self.bundle_version = below_ceiling(self.bundle_version, floor);
        if let Some(staple) = &mut self.staple {
            staple.version = below_ceiling(staple.version, floor);
        }
        let is_sealed = |step: &Step| step.sealed().is_some_and(|sealed| sealed.enveloped);
        if self.order.as_ref().is_some_and(is_sealed) {
            self.begin_anew();
        }
        self.after_issuer_left()
    }

    /// The site with a certificate and a key that a platform brought: they are stored next. `stored` is the version of the
    /// bundle that certstore has already; 0 for none.
    pub fn imported(mut self, sealed: crate::SealedKey, chain: Vec<Base64>, stored: u64) -> Self {
        self.abandon_order();
        self.bundle_version = self.bundle_version.max(stored);
        self.resealed(sealed, chain)
    }

    /// The site with the key of its stored certificate under another seal: the two are stored next.
    pub fn resealed(mut self, sealed: crate::SealedKey, chain: Vec<Base64>) -> Self {
        self.attempts.order = Attempt::default();
        let authority = self.certificate.as_ref().and_then(|certificate| certificate.ordered_from.clone());
        Self { order: Some(Step::Issued { sealed, chain, authority }), ..self }
    }

    /// The site with its certificate to be issued again, since others may have the key of `stored`, or since somebody wants it
    /// revoked. The order under way is given up: its key may be sealed to the same compromised key.
    pub fn replaced(mut self, stored: Compromised) -> Self {
        if self.compromised.as_ref().is_some_and(|known| stored.is_in(known)) {
            return self;
        }
        self.begin_anew();
        self.attempts.order = Attempt::default();
        // The same one for another reason is revoked once, later.
        let older = self.compromised.take().filter(|older| older.version < stored.version);
        self.revoke.extend(older.map(|older| older.certificate));
        Self { compromised: Some(stored), ..self }
    }

    /// The site with a certificate to be revoked now, whatever it is served with then.
    pub fn revoked(mut self, certificate: Revocation) -> Self {
        self.compromised = self.compromised.take().filter(|waiting| waiting.certificate.leaf != certificate.leaf);
        self.revoke.retain(|other| other.leaf != certificate.leaf);
        self.revoke.push(certificate);
        self.attempts.revocation = Attempt::default();
        self
    }

    /// The site after a request to change it. The same request again changes nothing, but revives a dead order.
    pub fn changed(mut self, request: SiteRequest) -> Self {
        let covers_the_same = self.names == request.names && self.pools == request.pools;
        let routes_the_same = covers_the_same && self.upstream == request.upstream && !self.departed;
        if !routes_the_same {
            self.route_version = self.route_version.saturating_add(1);
            self.route_stored = false;
            self.attempts.route = Attempt::default();
        }
        // A certificate that is there, or that has its key, stays until its renewal, whatever its profile.
        if !covers_the_same {
            self.looked = None;
        }
        let can_still_change = self.order.as_ref().is_some_and(|step| step.sealed().is_none());
        if self.challenges != request.challenges {
            self.looked = None;
        }
        let asks_the_same = (&self.profile, self.key_type, &self.challenges)
            == (&request.profile, request.key_type, &request.challenges);
        let orders_the_same = covers_the_same && (asks_the_same || !can_still_change);
        if !orders_the_same || self.departed || self.attempts.order.dead {
            self.begin_anew();
            self.attempts.order = Attempt::default();
        }
        let mut left = [self.left, self.pools].concat();
        left.retain(|pool| !request.pools.contains(pool));
        left.sort();
        left.dedup();
        let SiteRequest { names, upstream, pools, owner, profile, key_type, challenges } = request;
        Self { names, upstream, pools, owner, profile, key_type, challenges, left, departed: false, ..self }
    }

    /// The site after it has left.
    pub fn departed(mut self) -> Self {
        self.abandon_order();
        self.revoke.extend(self.compromised.take().map(|compromised| compromised.certificate));
        Self {
            departed: true,
            route_version: self.route_version.saturating_add(1),
            route_stored: false,
            lost: false,
            attempts: Attempts::default(),
            ..self
        }
    }

    /// The site with a renewal begun, unless an order is under way already; or planned for `at`, if that is earlier than
    /// planned before.
    pub fn renewed(mut self, at: Option<Timestamp>) -> Self {
        if let (Some(at), None, Some(certificate)) = (at, &self.order, &mut self.certificate) {
            if at < certificate.renew_at {
                (certificate.renew_at, certificate.is_put_forward) = (at, true);
            }
            return self;
        }
        self.order = self.order.or(Some(Step::Requested));
        self.attempts.order = Attempt::default();
        self.attempts.confirmation = Attempt::default();
        Self { lost: false, ..self }
    }

    /// The site with the CA asked now when it wants the certificate to be renewed: before it would be, in an incident for example.
    pub fn advice_wanted(mut self, now: Timestamp) -> Self {
        if let Some(certificate) = self.certificate.as_mut().filter(|certificate| certificate.lineage.is_some()) {
            certificate.advice.ask_at = Some(now);
        }
        self
    }

    /// The site once the platform is told that its certificate is near its end, if it is.
    pub fn expiry_told(mut self, now: Timestamp) -> Self {
        let certificate = self.certificate.as_ref().filter(|certificate| certificate.expiring_at() <= now);
        self.told_expiring = certificate.map(|certificate| certificate.not_after).or(self.told_expiring);
        self
    }

    /// The site with its order tried again now, whatever failed before.
    /// Whatever was seen of its names counts no more.
    pub fn order_retried(mut self, now: Timestamp) -> Self {
        self.attempts.order = Attempt::default();
        let forbidden_to = self.looked.take().map(|looked| looked.forbidden_to).unwrap_or_default();
        self.looked = Some(Looked { forbidden_to, ..Looked::unknown(now) });
        if self.order.is_none() && self.certificate.is_none() {
            self.order = Some(Step::Requested);
        }
        self
    }

    /// The site with its order given up, if there is one: none follows until somebody changes the site, or has it tried again.
    pub fn order_discarded(mut self) -> Self {
        if self.stage().is_none() {
            return self;
        }
        self.begin_anew();
        self.attempts.order.dead = true;
        self.attempts.order.retry_at = None;
        self
    }

    /// The site in the earliest format that has all of it.
    pub fn in_its_format(self) -> Self {
        let is_plain = self.key_type.is_usual() && self.challenges.is_empty();
        Self { format: if is_plain { Format::Second } else { Format::Third }, ..self }
    }

    /// The site as a process takes it from the journal: the action after what is written there may have been performed.
    pub fn resumed(mut self) -> Self {
        self.order = self.order.map(Step::resumed);
        if let Some(reserved) = self.reserved.as_mut().filter(|reserved| reserved.ready) {
            reserved.placed();
        }
        self
    }
}

/// The work that is to be done.
impl Site {
    /// When there is something to do. None: not before somebody changes the site.
    pub fn due(&self) -> Option<Due> {
        let at = self.due_first()?;
        let due_then = Work::ALL.into_iter().filter(|work| self.due_at(*work) == Some(at));
        let lane = |work| match work {
            Work::Advice | Work::Staple => Lane::Renewal,
            Work::Names => Lane::Backfill,
            _ => self.lane(at.or(self.written_at)),
        };
        due_then.map(lane).min().map(|lane| Due { lane, at })
    }

    /// The next thing to do.
    pub fn next(&self, now: Timestamp, policy: &Policy) -> Next {
        // Orders that were given up go before a new one; challenges that have served hold nothing up.
        let has_given_up = !self.abandoned.is_empty() || !self.owed.is_empty();
        // A renewal that is due anyway needs no room for what was lost.
        let is_renewed_anyway = self.lost && !self.unconfirmed && self.is_to_be_renewed(now);
        let works = [
            Some(Work::Route),
            Some(Work::Revocation),
            has_given_up.then_some(Work::Cleanup),
            is_renewed_anyway.then_some(Work::Order),
            Some(Work::Confirmation),
            Some(Work::Order),
            Some(Work::Cleanup),
            Some(Work::Staple),
            Some(Work::Advice),
            Some(Work::Names),
        ];
        let is_due = |work: &Work| self.due_at(*work).is_some_and(|at| at.is_none_or(|at| at <= now));
        if let Some(work) = works.into_iter().flatten().find(is_due) {
            return self.step(work, now, policy);
        }
        match self.due_first().flatten() {
            Some(at) => Next::WakeAt(at),
            None => Next::Rest,
        }
    }

    /// When the first of all kinds of work is due. At once, which is none inside, is before every instant.
    fn due_first(&self) -> Option<Option<Timestamp>> {
        Work::ALL.into_iter().filter_map(|work| self.due_at(work)).min()
    }

    /// When there is something to do of a kind of work; none inside for at once.
    fn due_at(&self, work: Work) -> Option<Option<Timestamp>> {
        if work == Work::Advice {
            let certificate = self.certificate.as_ref().filter(|_| self.is_settled() && self.order.is_none())?;
            // Nobody asks about a certificate that has expired (RFC 9773, 4.3).
            let at = certificate.advice.ask_at.filter(|at| *at < certificate.not_after)?;
            return certificate.lineage.as_ref().map(|_| Some(at));
        }
        if work == Work::Names {
            let is_wanted = self.is_settled() && self.begins() && !self.attempts.order.dead;
            return self.looked.as_ref().filter(|_| is_wanted)?.again_at.map(Some);
        }
        if work == Work::Staple {
            return self.staple_due_at();
        }
        let attempt = self.attempts.of(work);
        if attempt.dead {
            return None;
        }
        let is_asked_for = match work {
            Work::Route => !self.route_stored,
            Work::Revocation => !self.revoke.is_empty(),
            Work::Cleanup => !self.owed.is_empty() || !self.abandoned.is_empty() || !self.published.is_empty(),
            Work::Confirmation => self.is_settled() && self.order.is_none() && (self.unconfirmed || self.lost),
            Work::Order => self.is_settled() && self.order.is_some(),
            Work::Advice | Work::Names | Work::Staple => false,
        };
        if is_asked_for {
            let look = match &self.order {
                Some(Step::ChallengePending { look, .. } | Step::Retrieving { look, .. }) if work == Work::Order => {
                    Some(look.at)
                }
                _ => None,
            };
            return Some(attempt.retry_at.max(look));
        }
        let renewal = self.certificate.as_ref().filter(|_| work == Work::Order && self.is_settled())?;
        // Before that, whether the certificate is there at all.
        (!self.unconfirmed).then(|| Some(renewal.renew_at.max(attempt.retry_at.unwrap_or(renewal.renew_at))))
    }

    /// When the responder is to be asked; none inside for at once. An order that goes on is over in a while, and brings another
    /// certificate; one that waits holds nothing up.
    fn staple_due_at(&self) -> Option<Option<Timestamp>> {
        let staple = self.staple.as_ref().filter(|staple| staple.responder)?;
        let (certificate, order) = (self.certificate.as_ref()?, &self.attempts.order);
        let order_rests = self.order.is_none() || order.dead || order.retry_at.is_some();
        let is_served = self.route_stored && !self.departed && !self.unconfirmed && !self.lost;
        let at = staple.fetch_at.max(self.attempts.staple.retry_at);
        // Nobody is asked about a certificate that has expired.
        (order_rests && is_served && at.is_none_or(|at| at < certificate.not_after)).then_some(at)
    }

    /// The priority of work at an instant.
    pub(crate) fn lane(&self, at: Option<Timestamp>) -> Lane {
        let waiting = self.compromised.as_ref().map(|compromised| &compromised.certificate);
        if self.revoke.iter().chain(waiting).any(|certificate| certificate.reason.is_key_compromise()) {
            return Lane::Incident;
        }
        let Some(certificate) = &self.certificate else {
            return if self.on_demand { Lane::OnDemand } else { Lane::NewSite };
        };
        let has_come = |instant: Timestamp| at.is_some_and(|at| at >= instant);
        if has_come(certificate.expiring_at()) {
            Lane::Expiring
        } else if !has_come(certificate.renew_at) {
            Lane::OnDemand
        } else if certificate.is_put_forward {
            Lane::Backfill
        } else {
            Lane::Renewal
        }
    }

    /// The order that comes next, as the CA counts it.
    fn order_kind(&self, account: &AccountRef, now: Timestamp) -> OrderKind {
        let before = self.certificate.as_ref();
        before.map_or(OrderKind::New, |certificate| certificate.next_order(account, &self.names, now))
    }

    /// Whether edges know the site, and no order before stands in the way of the next one.
    fn is_settled(&self) -> bool {
        // A CA that does not answer holds up no order at another one, nor the next one at itself.
        let is_cleared = self.abandoned.is_empty() || self.attempts.cleanup.failures() > 0;
        !self.departed && self.route_stored && is_cleared && self.owed.is_empty()
    }

    /// The CA of the order under way, once there is an account for it.
    fn current_authority(&self) -> Option<&AuthorityId> {
        match self.order.as_ref()? {
            Step::AccountReady { account } | Step::Vouched { account } => Some(&account.authority),
            step => step.order()?.authority(),
        }
    }

    /// Whether the order under way should go to another CA: its own is away, and another one is not.
    pub(crate) fn should_move(&self, policy: &Policy) -> bool {
        let is_away = |current: &AuthorityId| policy.away.contains(current);
        let next = policy.authority_for(self.looked.as_ref());
        // With a key that is sealed the CA has what it needs, and may be about to issue.
        let is_sealed = self.order.as_ref().is_some_and(|step| step.sealed().is_some());
        self.current_authority().is_some_and(is_away) && !is_sealed && !is_away(next)
    }

    fn is_to_be_renewed(&self, now: Timestamp) -> bool {
        self.certificate.as_ref().is_none_or(|certificate| certificate.renew_at <= now)
    }

    /// Whether the names are looked at before an order. Nothing that was seen of them has a certificate expire.
    fn is_to_be_looked_at(&self, now: Timestamp, policy: &Policy) -> bool {
        let is_fresh = self.looked.as_ref().is_some_and(|looked| looked.is_fresh(now));
        policy.looks_first && !is_fresh && !self.is_urgent(now)
    }

    fn is_urgent(&self, now: Timestamp) -> bool {
        matches!(self.lane(Some(now)), Lane::Incident | Lane::Expiring)
    }

    /// Whether the CA has heard of no order that is under way.
    fn begins(&self) -> bool {
        self.order.as_ref().is_none_or(|step| step.order().is_none() && step.sealed().is_none())
    }

    fn step(&self, work: Work, now: Timestamp, policy: &Policy) -> Next {
        Next::Do(match work {
            Work::Route => Action::StoreRoute,
            Work::Revocation => Action::Revoke(self.revoke[0].clone()),
            Work::Cleanup if !self.owed.is_empty() => {
                let configured = || AccountRef { authority: policy.authority.clone(), thumbprint: None };
                let account = self.account.clone().unwrap_or_else(configured);
                return Next::Book(Booking::Settle { account, settlement: self.owed.clone() });
            }
            Work::Cleanup => match self.abandoned.first() {
                Some(order) => Action::Deactivate(order.clone()),
                None => Action::RetractChallenges(self.published.clone()),
            },
            Work::Confirmation if self.unconfirmed => Action::Confirm,
            Work::Confirmation => Action::TakeReorder,
            Work::Order => return self.order_step(now, policy),
            Work::Advice => match self.certificate.as_ref().and_then(|certificate| certificate.lineage.clone()) {
                Some(lineage) => Action::AskAdvice(lineage),
                None => return Next::Rest,
            },
            Work::Names => Action::LookAtNames,
            Work::Staple => {
                let before = self.staple.as_ref().map_or(0, |staple| staple.version);
                Action::FetchStaple { version: before.saturating_add(1) }
            }
        })
    }

    fn order_step(&self, now: Timestamp, policy: &Policy) -> Next {
        Next::Do(match self.order.as_ref().unwrap_or(&Step::Requested) {
            Step::Requested if self.is_to_be_looked_at(now, policy) => Action::LookAtNames,
            Step::Requested => Action::OpenAccount(policy.authority_for(self.looked.as_ref()).clone()),
            Step::AccountReady { account } => Action::VouchForAccount(account.clone()),
            Step::Vouched { account } => match &self.reserved {
                Some(reserved) if reserved.ready => {
                    let lineage = self.certificate.as_ref().and_then(|certificate| certificate.replaced_by(account));
                    let replaces = lineage.map(|lineage| lineage.id.clone());
                    let profile = self.profile.as_ref().or(policy.profile.as_ref()).cloned();
                    Action::OpenOrder { account: account.clone(), replaces, profile }
                }
                // It may have waited for room for days.
                _ if self.is_to_be_looked_at(now, policy) => Action::LookAtNames,
                reserved => {
                    let kind = self.order_kind(account, now);
                    let (lane, again) = (self.lane(Some(now)), reserved.is_some());
                    return Next::Book(Booking::Reserve { account: account.clone(), kind, lane, again });
                }
            },
            Step::Authorizing { order } => Action::FetchChallenges(order.clone()),
            Step::ChallengesKnown { answers, .. } => Action::PublishChallenges(answers.clone()),
            Step::Published { order, .. } => Action::BeginValidation(order.clone()),
            Step::ChallengePending { order, .. } | Step::KeySealed { order, .. } | Step::Retrieving { order, .. } => {
                Action::LookAtOrder(order.clone())
            }
            Step::Authorized { .. } => Action::SealKey,
            Step::Finalizing { order, sealed } => Action::Finalize(order.clone(), sealed.clone()),
            Step::Downloading { order, sealed } => Action::FetchCertificate(order.clone(), sealed.clone()),
            Step::Issued { sealed, chain, .. } => Action::StoreBundle { sealed: sealed.clone(), chain: chain.clone() },
        })
    }
}

/// Orders that are given up.
impl Site {
    /// Gives the order up, and begins another one.
    fn begin_anew(&mut self) {
        self.abandon_order();
        self.order = Some(Step::Requested);
    }

    fn abandon_order(&mut self) {
        let Some(step) = self.order.take() else { return };
        self.abandoned.extend(step.order().cloned());
        self.published.extend_from_slice(step.published());
        if step.sealed().is_none() {
            self.give_back();
        } else {
            // With a request at the CA there may be a certificate, too.
            self.reserved = None;
        }
    }

    /// Gives back the room that was reserved.
    fn give_back(&mut self) {
        if let Some(Reserved { order, certificate, .. }) = self.reserved.take() {
            self.owed.back.extend(order.into_iter().chain(certificate));
        }
    }
}

/// The views for people and programs.
impl Site {
    /// Where its order is, if one is under way or has failed.
    pub fn stage(&self) -> Option<Stage> {
        let attempt = &self.attempts.order;
        if self.departed {
            None
        } else if attempt.dead || attempt.rejected >= DEAD_LETTER {
            Some(Stage::DeadLetter)
        } else {
            self.order.as_ref().map(Step::stage)
        }
    }

    /// From when on operators should hear that the certificate is near its end.
    pub fn expiring_at(&self) -> Option<Timestamp> {
        self.certificate.as_ref().filter(|_| !self.departed).map(Issued::expiring_at)
    }
}

/// Rejections in a row after which an order is a dead letter: it is tried once a day then.
const DEAD_LETTER: u32 = 4;

#[cfg(test)]
mod tests;
