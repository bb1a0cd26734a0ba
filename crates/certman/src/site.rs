//! A site and its order: what is persisted, and how it moves on. Pure: the clock and chance are passed in.
//!
//! ```text
//! requested -> authorizing -> challenge pending -> authorized -> key sealed -> retrieving -> issued -> (stored)
//!      ^             |                |                              |              |
//!      +-------------+----------------+--- the CA rejected the order +--------------+
//! ```
//!
//! A step is persisted before its effect on the CA begins, and the next one after it is done. A process that dies in
//! between does the same step again. From `key sealed` on the order has one key: its envelope and CSR are persisted.

use certseal_seal::Sealed;
use certseal_wire::{
    Base64, DnsName, LOST, NameSet, OrderSummary, PoolName, SiteRequest, SiteState, SiteStatus, Upstream,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Everything that certman knows about one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The site's own name.
    pub site: DnsName,
    /// The names that lead to it.
    pub names: NameSet,
    /// The server behind the edge.
    pub upstream: Upstream,
    /// The pools that may serve it, sorted.
    pub pools: Vec<PoolName>,
    /// Whose site it is, if the platform says so.
    #[serde(default)]
    pub owner: Option<String>,
    /// Pools that served it before, and may not have been told yet that they no longer do; sorted.
    #[serde(default)]
    pub left: Vec<PoolName>,
    /// The site has left; what remains keeps its versions from being used again.
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
    /// Orders that were given up: what is still pending in them is to be deactivated at the CA.
    pub abandoned: Vec<String>,
    /// The stored certificate, if others may have its key: an order for another one goes before everything else.
    #[serde(default)]
    pub compromised: Option<Compromised>,
    /// Whether certstore has a bundle that counts is to be looked at: it came back from a backup, or an issuer is listed no
    /// more.
    #[serde(default)]
    pub unconfirmed: bool,
    /// Should it have none, another one is ordered at once: the security team's ring says that what was there counts no
    /// more. On certstore's word alone orders are few.
    #[serde(default)]
    pub issuer_left: bool,
    /// certstore says that it has no such bundle any more. Another one is ordered when there is room for it.
    #[serde(default)]
    pub lost: bool,
    /// A bundle of the site had its key in an envelope: no key in a legacy format takes its place, also after the site left.
    #[serde(default)]
    pub enveloped: bool,
    /// Certificates with a compromised key that are no longer served, as DER: the CA is to revoke them.
    #[serde(default)]
    pub revoke: Vec<Base64>,
    /// How its work is going.
    pub attempt: Attempt,
}

/// A stored certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// The CA's name.
    pub authority: String,
    /// End of validity.
    pub not_after: Timestamp,
    /// When the renewal begins.
    pub renew_at: Timestamp,
}

/// A stored certificate whose key others may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compromised {
    /// The version of its bundle.
    pub version: u64,
    /// The certificate, DER.
    pub leaf: Base64,
}

/// How the work on a site is going.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Failures in a row.
    pub failures: u32,
    /// When the next attempt begins, after a failed one.
    pub retry_at: Option<Timestamp>,
    /// What went wrong last.
    pub diagnosis: Option<String>,
    /// No further attempt follows without a change.
    pub dead: bool,
}

/// How far an order has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// The CA does not know of it yet, or its answer was lost.
    Requested,
    /// The CA has an order; its challenges are not known yet.
    Authorizing {
        /// The order at the CA.
        order_url: String,
    },
    /// The challenges are known. The CA may or may not have been told that they are answered.
    ChallengePending {
        /// The order at the CA.
        order_url: String,
        /// What to answer, for names that are not authorized yet.
        answers: Vec<Answer>,
    },
    /// The CA is ready to issue.
    Authorized {
        /// The order at the CA.
        order_url: String,
    },
    /// The key is sealed. The CA may or may not have got the CSR.
    KeySealed {
        /// The order at the CA.
        order_url: String,
        /// The key and the request for it.
        sealed: SealedKey,
    },
    /// The CA has the CSR.
    Retrieving {
        /// The order at the CA.
        order_url: String,
        /// The key and the request for it.
        sealed: SealedKey,
    },
    /// The certificate is here: from the CA, or with a site that a platform brought. certstore may or may not have it.
    Issued {
        /// Its key.
        sealed: SealedKey,
        /// The chain as DER, leaf first.
        chain: Vec<Base64>,
    },
}

/// An http-01 challenge and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The name under validation.
    pub host: DnsName,
    /// The CA's token.
    pub token: String,
    /// The answer.
    pub key_authorization: String,
}

