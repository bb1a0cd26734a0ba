//! A whole certman in one seed: scheduler, ledger and journal, over a store in memory, against the planner's twin of a CA.
//!
//! Months pass in which answers get lost, the CA goes away, clocks jump, people change sites, and the process dies between
//! any two of its steps. A failure prints the seed of its run; `CERTSEAL_SIMULATION_SEED=N` does that run alone, and
//! `CERTSEAL_SIMULATION_SEEDS=N` does so many.

#![allow(clippy::unwrap_used)]

mod memory;
mod world;

use std::sync::{Arc, LazyLock};

use certseal_issuance::{
    Moment, Policy, Site, Stage, Turns,
    budget::{Limit, LimitName, Limits},
};
use certseal_planner::{Override, Scenario, TwinLimits};
use certseal_wire::{DnsName, NameSet, SiteRequest};
use jiff::{SignedDuration, Timestamp};

use self::world::{Chance, DAY, HOUR, MINUTE, START, World, account};
use super::{Todo, is_written_after, next};
use crate::{
    journal::{Entry, Journal, Writer},
    ledger::{Rules, book_alone},
    queue::Place,
    suffixes::Suffixes,
};

#[test]
fn whatever_dies_or_gets_lost_each_name_has_its_certificate_once_and_no_limit_is_met() {
    let from_environment = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    if let Some(seed) = from_environment("CERTSEAL_SIMULATION_SEED") {
        return Simulation { is_told: true, ..Simulation::new(seed) }.run();
    }
    let seeds = from_environment("CERTSEAL_SIMULATION_SEEDS").unwrap_or(1000);
    let base = u64::from(getrandom::u32().unwrap()) << 32;
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (base + thread..base + seeds).step_by(threads as usize) {
                    let ran = std::panic::catch_unwind(|| Simulation::new(seed).run());
                    assert!(ran.is_ok(), "run it again with CERTSEAL_SIMULATION_SEED={seed}");
                }
            });
        }
    });
}

/// A process of certman, and the world.
struct Simulation {
    world: World,
    names: Vec<DnsName>,
    broken: Vec<bool>,
    /// The upstream that was asked for last, by site.
    upstreams: Vec<u64>,
    /// Clocks that jump may have certman believe that there is room.
    has_jumps: bool,
    /// Prints what happens.
    is_told: bool,
    policy: Policy,
    journal: Journal,
    turns: Turns,
    flights: Vec<Flight>,
}

