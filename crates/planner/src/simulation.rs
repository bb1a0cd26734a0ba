//! The simulation: an agenda of instants, lanes that share what certman can do, and the CA's twin.

use std::collections::{HashMap, VecDeque};

use certseal_issuance::{
    AccountRef, Action, Answer as ChallengeAnswer, AuthorityId, Booked, Booking, Failure, FailureKind, Issued, Lane,
    Moment, Next, OrderRef, Outcome, Policy, SealedKey, Site, Step, Turns, Verdict, Window,
    budget::{self, Limits, Line, Reserved},
};
use certseal_wire::{Base64, DnsName};
use jiff::{SignedDuration, Timestamp};

use crate::{
    agenda::Agenda,
    chance::{Chance, Mixing, of_site},
    clock::{DAY, START_MS, at},
    report::{Recorder, Report},
    scenario::{Revocation, Scenario, ScenarioError},
    slots::Slots,
    steps::Steps,
    twin::{Answer, Placed, Replaced, Twin, TwinLimits},
};

/// Runs a scenario to its end. `progress` is told each day.
///
/// # Errors
/// When the scenario cannot be simulated.
pub fn simulate(scenario: &Scenario, progress: impl FnMut(u32)) -> Result<Report, ScenarioError> {
    observe(scenario, progress, |_| {})
}

/// Like [`simulate`], and tells of each event at the CA.
///
/// # Errors
/// When the scenario cannot be simulated.
pub fn observe(
    scenario: &Scenario,
    progress: impl FnMut(u32),
    mut observer: impl FnMut(Event),
) -> Result<Report, ScenarioError> {
    scenario.check()?;
    Ok(Simulation::new(scenario, &mut observer)?.run(progress))
}

/// Something that happened at the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds since the start.
    pub at: i64,
    /// The number of the site.
    pub site: u32,
    /// What it was.
    pub happened: Happened,
}