/// A key after its sealing: all that is left of it here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedKey {
    /// The certificate signing request, DER; empty for a key whose certificate was not ordered by us.
    pub csr: Base64,
    /// The envelope, or the key as a platform sealed it before.
    #[serde(alias = "envelope")]
    pub bytes: Base64,
}

/// The next thing to do for a site.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Put the route into certstore.
    StoreRoute,
    /// Have the CA revoke this certificate, DER.
    Revoke(Base64),
    /// Deactivate what is pending in this order at the CA.
    Abandon(String),
    /// Look which version of the bundle certstore has.
    Confirm,
    /// Ask for room to order what certstore lost.
    Reorder,
    /// Take this step of the order.
    Order(Step),
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// certstore has the route.
    RouteStored,
    /// certstore has this version of the bundle; 0 for none.
    Confirmed(u64),
    /// There is room to order what certstore lost.
    Reordered,
    /// The CA has revoked that certificate, or never will.
    Revoked(Base64),
    /// Nothing is pending in that order any more.
    Abandoned(String),
    /// The order moves on.
    Moved(Step),
    /// certstore has the bundle.
    Stored {
        /// The CA's name.
        authority: String,
        /// Start of validity.
        not_before: Timestamp,
        /// End of validity.
        not_after: Timestamp,
        /// Whether its key is in an envelope.
        enveloped: bool,
    },
    /// It did not work.
    Failed(Failure),
}

/// Why a task did not work.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What follows from it.
    pub kind: FailureKind,
    /// What happened, for people.
    pub detail: String,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Somebody could not be reached or is not ready: try the same step again soon.
    Unavailable,
    /// The CA asks to wait at least this many seconds: then the same step again.
    Throttled(u64),
    /// certstore has this version already, put there by us: go on above it.
    Outrun(u64),
    /// The CA gave up on this order: begin a new one later.
    Rejected,
    /// No order for this site can succeed.
    Hopeless,
}

/// How long to wait, and how chance spreads it.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// After a first rejected order.
    pub retry: SignedDuration,
    /// A uniform random number in 0..1.
    pub chance: f64,
}

impl Site {
    /// A new site, with nothing done yet.
    pub fn new(site: DnsName, request: SiteRequest) -> Self {
        Self {
            site,
            names: request.names,
            upstream: request.upstream,
            pools: request.pools,
            owner: request.owner,
            left: Vec::new(),
            departed: false,
            route_version: 1,
            route_stored: false,
            certificate: None,
            bundle_version: 0,
            order: Some(Step::Requested),
            abandoned: Vec::new(),
            compromised: None,
            unconfirmed: false,
            issuer_left: false,
            lost: false,
            enveloped: false,
            revoke: Vec::new(),
            attempt: Attempt::default(),
        }
    }

    /// The site after certstore came back from a backup, which may be from before the newest route and bundle: the route is
    /// put again, and a bundle that is not there any more is ordered anew. A dead order is tried once more.
    pub fn unconfirmed(self) -> Self {
        let attempt = if self.attempt.dead { Attempt::default() } else { self.attempt };
        Self { route_stored: false, unconfirmed: !self.departed, attempt, ..self }
    }

    /// The site after an issuer is listed no more: what it signed counts for nothing, and is put or ordered anew.
    pub fn after_issuer_left(self) -> Self {
        Self { issuer_left: !self.departed, ..self.unconfirmed() }
    }

    /// The site once another issuer key signs: everything is signed anew, under versions above `floor`, which the security
    /// team signed. A key that is sealed and not stored was sealed under the other issuer, so that its order begins anew.
    pub fn signed_anew(mut self, floor: u64) -> Self {
        self.route_version = successor(self.route_version, floor);
        self.bundle_version = below_ceiling(self.bundle_version, floor);
        let is_ours = |step: &Step| !step.is_sealed_in_envelope();
        if self.order.as_ref().is_some_and(|step| !is_ours(step)) {
            self.abandon_order();
            self.order = Some(Step::Requested);
        }
        self.after_issuer_left()
    }

    /// The site with a certificate and a key that a platform brought: they are stored next. `stored` is the version of the
    /// bundle that certstore has already; 0 for none.
    pub fn imported(mut self, sealed: SealedKey, chain: Vec<Base64>, stored: u64) -> Self {
        self.abandon_order();
        let bundle_version = self.bundle_version.max(stored);
        let order = Some(Step::Issued { sealed, chain });
        Self { order, bundle_version, attempt: Attempt::default(), ..self }
    }