/// A site that is worked on.
struct Flight {
    number: usize,
    place: Place,
    entry: Entry,
    site: Site,
    has_acted: bool,
    wait: Option<Timestamp>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let names: Vec<DnsName> = (0..SITES).map(|n| format!("shop-{n}.example").parse().unwrap()).collect();
        let broken: Vec<bool> = (0..SITES).map(|_| chance.one_in(6)).collect();
        let has_jumps = chance.one_in(3);
        let order_limit = Override { burst: 3, count: 1, period_seconds: 600 };
        let scenario = Scenario { overrides: [(LimitName::NewOrders, order_limit)].into(), ..Scenario::default() };
        let world = World::new(chance, broken.clone(), TwinLimits::of(&scenario).unwrap());
        let journal = Journal::on(world.storage.clone(), true).unwrap();
        let policy = Policy {
            authority: account().authority,
            further: Vec::new(),
            away: Vec::new(),
            retry: SignedDuration::from_secs(60),
            profile: None,
            looks_first: seed.is_multiple_of(2),
            methods: Default::default(),
        };
        let flights = Vec::new();
        let simulation = Self {
            world,
            names,
            broken,
            upstreams: vec![1; SITES],
            has_jumps,
            is_told: false,
            policy,
            journal,
            turns: Turns::default(),
            flights,
        };
        for name in simulation.names.clone() {
            let site = Site::new(name.clone(), request(&name, 1));
            simulation.journal.write(None, &site, Writer::Request, &[]).unwrap().unwrap();
        }
        simulation
    }

    fn run(mut self) {
        let mut steps = 0;
        while self.world.now < START + DAYS * DAY {
            self.disturb();
            self.step();
            steps += 1;
            assert!(steps < MOST_STEPS, "it does not come to rest: {} days in", (self.world.now - START) / DAY);
        }
        // With nothing to disturb it any more all comes to its end.
        self.world.is_calm = true;
        let calm_until = self.world.now + 2 * DAY;
        while self.world.now < calm_until {
            self.step();
            steps += 1;
            assert!(steps < 2 * MOST_STEPS, "it does not come to rest without faults");
        }
        self.check();
        if self.is_told {
            println!("{steps} steps, {} certificates", self.world.issued);
        }
    }

    /// What may happen at any time.
    fn disturb(&mut self) {
        let world = &mut self.world;
        if world.chance.one_in(60) {
            return self.restart();
        }
        if world.now > world.away_until + 10 * DAY && world.chance.one_in(100) {
            world.away_until = world.now + world.chance.below(24) as i64 * HOUR;
        }
        if self.has_jumps && world.chance.one_in(300) {
            world.skew = world.chance.below(2 * HOUR as u64) as i64 - 5 * MINUTE;
        }
        if world.chance.one_in(300) {
            let number = world.chance.below(SITES as u64) as usize;
            let name = &self.names[number];
            let entry = self.journal.read(name).unwrap().unwrap();
            let site = match world.chance.below(4) {
                0 => entry.site.clone().renewed(None),
                1 => entry.site.clone().order_retried(world::at(world.now)),
                2 => entry.site.clone().unconfirmed(),
                _ => {
                    self.upstreams[number] = 1 + world.chance.below(2);
                    entry.site.clone().changed(request(name, self.upstreams[number]))
                }
            };
            self.journal.write(Some(&entry), &site, Writer::Request, &[]).unwrap().unwrap();
        }
    }

    /// The process dies, and another one begins.
    fn restart(&mut self) {
        self.flights.clear();
        self.turns = Turns::default();
        self.journal = Journal::on(self.world.storage.clone(), true).unwrap();
    }

    fn step(&mut self) {
        self.world.now += self.world.chance.below(400) as i64;
        let now = self.world.clock();
        if self.flights.len() < IN_FLIGHT {
            let flights = &self.flights;
            let is_idle = |name: &DnsName| flights.iter().all(|flight| flight.site.site != *name);
            let places = self.journal.due(now, IN_FLIGHT - flights.len(), &mut self.turns, is_idle).unwrap();
            for place in places {
                let entry = self.journal.read(&place.site).unwrap().unwrap();
                let site = entry.site.clone().resumed();
                let number = self.names.iter().position(|name| *name == site.site).unwrap();
                self.flights.push(Flight { number, place, entry, site, has_acted: false, wait: None });
            }
        }
        let can_go_on = |flight: &Flight| flight.wait.is_none_or(|wait| wait <= now);
        let ready: Vec<usize> = (0..self.flights.len()).filter(|flight| can_go_on(&self.flights[*flight])).collect();
        if ready.is_empty() {
            return self.sleep(now);
        }
        let flight = ready[self.world.chance.below(ready.len() as u64) as usize];
        let flight = self.flights.swap_remove(flight);
        self.fly(flight, now);
    }

    /// Nothing can be done before the next instant that somebody waits for.
    fn sleep(&mut self, now: Timestamp) {
        let waits = self.flights.iter().filter_map(|flight| flight.wait);
        let of_site = |name: &DnsName| self.journal.read(name).unwrap().unwrap().site.due().and_then(|due| due.at);
        let is_idle = |name: &&DnsName| self.flights.iter().all(|flight| flight.site.site != **name);
        let dues = self.names.iter().filter(is_idle).filter_map(of_site);
        // Nobody else is taken up while there is no place.
        let dues = dues.filter(|_| self.flights.len() < IN_FLIGHT);
        let wake = waits.chain(dues).min().unwrap_or(Timestamp::MAX);
        let pause = wake.duration_since(now).as_millis().clamp(1, i128::from(DAY)) as i64;
        self.world.now += pause;
    }

    fn fly(&mut self, mut flight: Flight, now: Timestamp) {
        flight.wait = None;
        match next(&flight.site, &flight.entry.site, now, &self.policy) {
            Todo::Write => self.write(&mut flight),
            Todo::Book(booking) => {
                flight.has_acted = true;
                let (entry, site) = (flight.entry.clone(), flight.site.clone());
                let moment = Moment { now, chance: self.world.chance.part() };
                self.tell(&flight, &format!("{booking:?}"));
                let booked = book_alone(&self.journal, &RULES, entry, site, booking, moment).unwrap();
                let entry = booked.or_else(|| self.journal.read(&flight.site.site).unwrap()).unwrap();
                (flight.site, flight.entry) = (entry.site.clone(), entry);
            }
            Todo::Perform(action) => {
                flight.has_acted = true;
                let outcome = self.world.perform(flight.number, &flight.site, &action);
                self.tell(&flight, &format!("{action:?} -> {outcome:?}"));
                if !self.world.is_calm && self.world.chance.one_in(40) {
                    self.tell(&flight, "dies");
                    return self.restart();
                }
                let is_written = is_written_after(&action, &outcome);
                let moment = Moment { now, chance: self.world.chance.part() };
                flight.site = flight.site.after(&action, outcome, moment, &self.policy);
                if is_written {
                    self.write(&mut flight);
                }
            }
            Todo::Wait(at) if at.duration_since(now) <= SignedDuration::from_secs(10) => flight.wait = Some(at),
            Todo::Wait(_) | Todo::Rest => {
                if flight.site != flight.entry.site {
                    self.write(&mut flight);
                } else if !flight.has_acted {
                    self.journal.remove_stray(flight.place, &flight.entry).unwrap();
                }
                return;
            }
        }
        self.flights.push(flight);
    }

    fn tell(&self, flight: &Flight, what: &str) {
        if self.is_told {
            println!("{} {} {what}", self.world.clock(), flight.site.site);
        }
    }

    fn write(&mut self, flight: &mut Flight) {
        flight.entry = self.journal.write_work(flight.entry.clone(), &flight.site, &[]).unwrap();
        flight.site = flight.entry.site.clone();
    }

    fn check(&self) {
        let now = self.world.now;
        let mut queued = 0;
        for (number, name) in self.names.iter().enumerate() {
            let site = self.journal.read(name).unwrap().unwrap().site;
            queued += usize::from(site.due().is_some());
            let stored = &self.world.stored[number];
            assert_eq!(stored.version, site.bundle_version, "{name}: certstore has another bundle");
            assert_eq!(stored.route, site.route_version, "{name}: certstore has another route");
            let wanted = request(name, self.upstreams[number]).upstream;
            assert_eq!(site.upstream, wanted, "{name}: a request is lost");
            assert_eq!(self.world.unstored[number], [0; 0], "{name}: issued and not stored");
            if self.broken[number] {
                assert_eq!(site.stage(), Some(Stage::DeadLetter), "{name}: {:?}", site.attempts.order);
            } else {
                assert!(stored.not_after > now, "{name} has no certificate: {site:?}");
                assert_eq!(site.order, None, "{name}: {:?}", site.attempts.order);
            }
        }
        assert_eq!(self.world.storage.count("queue"), queued, "places in the queue");
        let pending = self.world.pending();
        let is_open = |number: &usize| !self.broken[*number];
        assert!(!pending.iter().any(is_open), "pending at the CA: {pending:?}");
        if !self.has_jumps {
            assert_eq!(self.world.refused, [""; 0], "limits of the CA were met");
        }
    }
}

fn request(name: &DnsName, upstream: u64) -> SiteRequest {
    SiteRequest::new(
        NameSet::try_from(vec![name.clone()]).unwrap(),
        format!("http://127.0.0.1:{upstream}").parse().unwrap(),
        vec!["eu".parse().unwrap()],
    )
}

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let orders = Limit::new(3, 1, SignedDuration::from_secs(600)).unwrap();
    Rules {
        limits: [(account().authority, Limits::letsencrypt().with(LimitName::NewOrders, orders))].into(),
        suffixes: Arc::new(Suffixes::new(None).unwrap()),
    }
});

const SITES: usize = 4;
const IN_FLIGHT: usize = 3;
/// Three renewals of certificates of 12 days.
const DAYS: i64 = 26;
const MOST_STEPS: u64 = 20_000;