/// What may happen at the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It took an order.
    Ordered,
    /// It issued a certificate.
    Issued,
    /// A validation failed.
    Failed,
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    observer: &'a mut dyn FnMut(Event),
    policy: Policy,
    limits: Limits,
    account: AccountRef,
    twin: Twin,
    sites: Slots,
    books: HashMap<Line, Timestamp, Mixing>,
    chance: Chance,
    /// Sites that become due, by the instant.
    agenda: Agenda,
    /// Sites that are due.
    ready: [VecDeque<u32>; Lane::ALL.len()],
    turns: Turns,
    /// When each site is woken; what the agenda says besides is of the past.
    wake: Vec<i64>,
    /// The steps in which sites are added, if they are.
    steps: Option<Steps>,
    outages: Vec<(i64, i64)>,
    next_revocation: i64,
    /// Orders that the CA has, by the numbers that are their addresses.
    orders: HashMap<u64, Placed, Mixing>,
    orders_placed: u64,
    recorder: Recorder,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, observer: &'a mut dyn FnMut(Event)) -> Result<Self, ScenarioError> {
        let authority = AuthorityId("https://ca.example/directory".into());
        let milliseconds = |days: f64| (days * DAY as f64) as i64;
        let outages = scenario.outages.iter();
        let outages = outages.map(|it| (milliseconds(it.day), milliseconds(it.day + it.hours / 24.0))).collect();
        let mut simulation = Self {
            scenario,
            observer,
            policy: Policy {
                authority: authority.clone(),
                further: Vec::new(),
                away: Vec::new(),
                retry: SignedDuration::from_secs(60),
                profile: None,
                looks_first: false,
                methods: Default::default(),
            },
            limits: scenario.limits()?,
            account: AccountRef { authority: authority.clone(), thumbprint: None },
            twin: Twin::new(TwinLimits::of(scenario)?),
            sites: Slots::new(scenario.sites, &authority, scenario.under_platform, scenario.seed),
            books: HashMap::default(),
            chance: Chance::new(scenario.seed),
            agenda: Agenda::new(scenario.end()),
            ready: Default::default(),
            turns: Turns::default(),
            wake: vec![0; scenario.sites as usize],
            steps: scenario.staging.map(|staging| Steps::new(staging, scenario.sites)),
            outages,
            next_revocation: 0,
            orders: HashMap::default(),
            orders_placed: 0,
            recorder: Recorder::new(scenario),
        };
        if simulation.steps.is_some() {
            simulation.next_step(0);
            return Ok(simulation);
        }
        for site in 0..scenario.sites {
            let at = match scenario.sites_per_day {
                0 => 0,
                each => i64::from(site) * DAY / i64::from(each),
            };
            simulation.schedule(site, at, Lane::NewSite);
        }
        Ok(simulation)
    }

    fn run(mut self, mut progress: impl FnMut(u32)) -> Report {
        let end = self.scenario.end();
        let cost = (1000.0 / self.scenario.orders_per_second) as i64;
        let mut revocations = self.scenario.revocations.clone();
        revocations.sort_by(|a, b| b.day.total_cmp(&a.day));
        let (mut now, mut day) = (0, 0);
        while now < end {
            if now >= i64::from(day) * DAY {
                self.recorder.day(
                    day,
                    now,
                    self.ready.each_ref().map(|lane| lane.len() as u64),
                    new_orders_left(&self, now),
                );
                progress(day);
                day += 1;
                let instant = at(now);
                self.books.retain(|_, entry| *entry > instant);
                self.twin.forget(now);
            }
            let begin = |it: &Revocation| (it.day * DAY as f64) as i64;
            self.next_revocation = revocations.last().map_or(i64::MAX, begin);
            if let Some(revocation) = revocations.pop_if(|it| begin(it) <= now) {
                self.revoke(revocation.part, revocation.hours, now);
            }
            while let Some((due, site, lane)) = self.agenda.pop(now) {
                if self.wake[site as usize] == due {
                    self.ready[lane as usize].push_back(site);
                }
            }
            let next_day = i64::from(day) * DAY;
            match self.turns.next(|lane| !self.ready[lane as usize].is_empty()) {
                Some(lane) => {
                    let Some(site) = self.ready[lane as usize].pop_front() else { continue };
                    if self.work_on(site, lane, now) {
                        now += cost.max(1);
                    }
                }
                None => {
                    let next = self.agenda.first().map_or(end, |(due, ..)| due);
                    let revocation = revocations.last().map_or(end, begin);
                    now = next.min(next_day).min(revocation).max(now + 1).min(end);
                }
            }
        }
        self.recorder.day(day, end, self.ready.each_ref().map(|lane| lane.len() as u64), new_orders_left(&self, end));
        if let Some(steps) = &self.steps {
            self.recorder.step_counts(steps.counts());
        }
        let (seed, broken) = (self.scenario.seed, self.scenario.broken);
        self.recorder.into_report(self.orders_placed, |site| !is_broken(seed, broken, site))
    }

    fn schedule(&mut self, site: u32, due: i64, lane: Lane) {
        self.wake[site as usize] = due;
        self.agenda.push((due, site, lane));
    }

    /// Does what is due for a site. Whether an order was placed.
    fn work_on(&mut self, number: u32, lane: Lane, now: i64) -> bool {
        let mut site = self.sites.take(number);
        let mut instant = at(now);
        let orders = self.orders_placed;
        let wake = loop {
            match site.next(instant, &self.policy) {
                Next::Book(booking) => {
                    let booked = self.booked(number, &site, &booking, instant);
                    self.recorder.trace(instant, number, booked_mark(&booked));
                    site = site.booked(&booking, booked);
                }
                Next::Do(action) => {
                    let outcome = self.perform(number, lane, &mut site, &action, instant);
                    self.recorder.trace(instant, number, mark(&action, &outcome));
                    let moment = Moment { now: instant, chance: self.chance.part() };
                    site = site.after(&action, outcome, moment, &self.policy);
                }
                Next::WakeAt(due) if due.duration_since(instant) < SOON => instant = due,
                Next::WakeAt(due) if self.is_quiet_question(&site, due) => instant = due,
                Next::WakeAt(_) => break site.due(),
                Next::Rest => break None,
            }
        };
        if wake.is_some() {
            self.pass_over_questions(number, &mut site);
        }
        if let Some(due) = wake.and_then(|_| site.due()) {
            let due_at = due.at.map_or(now + 1, |due| due.as_millisecond() - START_MS).max(now + 1);
            self.schedule(number, due_at, due.lane);
        } else {
            self.wake[number as usize] = -1;
        }
        if let Some(steps) = &mut self.steps
            && let Some(verdict) = steps.seen(number, &site, instant)
        {
            self.recorder.step_ended(now, steps.counts(), verdict);
            if verdict == Verdict::GoOn {
                self.next_step(now);
            }
        }
        self.sites.put(number, site);
        self.orders_placed > orders
    }

    /// Adds the sites of the next step, if any are left.
    fn next_step(&mut self, now: i64) {
        let sites = self.steps.as_mut().map(Steps::begin).unwrap_or_default();
        if !sites.is_empty() {
            self.recorder.step_begun(now, sites.len() as u32);
        }
        sites.for_each(|site| self.schedule(site, now + 1, Lane::NewSite));
    }

    /// Whether the next that a site does is to ask for advice, at an instant before which nothing happens that would change the
    /// answer: it is asked in advance then.
    fn is_quiet_question(&self, site: &Site, due: Timestamp) -> bool {
        let advice = site.certificate.as_ref().map(|certificate| &certificate.advice);
        let is_first = advice.is_some_and(|advice| advice.ask_at == Some(due) && advice.window.is_none());
        let due = due.as_millisecond() - START_MS;
        let is_away = self.outages.iter().any(|(from, to)| (*from..*to).contains(&due));
        is_first && site.order.is_none() && !is_away && due < self.next_revocation
    }

    /// Questions for advice whose answer would be the one from before are passed over, to the first one after the renewal.
    fn pass_over_questions(&self, number: u32, site: &mut Site) {
        let Some(certificate) = site.certificate.as_mut() else { return };
        let theirs = self.twin.window(number).and_then(|(start, end)| Window::new(at(start), at(end)));
        if certificate.advice.window == theirs {
            move_question(certificate, certificate.renew_at);
        }
    }

    fn booked(&mut self, number: u32, site: &Site, booking: &Booking, now: Timestamp) -> Booked {
        let moment = Moment { now, chance: self.chance.part() };
        let entry = |line: &Line| self.books.get(line).copied();
        match booking {
            Booking::Reserve { kind, lane, again, .. } => {
                let domain = self.sites.domain(number);
                let registered =
                    |_: &DnsName| if domain == u32::MAX { "platform.example".to_owned() } else { domain.to_string() };
                let mut cost = budget::order_cost(*kind, &site.names, registered);
                if *again {
                    cost.certificate.clear();
                    cost.counted.clear();
                }
                match budget::take(&cost, *lane, &self.limits, entry, moment) {
                    Ok(taken) => {
                        self.books.extend(taken.entries);
                        Booked::Reserved(Reserved { ready: true, order: cost.order, certificate: taken.certificate })
                    }
                    Err(delay) => {
                        self.recorder.delayed();
                        self.books.extend(delay.entries.clone());
                        Booked::Delayed(delay)
                    }
                }
            }
            Booking::Settle { settlement, .. } => {
                let entries = budget::settle(settlement, &self.limits, entry, now);
                self.books.extend(entries);
                Booked::Settled
            }
        }
    }

    fn perform(&mut self, number: u32, lane: Lane, site: &mut Site, action: &Action, instant: Timestamp) -> Outcome {
        let now = instant.as_millisecond() - START_MS;
        let is_away = self.outages.iter().any(|(from, to)| (*from..*to).contains(&now));
        let failed = |kind, detail: &str| Outcome::Failed(Failure::new(kind, detail));
        match action {
            Action::StoreRoute => Outcome::RouteStored,
            Action::RetractChallenges(_) => Outcome::Retracted,
            Action::OpenAccount(_) => Outcome::AccountReady(self.account.clone()),
            Action::VouchForAccount(_) => Outcome::Vouched,
            _ if is_away => failed(FailureKind::Unavailable, "the CA is away"),
            Action::OpenOrder { replaces, .. } => {
                let serial = replaces.as_ref().and_then(|id| id.parse().ok());
                let replaces = serial.map(|serial| Replaced { set: number, serial });
                let domain = self.sites.domain(number);
                match self.twin.new_order(domain, number, replaces, true, now) {
                    Answer::Placed(placed) => {
                        self.orders_placed += 1;
                        self.recorder.ordered(now, lane);
                        (self.observer)(Event { at: now, site: number, happened: Happened::Ordered });
                        let url = self.orders_placed.to_string();
                        self.orders.insert(self.orders_placed, placed);
                        Outcome::OrderOpened(OrderRef { account: Some(self.account.clone()), url })
                    }
                    Answer::AlreadyReplaced => failed(FailureKind::AlreadyReplaced, "it has a replacement"),
                    Answer::Limited(limit) => {
                        self.recorder.refused(limit);
                        failed(FailureKind::Throttled(3600), limit)
                    }
                    Answer::Paused => {
                        self.recorder.refused("paused");
                        failed(FailureKind::Hopeless, "paused")
                    }
                }
            }
            Action::FetchChallenges(order) if !self.is_broken(number) => {
                // The steps from here to the certificate take a few seconds, and are not gone through one by one.
                self.twin_issues(number, site, order, now)
            }
            Action::FetchChallenges(_) => Outcome::ChallengesKnown(vec![ChallengeAnswer {
                host: site.site.clone(),
                token: String::new(),
                key_authorization: String::new(),
                method: Default::default(),
            }]),
            Action::PublishChallenges(_) => Outcome::Published,
            Action::BeginValidation(_) => Outcome::ValidationBegun { retry_after: None },
            Action::LookAtOrder(order) => {
                self.orders.remove(&number_of(order));
                self.twin.fail(number, now);
                self.recorder.failed();
                (self.observer)(Event { at: now, site: number, happened: Happened::Failed });
                let failure = Failure::new(FailureKind::Rejected, "the name leads elsewhere");
                Outcome::Failed(Failure { names: vec![site.site.clone()], ..failure })
            }
            Action::Deactivate(order) => {
                self.orders.remove(&number_of(order));
                Outcome::Deactivated(order.clone())
            }
            Action::AskAdvice(_) => match self.twin.window(number).filter(|_| self.scenario.advice) {
                Some((start, end)) => {
                    let window = Window::new(at(start), at(end));
                    window.map_or(Outcome::NotAdvised, |window| Outcome::Advised {
                        window,
                        retry_after: ASK_EVERY,
                        explanation: None,
                    })
                }
                None => Outcome::NotAdvised,
            },
            other => failed(FailureKind::Hopeless, &format!("nobody asked for {other:?}")),
        }
    }

    /// The certificate of an order, as if its steps had been gone through.
    fn twin_issues(&mut self, number: u32, site: &mut Site, order: &OrderRef, now: i64) -> Outcome {
        let Some(placed) = self.orders.remove(&number_of(order)) else {
            return Outcome::Failed(Failure::new(FailureKind::Rejected, "no such order"));
        };
        let lifetime = self.scenario.lifetime();
        let serial = self.twin.issue(placed, lifetime, now);
        let (not_before, not_after) = (at(now), at(now + lifetime));
        self.recorder.issued(now, number);
        (self.observer)(Event { at: now, site: number, happened: Happened::Issued });
        let sealed = SealedKey { csr: Some(Base64(Vec::new())), bytes: Base64(Vec::new()), enveloped: true };
        let authority = Some(self.policy.authority.clone());
        site.order = Some(Step::Issued { sealed, chain: Vec::new(), authority });
        // A row of failures ends with a success, as at the step that is passed over.
        site.owed.validated.append(&mut site.failing);
        let (authority, id) = (String::new(), Some(serial.to_string()));
        Outcome::Stored { authority, id, not_before, not_after, responder: false }
    }

    fn is_broken(&self, site: u32) -> bool {
        is_broken(self.scenario.seed, self.scenario.broken, site)
    }

    /// The CA says that it will revoke a part of all certificates. Each site hears of it when it asks next.
    fn revoke(&mut self, part: f64, hours: f64, now: i64) {
        let mut concerned = 0_u64;
        for number in 0..self.scenario.sites {
            if of_site(self.scenario.seed ^ now as u64, number) >= part || !self.recorder.has_certificate(number) {
                continue;
            }
            concerned += 1;
            self.twin.will_revoke(number, now);
            let mut site = self.sites.take(number);
            // What was passed over would have been the same until now.
            site.certificate.as_mut().into_iter().for_each(|certificate| move_question(certificate, at(now)));
            let due = site.due();
            self.sites.put(number, site);
            if let Some(due) = due {
                let due_at = due.at.map_or(now + 1, |due| due.as_millisecond() - START_MS).max(now + 1);
                self.schedule(number, due_at, due.lane);
            }
        }
        self.recorder.revoked(now, part, concerned, hours);
    }
}