    /// The site with the key of its stored certificate under another seal: the two are stored next.
    pub fn resealed(self, sealed: SealedKey, chain: Vec<Base64>) -> Self {
        Self { order: Some(Step::Issued { sealed, chain }), attempt: Attempt::default(), ..self }
    }

    /// The site with its certificate to be issued again, since others may have the key of `stored`. The order under way
    /// is given up: its key may be sealed to the same compromised key.
    pub fn replaced(mut self, stored: Compromised) -> Self {
        if self.compromised.as_ref().is_some_and(|known| stored.version <= known.version) {
            return self;
        }
        self.abandon_order();
        self.revoke.extend(self.compromised.take().map(|older| older.leaf));
        Self { compromised: Some(stored), order: Some(Step::Requested), attempt: Attempt::default(), ..self }
    }

    /// The site after a request to change it. The same request again changes nothing, but revives a dead order.
    pub fn changed(mut self, request: SiteRequest) -> Self {
        let covers_the_same = self.names == request.names && self.pools == request.pools;
        let routes_the_same = covers_the_same && self.upstream == request.upstream && !self.departed;
        if !routes_the_same {
            self.route_version = self.route_version.saturating_add(1);
            self.route_stored = false;
        }
        if !covers_the_same || self.departed || self.attempt.dead {
            self.abandon_order();
            self.order = Some(Step::Requested);
            self.attempt = Attempt::default();
        }
        let mut left = [self.left, self.pools].concat();
        left.retain(|pool| !request.pools.contains(pool));
        left.sort();
        left.dedup();
        let SiteRequest { names, upstream, pools, owner } = request;
        Self { names, upstream, pools, owner, left, departed: false, ..self }
    }

    /// The site after it has left.
    pub fn departed(mut self) -> Self {
        self.abandon_order();
        self.revoke.extend(self.compromised.take().map(|compromised| compromised.leaf));
        Self {
            departed: true,
            route_version: self.route_version.saturating_add(1),
            route_stored: false,
            order: None,
            lost: false,
            attempt: Attempt::default(),
            ..self
        }
    }

    /// The site with a renewal begun, unless an order is under way already; or planned for `at`, if that is earlier than
    /// planned before.
    pub fn renewed(mut self, at: Option<Timestamp>) -> Self {
        if let (Some(at), None, Some(certificate)) = (at, &self.order, &mut self.certificate) {
            certificate.renew_at = certificate.renew_at.min(at);
            return self;
        }
        self.order = self.order.or(Some(Step::Requested));
        Self { lost: false, attempt: Attempt::default(), ..self }
    }

    /// When there is something to do. None: not before somebody changes it.
    pub fn due(&self) -> Option<Timestamp> {
        if self.attempt.dead {
            return None;
        }
        // The agenda is sorted: what stands between a compromised key and its end is done before everything else.
        let is_urgent = self.compromised.is_some() || !self.revoke.is_empty();
        let at_once = Some(self.attempt.retry_at.unwrap_or(if is_urgent { FIRST } else { AT_ONCE }));
        match (&self.order, &self.certificate) {
            _ if !self.route_stored || !self.abandoned.is_empty() || !self.revoke.is_empty() => at_once,
            _ if self.departed => None,
            (Some(_), _) => at_once,
            _ if self.unconfirmed => at_once,
            // Until its renewal is due anyway.
            (None, Some(certificate)) if self.lost => at_once.min(Some(certificate.renew_at)),
            (None, certificate) => certificate.as_ref().map(|certificate| certificate.renew_at),
        }
    }

    /// The next thing to do, if it is due.
    pub fn task(&self, now: Timestamp) -> Option<Task> {
        self.due().filter(|due| *due <= now)?;
        Some(match (&self.order, self.abandoned.first()) {
            _ if !self.route_stored => Task::StoreRoute,
            _ if !self.revoke.is_empty() => Task::Revoke(self.revoke[0].clone()),
            (_, Some(order_url)) => Task::Abandon(order_url.clone()),
            (Some(step), None) => Task::Order(step.clone()),
            (None, None) if self.unconfirmed => Task::Confirm,
            (None, None) if self.lost && !self.is_to_be_renewed(now) => Task::Reorder,
            (None, None) => Task::Order(Step::Requested),
        })
    }

