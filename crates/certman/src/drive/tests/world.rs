//! What lies outside of certman's process: the clock, the CA (the planner's twin), certstore, and the faults of all of them.

use std::{collections::HashMap, sync::Arc};

use certseal_issuance::{
    AccountRef, Action, Answer as ChallengeAnswer, AuthorityId, Failure, FailureKind, OrderRef, OrderReport,
    OrderState, Outcome, SealedKey, Site, Window,
};
use certseal_planner::{Answer, Placed, Replaced, Twin, TwinLimits};
use certseal_wire::{Base64, DnsName, Finding, FindingCode, NameReport, NamesReport};
use jiff::{SignedDuration, Timestamp};

use super::memory::Memory;

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Uniform in 0..1.
    pub(super) fn part(&mut self) -> f64 {
        self.below(1 << 32) as f64 / (1_u64 << 32) as f64
    }
}

#[derive(Debug)]
struct Order {
    site: usize,
    placed: Placed,
    state: State,
    is_validated: bool,
    /// The number of the key in the request.
    key: Option<u64>,
    certificate: Option<Certificate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
}

#[derive(Debug, Clone, Copy)]
struct Certificate {
    serial: u64,
    not_before: i64,
    not_after: i64,
}

/// What certstore has of a site.
#[derive(Debug, Default, Clone)]
pub(super) struct Stored {
    pub(super) route: u64,
    pub(super) version: u64,
    pub(super) not_after: i64,
    bytes: Vec<u8>,
}

pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) storage: Arc<Memory>,
    /// Of all but certman, in milliseconds since 1970.
    pub(super) now: i64,
    /// What certman's clock is ahead.
    pub(super) skew: i64,
    pub(super) stored: Vec<Stored>,
    pub(super) is_calm: bool,
    pub(super) refused: Vec<&'static str>,
    /// Certificates that the CA issued and certstore has not, by site.
    pub(super) unstored: Vec<Vec<u64>>,
    pub(super) issued: u64,
    pub(super) away_until: i64,
    broken: Vec<bool>,
    twin: Twin,
    orders: Vec<Order>,
    replacing: HashMap<u64, usize>,
    keys: u64,
}

impl World {
    pub(super) fn new(chance: Chance, broken: Vec<bool>, limits: TwinLimits) -> Self {
        let sites = broken.len();
        Self {
            chance,
            storage: Arc::default(),
            now: START,
            skew: 0,
            stored: vec![Stored::default(); sites],
            is_calm: false,
            refused: Vec::new(),
            unstored: vec![Vec::new(); sites],
            issued: 0,
            away_until: 0,
            broken,
            twin: Twin::new(limits),
            orders: Vec::new(),
            replacing: HashMap::new(),
            keys: 0,
        }
    }

    /// certman's clock.
    pub(super) fn clock(&self) -> Timestamp {
        at(self.now + self.skew)
    }

    /// Orders that nobody finished and nobody gave up.
    pub(super) fn pending(&self) -> Vec<usize> {
        let is_open = |order: &Order| matches!(order.state, State::Pending | State::Ready | State::Processing);
        self.orders.iter().filter(|order| is_open(order)).map(|order| order.site).collect()
    }

    /// Performs an action. It may fail before it has an effect, or after it.
    pub(super) fn perform(&mut self, number: usize, site: &Site, action: &Action) -> Outcome {
        let is_of_ca = !matches!(
            action,
            Action::StoreRoute
                | Action::Confirm
                | Action::PublishChallenges(_)
                | Action::RetractChallenges(_)
                | Action::VouchForAccount(_)
                | Action::StoreBundle { .. }
                | Action::SealKey
        );
        let failed = |kind, detail: &str| Outcome::Failed(Failure::new(kind, detail));
        if is_of_ca && self.now < self.away_until {
            return failed(FailureKind::Unavailable, "the CA is away");
        }
        let luck = if self.is_calm { 99 } else { self.chance.below(100) };
        match luck {
            0..3 => return failed(FailureKind::Unavailable, "not reached"),
            3..5 if is_of_ca => return failed(FailureKind::Throttled(30), "busy"),
            _ => {}
        }
        let outcome = self.effect(number, site, action);
        match luck {
            5..9 if is_of_ca => failed(FailureKind::Unanswered, "the answer is lost"),
            5..9 if !matches!(action, Action::SealKey) => failed(FailureKind::Unavailable, "the answer is lost"),
            _ => outcome,
        }
    }

