//! Ten thousand orders of five thousand sites without a runtime, a clock or a network: the decisions alone.

#![allow(clippy::unwrap_used)]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use certseal_issuance::{
    AccountRef, Action, Answer, AuthorityId, Booked, Booking, Failure, FailureKind, Moment, Next, OrderRef,
    OrderReport, OrderState, Outcome, Policy, SealedKey, Site, budget::Reserved, site_status,
};
use certseal_wire::{Base64, Finding, FindingCode, NameReport, NameSet, NamesReport, SiteRequest, SiteState};
use jiff::{SignedDuration, Timestamp};

const SITES: usize = 5_000;

#[test]
fn five_thousand_sites_get_their_certificates_and_renew_them_whatever_the_ca_does() {
    let policy = Policy {
        authority: AuthorityId("https://ca.example/directory".into()),
        further: Vec::new(),
        away: Vec::new(),
        retry: SignedDuration::from_secs(60),
        profile: None,
        looks_first: true,
        methods: Default::default(),
    };
    let start: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    let mut sites: Vec<Site> = (0..SITES).map(site).collect();
    let mut agenda: BinaryHeap<Reverse<(Timestamp, usize)>> = (0..SITES).map(|n| Reverse((start, n))).collect();
    let mut world = World { dice: 7, orders: 0, requests: BTreeMap::new(), abandoned: 0 };
    let (mut actions, mut last) = (0, start);
    while let Some(Reverse((now, n))) = agenda.pop() {
        let moment = Moment { now, chance: 0.5 };
        match sites[n].next(now, &policy) {
            // Its second renewal ends a site's part in the test.
            Next::Do(Action::OpenAccount(_)) if sites[n].bundle_version == 2 => {}
            Next::Do(action) => {
                actions += 1;
                let outcome = world.perform(&action, now);
                sites[n] = sites[n].clone().after(&action, outcome, moment, &policy);
                agenda.push(Reverse((now, n)));
                last = now;
            }
            Next::Book(booking) => {
                let booked = match &booking {
                    Booking::Reserve { .. } => Booked::Reserved(Reserved { ready: true, ..Reserved::default() }),
                    Booking::Settle { .. } => Booked::Settled,
                };
                sites[n] = sites[n].clone().booked(&booking, booked);
                agenda.push(Reverse((now, n)));
            }
            Next::WakeAt(at) => {
                let due = sites[n].due().and_then(|due| due.at);
                assert!(at > now && due == Some(at), "{due:?} in the queue: {:?}", sites[n]);
                agenda.push(Reverse((at, n)));
            }
            Next::Rest => panic!("{:?}", sites[n]),
        }
    }
    for site in &sites {
        let status = site_status(site, last);
        assert_eq!((status.state, status.version), (SiteState::Active, 2), "{site:?}");
        assert!(site.abandoned.is_empty() && site.published.is_empty(), "{site:?}");
    }
    assert!(world.requests.values().all(|finalized| *finalized == 1), "an order was finalized twice");
    assert_eq!(world.orders, 2 * SITES as u64 + world.abandoned, "each order was finalized or given up");
    assert!(world.abandoned > 100 && actions > 24 * SITES, "{} given up, {actions} actions", world.abandoned);
    println!("{actions} actions, {} orders, simulated {:#}", world.orders, last.duration_since(start));
}

fn site(n: usize) -> Site {
    let name = format!("shop-{n}.example").parse::<certseal_wire::DnsName>().unwrap();
    let request = SiteRequest::new(
        NameSet::try_from(vec![name.clone()]).unwrap(),
        "http://127.0.0.1:1".parse().unwrap(),
        vec!["eu".parse().unwrap()],
    );
    Site::new(name, request)
}

/// A CA that takes its time, is away now and then, rejects some orders and loses some answers; and a certstore.
struct World {
    dice: u64,
    orders: u64,
    /// How often each order was finalized.
    requests: BTreeMap<String, u32>,
    abandoned: u64,
}

impl World {
    fn one_in(&mut self, sides: u64) -> bool {
        // xorshift64, which is chance enough.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice.is_multiple_of(sides)
    }

    fn perform(&mut self, action: &Action, now: Timestamp) -> Outcome {
        if self.one_in(50) {
            return Outcome::Failed(Failure::new(FailureKind::Unavailable, "away"));
        }
        match action {
            Action::StoreRoute => Outcome::RouteStored,
            Action::LookAtNames => {
                let finding = Finding { code: FindingCode::StrayIpv6, detail: "stray".into(), edits: Vec::new() };
                let findings = if self.one_in(10) { vec![finding] } else { Vec::new() };
                let report = NameReport::new("shop.example".parse().unwrap(), findings);
                Outcome::NamesAre(NamesReport::new(now, vec![report]))
            }
            Action::OpenAccount(authority) => {
                Outcome::AccountReady(AccountRef { authority: authority.clone(), thumbprint: Some("print".into()) })
            }
            Action::VouchForAccount(_) => Outcome::Vouched,
            Action::OpenOrder { account, .. } => {
                self.orders += 1;
                let url = format!("https://ca.example/order/{}", self.orders);
                Outcome::OrderOpened(OrderRef { account: Some(account.clone()), url })
            }
            Action::FetchChallenges(_) => Outcome::ChallengesKnown(vec![Answer {
                host: "shop.example".parse().unwrap(),
                token: "t".into(),
                key_authorization: "t.print".into(),
                method: Default::default(),
            }]),
            Action::PublishChallenges(_) => Outcome::Published,
            Action::BeginValidation(_) => Outcome::ValidationBegun { retry_after: None },
            Action::LookAtOrder(order) => match self.requests.contains_key(&order.url) {
                false if self.one_in(20) => Outcome::Failed(Failure::new(FailureKind::Rejected, "not reachable")),
                false if self.one_in(2) => order_is(OrderState::Pending),
                false => order_is(OrderState::Ready),
                true if self.one_in(2) => order_is(OrderState::Processing),
                true => order_is(OrderState::Valid),
            },
            Action::SealKey => {
                Outcome::KeySealed(SealedKey { csr: Some(Base64(vec![1])), bytes: Base64(vec![2]), enveloped: true })
            }
            Action::Finalize(order, _) => {
                *self.requests.entry(order.url.clone()).or_default() += 1;
                if self.one_in(10) {
                    // The request came, and the answer did not.
                    Outcome::Failed(Failure::new(FailureKind::Unavailable, "no answer"))
                } else {
                    order_is(OrderState::Processing)
                }
            }
            Action::FetchCertificate(..) => Outcome::Certificate(Some(vec![Base64(vec![3])])),
            Action::StoreBundle { .. } => Outcome::Stored {
                authority: "CA".into(),
                id: None,
                not_before: now,
                not_after: now + SignedDuration::from_hours(90 * 24),
                responder: self.one_in(2),
            },
            Action::FetchStaple { .. } if self.one_in(10) => {
                Outcome::Failed(Failure::new(FailureKind::Outrun(3), "another version"))
            }
            Action::FetchStaple { version } => Outcome::Stapled {
                version: *version,
                this_update: now,
                next_update: now + SignedDuration::from_hours(7 * 24),
            },
            Action::Deactivate(order) => {
                self.abandoned += 1;
                Outcome::Deactivated(order.clone())
            }
            Action::RetractChallenges(_) => Outcome::Retracted,
            Action::Confirm | Action::TakeReorder | Action::Revoke(_) | Action::AskAdvice(_) => {
                panic!("nobody asked for {action:?}")
            }
        }
    }
}

fn order_is(state: OrderState) -> Outcome {
    Outcome::OrderIs(OrderReport { state, retry_after: None })
}