    /// The site after a task.
    pub fn after(mut self, outcome: Outcome, now: Timestamp, pace: Pace) -> Self {
        match outcome {
            Outcome::RouteStored => Self { route_stored: true, left: Vec::new(), attempt: Attempt::default(), ..self },
            Outcome::Confirmed(stored) => {
                // The key was sealed and forgotten, so that it takes a new one.
                let is_gone = self.certificate.is_some() && stored < self.bundle_version.max(1);
                self.order = (is_gone && self.issuer_left).then_some(Step::Requested);
                let lost = is_gone && !self.issuer_left;
                Self { unconfirmed: false, issuer_left: false, lost, attempt: Attempt::default(), ..self }
            }
            Outcome::Reordered => {
                Self { lost: false, order: Some(Step::Requested), attempt: Attempt::default(), ..self }
            }
            Outcome::Revoked(leaf) => {
                self.revoke.retain(|other| *other != leaf);
                Self { attempt: Attempt::default(), ..self }
            }
            Outcome::Abandoned(order_url) => {
                self.abandoned.retain(|url| *url != order_url);
                self
            }
            // A first authorization is no success of the whole: the pace of retries goes on until the CA is ready.
            Outcome::Moved(step @ (Step::Authorizing { .. } | Step::ChallengePending { .. })) => {
                self.attempt.retry_at = None;
                Self { order: Some(step), ..self }
            }
            Outcome::Moved(step) => Self { order: Some(step), attempt: Attempt::default(), ..self },
            Outcome::Stored { authority, not_before, not_after, enveloped } => {
                let is_same = |before: &&Issued| before.not_after == not_after && before.authority == authority;
                let renew_at = match self.certificate.as_ref().filter(is_same) {
                    // The certificate is the one from before, under another seal: that changes nothing about its end.
                    Some(before) => before.renew_at,
                    None => first_renewal(not_before, not_after, now, pace.chance),
                };
                self.bundle_version = self.bundle_version.saturating_add(1);
                self.enveloped |= enveloped;
                self.lost = false;
                let version = self.bundle_version;
                let replaced = self.compromised.take_if(|compromised| compromised.version < version);
                self.revoke.extend(replaced.map(|compromised| compromised.leaf));
                Self {
                    certificate: Some(Issued { authority, not_after, renew_at }),
                    order: None,
                    attempt: Attempt::default(),
                    ..self
                }
            }
            Outcome::Failed(failure) => self.failed(failure, now, pace),
        }
    }

    fn failed(mut self, failure: Failure, now: Timestamp, pace: Pace) -> Self {
        let before = self.attempt.failures;
        let wait = match failure.kind {
            FailureKind::Unavailable => Some(doubling(before)),
            FailureKind::Outrun(version) if !self.route_stored => {
                self.route_version = self.route_version.max(version).saturating_add(1);
                Some(doubling(before))
            }
            FailureKind::Outrun(version) => {
                // The version is sealed into the key, so it takes a new one.
                self.bundle_version = self.bundle_version.max(version);
                self.abandon_order();
                self.order = Some(Step::Requested);
                Some(doubling(before))
            }
            FailureKind::Throttled(seconds) => {
                Some(doubling(before).max(SignedDuration::from_secs(seconds.min(DAY.as_secs().unsigned_abs()) as i64)))
            }
            FailureKind::Rejected => {
                self.abandon_order();
                self.order = Some(Step::Requested);
                let growth = 10_i32.saturating_pow(before.min(4));
                Some(pace.retry.saturating_mul(growth).min(DAY))
            }
            FailureKind::Hopeless => {
                self.abandon_order();
                self.order = Some(Step::Requested);
                None
            }
        };
        self.attempt = Attempt {
            failures: before.saturating_add(1),
            // Up to a fifth longer, so that what failed together does not come back together.
            retry_at: wait
                .and_then(|wait| now.checked_add(wait.saturating_add(fraction(wait, pace.chance / 5.0))).ok()),
            diagnosis: Some(failure.detail),
            dead: wait.is_none(),
        };
        self
    }

    fn is_to_be_renewed(&self, now: Timestamp) -> bool {
        self.certificate.as_ref().is_none_or(|certificate| certificate.renew_at <= now)
    }

    fn abandon_order(&mut self) {
        self.abandoned.extend(self.order.take().and_then(|step| step.order_url().map(str::to_owned)));
    }