    fn effect(&mut self, number: usize, site: &Site, action: &Action) -> Outcome {
        let failed = |kind, detail: &str| Outcome::Failed(Failure::new(kind, detail));
        match action {
            Action::StoreRoute => {
                let stored = &mut self.stored[number];
                if site.route_version < stored.route {
                    return failed(FailureKind::Outrun(stored.route), "certstore has a later route");
                }
                stored.route = site.route_version;
                Outcome::RouteStored
            }
            Action::OpenAccount(_) => Outcome::AccountReady(account()),
            Action::VouchForAccount(_) => Outcome::Vouched,
            Action::PublishChallenges(_) => Outcome::Published,
            Action::RetractChallenges(_) => Outcome::Retracted,
            Action::Confirm => Outcome::Confirmed(self.stored[number].version),
            Action::OpenOrder { replaces, .. } => self.new_order(number, replaces.as_deref()),
            Action::FetchChallenges(order) => match self.order(order).state {
                State::Pending => Outcome::ChallengesKnown(vec![ChallengeAnswer {
                    host: site.site.clone(),
                    token: order.url.clone(),
                    key_authorization: String::new(),
                    method: Default::default(),
                }]),
                State::Invalid => self.invalid(&site.site, order),
                _ => Outcome::ChallengesKnown(Vec::new()),
            },
            Action::BeginValidation(order) => {
                let (now, is_broken) = (self.now, self.broken[number]);
                let known = self.order(order);
                if known.state == State::Pending && !known.is_validated {
                    known.is_validated = true;
                    known.state = if is_broken { State::Invalid } else { State::Ready };
                    if is_broken {
                        self.twin.fail(number as u32, now);
                    }
                }
                Outcome::ValidationBegun { retry_after: None }
            }
            Action::LookAtOrder(order) => {
                let is_signed = self.chance.one_in(2);
                let known = self.order(order);
                if known.state == State::Processing && is_signed {
                    known.state = State::Valid;
                }
                self.report(&site.site, order)
            }
            Action::SealKey => {
                self.keys += 1;
                let key = Base64(self.keys.to_be_bytes().to_vec());
                Outcome::KeySealed(SealedKey { csr: Some(key.clone()), bytes: key, enveloped: true })
            }
            Action::Finalize(order, sealed) => self.finalize(number, site, order, sealed),
            Action::FetchCertificate(order, _) => {
                let known = self.order(order);
                let Some(certificate) = known.certificate.filter(|_| known.state == State::Valid) else {
                    return Outcome::Certificate(None);
                };
                let key = known.key.unwrap_or(0);
                let Certificate { serial, not_before, not_after } = certificate;
                let words = [serial, key, not_before.unsigned_abs(), not_after.unsigned_abs()];
                Outcome::Certificate(Some(vec![Base64(words.iter().flat_map(|word| word.to_be_bytes()).collect())]))
            }
            Action::StoreBundle { sealed, chain } => self.store(number, site, sealed, chain),
            Action::Deactivate(order) => {
                let known = self.order(order);
                if known.state == State::Pending {
                    known.state = State::Invalid;
                }
                // One that is validated has nothing pending, and is forgotten by the CA some day.
                if known.state == State::Ready {
                    known.state = State::Invalid;
                }
                Outcome::Deactivated(order.clone())
            }
            Action::AskAdvice(_) => match self.twin.window(number as u32) {
                Some((start, end)) => {
                    let window = Window::new(at(start), at(end)).unwrap();
                    Outcome::Advised { window, retry_after: SignedDuration::from_hours(24), explanation: None }
                }
                None => Outcome::NotAdvised,
            },
            Action::LookAtNames => {
                let detail = "stray".to_owned();
                let finding = Finding { code: FindingCode::StrayIpv6, detail, edits: Vec::new() };
                let findings = if !self.is_calm && self.chance.one_in(10) { vec![finding] } else { Vec::new() };
                let report = NameReport::new(site.site.clone(), findings);
                Outcome::NamesAre(NamesReport::new(at(self.now), vec![report]))
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn new_order(&mut self, number: usize, replaces: Option<&str>) -> Outcome {
        let replaces = replaces.map(|id| id.parse().unwrap());
        let is_open = |number: &usize| self.orders[*number].state != State::Invalid;
        let refused = |kind, detail: &str| Outcome::Failed(Failure::new(kind, detail));
        if replaces.and_then(|serial| self.replacing.get(&serial)).is_some_and(is_open) {
            return refused(FailureKind::AlreadyReplaced, "it has a replacement");
        }
        let opened = |order: usize| Outcome::OrderOpened(OrderRef { account: Some(account()), url: order.to_string() });
        let is_reused = |order: &Order| order.site == number && matches!(order.state, State::Pending | State::Ready);
        if let Some(found) = self.orders.iter().rposition(is_reused) {
            return opened(found);
        }
        let replaced = replaces.map(|serial| Replaced { set: number as u32, serial });
        match self.twin.new_order(number as u32, number as u32, replaced, true, self.now) {
            Answer::Placed(placed) => {
                let order = Order {
                    site: number,
                    placed,
                    state: State::Pending,
                    is_validated: false,
                    key: None,
                    certificate: None,
                };
                self.orders.push(order);
                self.replacing.extend(replaces.map(|serial| (serial, self.orders.len() - 1)));
                opened(self.orders.len() - 1)
            }
            Answer::AlreadyReplaced => refused(FailureKind::AlreadyReplaced, "it has a replacement"),
            Answer::Limited(limit) => {
                self.refused.push(limit);
                refused(FailureKind::Throttled(3600), limit)
            }
            Answer::Paused => {
                self.refused.push("paused");
                refused(FailureKind::Hopeless, "paused")
            }
        }
    }

    fn finalize(&mut self, number: usize, site: &Site, order: &OrderRef, sealed: &SealedKey) -> Outcome {
        let now = self.now;
        let known = self.order(order);
        match known.state {
            State::Ready => {}
            State::Invalid => return self.invalid(&site.site, order),
            _ => return Outcome::Failed(Failure::new(FailureKind::Unavailable, "the order is not ready")),
        }
        known.state = State::Processing;
        known.key = Some(word(&sealed.csr.as_ref().unwrap().0, 0));
        let placed = known.placed;
        let serial = self.twin.issue(placed, LIFETIME, now);
        self.order(order).certificate = Some(Certificate { serial, not_before: now, not_after: now + LIFETIME });
        self.issued += 1;
        self.unstored[number].push(serial);
        assert!(self.unstored[number].len() == 1, "{}: issued again before the one before was stored", site.site);
        self.report(&site.site, order)
    }

    fn store(&mut self, number: usize, site: &Site, sealed: &SealedKey, chain: &[Base64]) -> Outcome {
        let [serial, key, not_before, not_after] = [0, 1, 2, 3].map(|place| word(&chain[0].0, place));
        assert_eq!(word(&sealed.bytes.0, 0), key, "{}: the certificate of another key", site.site);
        let version = site.bundle_version + 1;
        let bytes = [sealed.bytes.0.clone(), chain[0].0.clone()].concat();
        let stored = &mut self.stored[number];
        if stored.version > version || stored.version == version && stored.bytes != bytes {
            return Outcome::Failed(Failure::new(FailureKind::Outrun(stored.version), "certstore has a later one"));
        }
        stored.version = version;
        (stored.bytes, stored.not_after) = (bytes, not_after as i64);
        self.unstored[number].retain(|unstored| *unstored != serial);
        Outcome::Stored {
            authority: "twin".into(),
            id: Some(serial.to_string()),
            not_before: at(not_before as i64),
            not_after: at(not_after as i64),
            responder: false,
        }
    }

    fn report(&mut self, name: &DnsName, order: &OrderRef) -> Outcome {
        let state = match self.order(order).state {
            State::Pending => OrderState::Pending,
            State::Ready => OrderState::Ready,
            State::Processing => OrderState::Processing,
            State::Valid => OrderState::Valid,
            State::Invalid => return self.invalid(name, order),
        };
        Outcome::OrderIs(OrderReport { state, retry_after: None })
    }

    fn invalid(&mut self, name: &DnsName, order: &OrderRef) -> Outcome {
        let names = if self.order(order).is_validated { vec![name.clone()] } else { Vec::new() };
        Outcome::Failed(Failure { names, ..Failure::new(FailureKind::Rejected, "could not resolve it") })
    }

    fn order(&mut self, order: &OrderRef) -> &mut Order {
        &mut self.orders[order.url.parse::<usize>().unwrap()]
    }
}

pub(super) fn account() -> AccountRef {
    AccountRef { authority: AuthorityId("https://ca.example/directory".into()), thumbprint: Some("print".into()) }
}

pub(super) fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

fn word(bytes: &[u8], place: usize) -> u64 {
    u64::from_be_bytes(bytes[8 * place..8 * place + 8].try_into().unwrap())
}

/// 1 January 2027.
pub(super) const START: i64 = 1_798_761_600_000;
pub(super) const MINUTE: i64 = 60_000;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
const LIFETIME: i64 = 12 * DAY;