fn is_broken(seed: u64, part: f64, site: u32) -> bool {
    of_site(seed ^ BROKEN, site) < part
}

/// Moves the next question by whole pauses to the first one that is not before an instant.
fn move_question(certificate: &mut Issued, from: Timestamp) {
    let Some(ask_at) = certificate.advice.ask_at else { return };
    let pauses = from.duration_since(ask_at).as_secs().div_euclid(ASK_EVERY.as_secs());
    let moved = ask_at + SignedDuration::from_secs(pauses * ASK_EVERY.as_secs());
    certificate.advice.ask_at = Some(if moved < from { moved + ASK_EVERY } else { moved });
}

/// How often new orders can be placed now.
fn new_orders_left(simulation: &Simulation<'_>, now: i64) -> Option<u32> {
    let bucket = budget::Bucket::of_account(budget::LimitName::NewOrders);
    let limit = simulation.limits.get(bucket.limit)?;
    Some(limit.left(simulation.books.get(&Line::Bucket(bucket)).copied(), at(now)))
}

fn number_of(order: &OrderRef) -> u64 {
    order.url.parse().unwrap_or(0)
}

fn booked_mark(booked: &Booked) -> u8 {
    match booked {
        Booked::Reserved(_) => 1,
        Booked::Delayed(_) => 2,
        Booked::Settled => 3,
    }
}

fn mark(action: &Action, outcome: &Outcome) -> u8 {
    let action = match action {
        Action::StoreRoute => 0,
        Action::OpenOrder { .. } => 1,
        Action::AskAdvice(_) => 2,
        Action::FetchChallenges(_) => 3,
        Action::LookAtOrder(_) => 4,
        _ => 5,
    };
    16 + 2 * action + u8::from(matches!(outcome, Outcome::Failed(_)))
}

/// Sets apart which sites are broken from what else chance says of them.
const BROKEN: u64 = 0x6272_6f6b_656e;

/// Waits that are no reason to leave a site.
const SOON: SignedDuration = SignedDuration::from_secs(30);

/// The Retry-After of the twin's advice, as Let's Encrypt's.
const ASK_EVERY: SignedDuration = SignedDuration::from_hours(6);