    /// What people and programs see of it.
    pub fn status(&self) -> SiteStatus {
        let state = match &self.attempt {
            attempt if attempt.dead => SiteState::Failed,
            attempt if attempt.failures > 0 => SiteState::Waiting,
            _ if self.certificate.is_none() => SiteState::Pending,
            _ => SiteState::Active,
        };
        let step = match &self.order {
            _ if !self.route_stored => Some("route"),
            Some(step) => Some(step.name()),
            None if self.lost => Some(LOST),
            None => None,
        };
        SiteStatus {
            site: self.site.clone(),
            names: self.names.clone(),
            upstream: self.upstream.clone(),
            pools: self.pools.clone(),
            owner: self.owner.clone(),
            state,
            version: self.bundle_version,
            authority: self.certificate.as_ref().map(|certificate| certificate.authority.clone()),
            not_after: self.certificate.as_ref().map(|certificate| certificate.not_after),
            renew_at: self.certificate.as_ref().map(|certificate| certificate.renew_at),
            order: step.map(|step| OrderSummary {
                step: step.to_owned(),
                failures: self.attempt.failures,
                retry_at: self.attempt.retry_at,
                diagnosis: self.attempt.diagnosis.clone(),
            }),
        }
    }
}

impl Step {
    /// The step as people and metrics call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Authorizing { .. } => "authorizing",
            Self::ChallengePending { .. } => "challenge pending",
            Self::Authorized { .. } => "authorized",
            Self::KeySealed { .. } => "key sealed",
            Self::Retrieving { .. } => "retrieving",
            Self::Issued { .. } => "issued",
        }
    }
}

impl Step {
    /// The order at the CA, while the CA has work left in it.
    fn order_url(&self) -> Option<&str> {
        match self {
            Self::Authorizing { order_url }
            | Self::ChallengePending { order_url, .. }
            | Self::Authorized { order_url }
            | Self::KeySealed { order_url, .. }
            | Self::Retrieving { order_url, .. } => Some(order_url),
            Self::Requested | Self::Issued { .. } => None,
        }
    }

    /// Whether its key is in an envelope, which an issuer signed.
    fn is_sealed_in_envelope(&self) -> bool {
        match self {
            Self::KeySealed { sealed, .. } | Self::Retrieving { sealed, .. } | Self::Issued { sealed, .. } => {
                sealed.is_envelope()
            }
            _ => false,
        }
    }
}

impl SealedKey {
    /// Whether it is in an envelope, and not as a platform sealed it before.
    pub fn is_envelope(&self) -> bool {
        Sealed::parse(&self.bytes.0).is_ok_and(|sealed| sealed.envelope().is_some())
    }
}

/// The version after `version`. Versions that honest work does not come to were signed by somebody who had the issuer key
/// that is gone: the next one is above the floor then.
fn successor(version: u64, floor: u64) -> u64 {
    below_ceiling(version, floor).saturating_add(1)
}

fn below_ceiling(version: u64, floor: u64) -> u64 {
    if version < CEILING { version } else { floor }
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: FailureKind, detail: impl ToString) -> Self {
        // What others send is kept in the journal, shown and logged: it must not grow without bound.
        Self { kind, detail: detail.to_string().chars().take(MAX_DETAIL).collect() }
    }
}

/// When a certificate that is stored at `now` is renewed. Never at once: one that is past two thirds when it comes would
/// be ordered again without pause, and many that were brought along together all at the same time.
fn first_renewal(not_before: Timestamp, not_after: Timestamp, now: Timestamp, chance: f64) -> Timestamp {
    let rest = not_after.duration_since(now);
    let least = fraction(rest, 0.1 + 0.2 * chance).max(LEAST_LIFE);
    renewal(not_before, not_after, chance).max(now.checked_add(least).unwrap_or(not_after))
}

/// A uniformly random instant between 63 % and 67 % of the validity: two thirds, spread so that what was issued
/// together is not renewed together.
fn renewal(not_before: Timestamp, not_after: Timestamp, chance: f64) -> Timestamp {
    let lifetime = not_after.duration_since(not_before);
    not_before.checked_add(fraction(lifetime, 0.63 + 0.04 * chance)).unwrap_or(not_after)
}

/// 1, 2, 4 ... 64 seconds.
fn doubling(failures: u32) -> SignedDuration {
    SignedDuration::from_secs(1 << failures.min(6))
}

fn fraction(duration: SignedDuration, part: f64) -> SignedDuration {
    SignedDuration::from_millis((duration.as_millis() as f64 * part) as i64)
}

/// Before everything else.
const FIRST: Timestamp = Timestamp::UNIX_EPOCH;

/// Before everything that has a time.
const AT_ONCE: Timestamp = Timestamp::constant(1, 0);

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The shortest time from issuance to renewal.
const LEAST_LIFE: SignedDuration = SignedDuration::from_secs(60);

/// No site changes so often: a billion times a second, for 292 years.
const CEILING: u64 = 1 << 63;

/// Characters of a diagnosis.
const MAX_DETAIL: usize = 1000;

#[cfg(test)]
mod tests;
