use certseal_wire::{KeyType, LOST, SiteState, ValidationMethod};
use jiff::SignedDuration;

use super::*;
use crate::{
    AuthorityId, Booked, Failure, FailureKind, Look, Moment, OrderReport, OrderState, Outcome, Progress, SealedKey,
    Wait, Window,
    budget::{Bucket, Delay, Entries},
    site_status,
};

mod changes;
mod looks;
mod orders;
mod staples;

fn now() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn moment() -> Moment {
    Moment { now: now(), chance: 0.0 }
}

fn ca() -> AuthorityId {
    AuthorityId("https://ca.example/directory".into())
}

fn policy() -> Policy {
    Policy {
        authority: ca(),
        further: Vec::new(),
        away: Vec::new(),
        retry: SignedDuration::from_secs(60),
        profile: None,
        looks_first: false,
        methods: Default::default(),
    }
}

fn request() -> SiteRequest {
    SiteRequest::new(
        NameSet::try_from(vec!["shop.example".parse().unwrap()]).unwrap(),
        "http://127.0.0.1:1".parse().unwrap(),
        vec!["eu".parse().unwrap()],
    )
}

fn new() -> Site {
    Site::new("shop.example".parse().unwrap(), request())
}

fn account() -> AccountRef {
    AccountRef { authority: ca(), thumbprint: Some("print".into()) }
}

fn order() -> OrderRef {
    OrderRef { account: Some(account()), url: "https://ca.example/order/1".into() }
}

fn sealed() -> SealedKey {
    SealedKey { csr: Some(Base64(vec![1])), bytes: Base64(vec![2]), enveloped: true }
}

/// The site after the bookings that are due at `at`, at a CA that has room for everything.
fn booked(mut site: Site, at: Timestamp) -> Site {
    while let Next::Book(booking) = site.next(at, &policy()) {
        let booked = match booking {
            Booking::Reserve { .. } => Booked::Reserved(room()),
            Booking::Settle { .. } => Booked::Settled,
        };
        site = site.booked(&booking, booked);
    }
    site
}

fn room() -> Reserved {
    Reserved { ready: true, order: vec![bucket(LimitName::NewOrders)], certificate: vec![bucket(SET)] }
}

fn bucket(limit: LimitName) -> Bucket {
    Bucket::of_account(limit)
}

const SET: LimitName = LimitName::CertificatesPerNameSet;

/// The action that is due at `at`.
fn action_at(site: &Site, at: Timestamp) -> Option<Action> {
    match booked(site.clone(), at).next(at, &policy()) {
        Next::Do(action) => Some(action),
        Next::Book(_) | Next::WakeAt(_) | Next::Rest => None,
    }
}

fn action(site: &Site) -> Option<Action> {
    action_at(site, now())
}

/// The site after the action that is due, with this outcome.
fn does(site: Site, outcome: Outcome) -> Site {
    let site = booked(site, now());
    let at = site.due().unwrap().at.unwrap_or(now()).max(now());
    let site = booked(site, at);
    let action = action_at(&site, at).unwrap();
    site.after(&action, outcome, moment(), &policy())
}

fn fails(site: Site, kind: FailureKind) -> Site {
    does(site, Outcome::Failed(Failure::new(kind, "why")))
}

fn routed() -> Site {
    does(new(), Outcome::RouteStored)
}

fn at_step(site: Site, step: Step) -> Site {
    Site { order: Some(step), ..site }
}

fn stored(site: Site) -> Site {
    let chain = vec![Base64(vec![3])];
    let site = at_step(site, Step::Issued { sealed: sealed(), chain, authority: Some(ca()) });
    store(site)
}

fn store(site: Site) -> Site {
    let not_after = now() + SignedDuration::from_hours(90 * 24);
    let authority = "CA".to_owned();
    let action = Action::StoreBundle { sealed: sealed(), chain: Vec::new() };
    let outcome = Outcome::Stored { authority, id: None, not_before: now(), not_after, responder: false };
    site.after(&action, outcome, moment(), &policy())
}

fn order_is(state: OrderState) -> Outcome {
    Outcome::OrderIs(OrderReport { state, retry_after: None })
}

fn wait(site: &Site) -> SignedDuration {
    site.due().unwrap().at.unwrap().duration_since(now())
}

#[test]
fn an_order_takes_one_action_after_another() {
    let answers = vec![Answer {
        host: "shop.example".parse().unwrap(),
        token: "t".into(),
        key_authorization: "t.p".into(),
        method: Default::default(),
    }];
    let chain = vec![Base64(vec![3])];
    let steps = [
        (Action::StoreRoute, Outcome::RouteStored),
        (Action::OpenAccount(ca()), Outcome::AccountReady(account())),
        (Action::VouchForAccount(account()), Outcome::Vouched),
        (Action::OpenOrder { account: account(), replaces: None, profile: None }, Outcome::OrderOpened(order())),
        (Action::FetchChallenges(order()), Outcome::ChallengesKnown(answers.clone())),
        (Action::PublishChallenges(answers.clone()), Outcome::Published),
        (Action::BeginValidation(order()), Outcome::ValidationBegun { retry_after: None }),
        (Action::LookAtOrder(order()), order_is(OrderState::Pending)),
        (Action::LookAtOrder(order()), order_is(OrderState::Ready)),
        (Action::SealKey, Outcome::KeySealed(sealed())),
        (Action::Finalize(order(), sealed()), order_is(OrderState::Processing)),
        // A challenge that has served is deleted while the order waits for the CA.
        (Action::RetractChallenges(answers.clone()), Outcome::Retracted),
        (Action::LookAtOrder(order()), order_is(OrderState::Valid)),
        (Action::FetchCertificate(order(), sealed()), Outcome::Certificate(Some(chain.clone()))),
    ];
    let mut site = new();
    for (expected, outcome) in steps {
        let at = site.due().unwrap().at.unwrap_or(now());
        assert!(at.duration_since(now()) < SignedDuration::from_secs(1));
        assert_eq!(action_at(&site, at.max(now())), Some(expected));
        site = does(site, outcome);
    }
    assert_eq!(action(&site), Some(Action::StoreBundle { sealed: sealed(), chain }));
    let site = store(site);
    assert_eq!(site.certificate.as_ref().unwrap().ordered_from, Some(ca()));
    assert_eq!((action(&site), site_status(&site, now()).state), (None, SiteState::Active));
    assert!(
        matches!(site.next(now(), &policy()), Next::WakeAt(at) if at == site.certificate.as_ref().unwrap().renew_at)
    );
    assert_eq!(action_at(&site, site.due().unwrap().at.unwrap()), Some(Action::OpenAccount(ca())));
    let renewing = does(site, Outcome::AccountReady(account()));
    assert_eq!(action(&renewing), Some(Action::VouchForAccount(account())));
}

#[test]
fn waiting_holds_nothing_and_ends_as_a_failure_that_is_tried_again() {
    let look = Look::first(now());
    let mut site = at_step(routed(), Step::Retrieving { order: order(), sealed: sealed(), look });
    let mut waited = SignedDuration::ZERO;
    for looks in 0.. {
        let at = site.due().unwrap().at.unwrap().max(now());
        let later = Moment { now: at, chance: 0.0 };
        let action = action_at(&site, at).unwrap();
        site = site.after(&action, order_is(OrderState::Processing), later, &policy());
        waited = at.duration_since(now());
        if site.attempts.order.failures() > 0 {
            assert_eq!(looks, 7);
            break;
        }
        assert!(matches!(site.next(at, &policy()), Next::WakeAt(next) if next > at), "{site:?}");
    }
    assert_eq!(waited, SignedDuration::from_secs(26));
    assert!(site_status(&site, now()).order.unwrap().diagnosis.unwrap().contains("not signed"));
    assert!(matches!(site.order, Some(Step::Retrieving { .. })), "the order goes on");
}

#[test]
fn a_ca_is_asked_again_when_it_wants_to_be_and_within_an_hour() {
    let finalizing = at_step(routed(), Step::Finalizing { order: order(), sealed: sealed() });
    let processing = |seconds| {
        let retry_after = Some(SignedDuration::from_secs(seconds));
        let site =
            does(finalizing.clone(), Outcome::OrderIs(OrderReport { state: OrderState::Processing, retry_after }));
        (wait(&site), site)
    };
    assert_eq!(processing(5).0, SignedDuration::from_secs(5));
    assert_eq!(processing(-5).0, SignedDuration::from_millis(250));
    let (an_hour, site) = processing(i64::MAX);
    assert_eq!(an_hour, SignedDuration::from_hours(1));
    assert_eq!(action(&site), None, "nobody asks before");
    let published = at_step(routed(), Step::Published { order: order(), answers: Vec::new() });
    let begun = does(published, Outcome::ValidationBegun { retry_after: Some(SignedDuration::from_secs(3)) });
    assert_eq!(wait(&begun), SignedDuration::from_secs(3));
    let done = does(finalizing, order_is(OrderState::Valid));
    assert_eq!(action(&done), Some(Action::FetchCertificate(order(), sealed())), "what is known is not asked for");
}

#[test]
fn a_ca_that_takes_the_request_and_is_ready_again_is_asked_less_and_less() {
    let mut site = at_step(routed(), Step::Finalizing { order: order(), sealed: sealed() });
    let (mut at, mut requests) = (now(), 0);
    while at < now() + SignedDuration::from_hours(1) {
        match site.next(at, &policy()) {
            Next::Do(action) => {
                requests += i32::from(matches!(action, Action::Finalize(..)));
                site = site.after(&action, order_is(OrderState::Ready), Moment { now: at, chance: 0.0 }, &policy());
            }
            Next::WakeAt(next) => at = next,
            Next::Book(_) | Next::Rest => panic!("{site:?}"),
        }
    }
    assert!((18..25).contains(&requests), "{requests} requests in an hour, once in 256 s at last");
    assert!(site_status(&site, now()).order.unwrap().diagnosis.unwrap().contains("waits for it again"));
}

#[test]
fn a_request_that_may_have_been_finalized_is_looked_at_first() {
    let finalizing = at_step(routed(), Step::Finalizing { order: order(), sealed: sealed() });
    let failed = fails(finalizing.clone(), FailureKind::Unavailable);
    assert_eq!(action_at(&failed, failed.due().unwrap().at.unwrap()), Some(Action::LookAtOrder(order())));
    let resumed = finalizing.resumed();
    assert_eq!(action(&resumed), Some(Action::LookAtOrder(order())));
    assert_eq!(action(&does(resumed.clone(), order_is(OrderState::Ready))), Some(Action::Finalize(order(), sealed())));
    let valid = does(resumed, order_is(OrderState::Valid));
    assert_eq!(action(&valid), Some(Action::FetchCertificate(order(), sealed())), "nothing is left to ask for");
}

/// A thief of a listed issuer key can sign it, and certman goes on from there.
#[test]
fn a_site_whose_route_versions_are_used_up_can_be_changed_and_leave() {
    let site = Site { route_version: u64::MAX, ..routed() };
    let upstream = "http://127.0.0.1:2".parse().unwrap();
    let changed = site.clone().changed(SiteRequest { upstream, ..request() });
    assert_eq!((changed.route_version, changed.route_stored), (u64::MAX, false));
    assert_eq!((site.departed().route_version, changed.signed_anew(7).route_version), (u64::MAX, 8));
}

#[test]
fn an_unavailable_peer_is_asked_for_the_same_again_soon() {
    let step = Step::Authorizing { order: order() };
    let mut site = at_step(routed(), step.clone());
    for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 256] {
        site = fails(site, FailureKind::Unavailable);
        assert_eq!(wait(&site).as_secs(), seconds);
        assert_eq!(site.order, Some(step.clone()));
    }
    assert_eq!(site_status(&site, now()).state, SiteState::Waiting);
}

#[test]
fn a_throttling_ca_is_obeyed() {
    assert_eq!(wait(&fails(routed(), FailureKind::Throttled(3600))).as_secs(), 3600);
}

#[test]
fn a_rejected_order_begins_anew_after_1_10_100_minutes_and_then_daily() {
    let mut site = routed();
    for minutes in [1, 10, 100, 1440, 1440] {
        site = fails(at_step(site, Step::Authorizing { order: order() }), FailureKind::Rejected);
        assert_eq!(site.order, Some(Step::Requested));
        // The order that the CA still has pending goes first, and waits for nothing.
        assert_eq!(action(&site), Some(Action::Deactivate(order())));
        site = does(site, Outcome::Deactivated(order()));
        assert_eq!(wait(&site).as_mins(), minutes);
        assert_eq!(action_at(&site, site.due().unwrap().at.unwrap()), Some(Action::OpenAccount(ca())));
    }
}

#[test]
fn a_ca_that_rejects_the_request_after_each_validation_is_asked_less_and_less_until_a_certificate_is_stored() {
    let mut site = routed();
    for (round, minutes) in [1, 10, 100, 1440, 1440].into_iter().enumerate() {
        let authorizing = at_step(site, Step::Authorizing { order: order() });
        let authorized = does(authorizing, Outcome::ChallengesKnown(Vec::new()));
        let finalizing = does(authorized, Outcome::KeySealed(sealed()));
        assert_eq!(finalizing.attempts.order.rejected as usize, round);
        let rejected = fails(finalizing.clone(), FailureKind::Rejected);
        // Once, and once more when it is a dead letter.
        let told = crate::news(Some(&finalizing), &rejected, 1, now()).len();
        assert_eq!(told, usize::from(round == 0 || round == 3), "{round}");
        site = does(rejected, Outcome::Deactivated(order()));
        assert_eq!(wait(&site).as_mins(), minutes);
    }
    // Whatever way the names were validated.
    let pending = Step::ChallengePending { order: order(), answers: Vec::new(), look: Look::first(now()) };
    let ready = does(at_step(site.clone(), pending), order_is(OrderState::Ready));
    assert_eq!((ready.attempts.order.rejected, ready.attempts.order.retry_at), (5, None));
    let downloading = at_step(site, Step::Downloading { order: order(), sealed: sealed() });
    let issued = does(downloading, Outcome::Certificate(Some(vec![Base64(vec![3])])));
    assert_eq!(issued.attempts.order.rejected, 5, "certstore may not take it");
    assert_eq!(store(issued).attempts.order, Attempt::default());
}

#[test]
fn many_times_unavailable_makes_a_rejection_no_worse() {
    let mut site = at_step(routed(), Step::Authorizing { order: order() });
    for _ in 0..4 {
        site = fails(site, FailureKind::Unavailable);
    }
    let site = does(fails(site, FailureKind::Rejected), Outcome::Deactivated(order()));
    assert_eq!(wait(&site).as_mins(), 1);
}

#[test]
fn a_changed_upstream_waits_for_no_rejected_order_and_shortens_no_wait() {
    let rejected = fails(at_step(routed(), Step::Vouched { account: account() }), FailureKind::Rejected);
    let again = fails(at_step(rejected, Step::Vouched { account: account() }), FailureKind::Rejected);
    let again = booked(again, now());
    let before = wait(&again);
    let changed = again.changed(SiteRequest { upstream: "http://127.0.0.1:2".parse().unwrap(), ..request() });
    assert_eq!(action(&changed), Some(Action::StoreRoute), "at once");
    let routed = does(changed, Outcome::RouteStored);
    assert_eq!(wait(&routed), before, "the CA's ladder is the order's own");
    // The other way round: while certstore cannot be reached, no order begins that edges could not answer for.
    let waiting = fails(new(), FailureKind::Unavailable);
    assert_eq!((action(&waiting), wait(&waiting).as_secs()), (None, 1));
}

#[test]
fn a_ca_that_cannot_revoke_holds_up_no_renewal() {
    let leaf = Revocation { authority: Some(ca()), leaf: Base64(vec![1]), reason: Default::default() };
    let site = Site { revoke: vec![leaf.clone()], ..stored(routed()) };
    let away = fails(site, FailureKind::Unavailable).renewed(None);
    assert_eq!(action(&away), Some(Action::OpenAccount(ca())));
    assert_eq!(away.due().unwrap().lane, Lane::Incident);
}

#[test]
fn a_version_that_certstore_has_already_is_gone_beyond() {
    let site = fails(new(), FailureKind::Outrun(7));
    assert_eq!((site.route_version, action_at(&site, site.due().unwrap().at.unwrap())), (8, Some(Action::StoreRoute)));

    let issued = Step::Issued { sealed: sealed(), chain: vec![], authority: None };
    let site = fails(at_step(routed(), issued), FailureKind::Outrun(3));
    assert_eq!((site.bundle_version, &site.order), (3, &Some(Step::Requested)));
    assert_eq!(stored(site).bundle_version, 4);
}

#[test]
fn a_failed_validation_names_hosts_and_a_long_diagnosis_is_cut() {
    let answers = vec![Answer {
        host: "shop.example".parse().unwrap(),
        token: "t".into(),
        key_authorization: "t.p".into(),
        method: Default::default(),
    }];
    let look = Look::first(now());
    let pending = at_step(routed(), Step::ChallengePending { order: order(), answers: answers.clone(), look });
    let site = fails(pending, FailureKind::Rejected);
    assert_eq!(site_status(&site, now()).order.unwrap().diagnosis.unwrap(), "why (names: shop.example)");
    assert_eq!(site.published, answers, "nobody asks for them any more");
    assert_eq!(Failure::new(FailureKind::Rejected, "x".repeat(1 << 20)).detail.len(), Failure::MAX_DETAIL);
}

#[test]
fn a_site_reads_back_from_the_journal_and_a_later_format_is_left_alone() {
    let look = Look::first(now());
    let site = at_step(stored(routed()), Step::ChallengePending { order: order(), answers: Vec::new(), look });
    let record = serde_json::to_string(&site).unwrap();
    assert!(record.starts_with(r#"{"format":"2","#), "{record}");
    assert_eq!(crate::read(record.as_bytes(), |_| true), Ok(site));
    let later = record.replacen(r#""2""#, r#""4""#, 1);
    assert_eq!(crate::read(later.as_bytes(), |_| true), Err(crate::RecordError::Later("4".into())));
    assert!(matches!(crate::read(b"{}", |_| true), Err(crate::RecordError::Malformed(_))));
}

#[test]
fn names_that_are_authorized_already_take_no_validation() {
    let site = at_step(routed(), Step::Authorizing { order: order() });
    assert_eq!(action(&does(site, Outcome::ChallengesKnown(Vec::new()))), Some(Action::SealKey));
}

#[test]
fn an_order_that_somebody_elses_change_came_before_is_given_up() {
    let ours = at_step(routed(), Step::Authorizing { order: order() });
    let theirs = routed().changed(SiteRequest { upstream: "http://127.0.0.1:2".parse().unwrap(), ..request() });
    let merged = ours.clone().outrun_by(theirs.clone());
    assert_eq!(merged, Site { abandoned: vec![order()], ..theirs });
    assert_eq!(ours.clone().outrun_by(ours.clone()), ours);
}

/// certstore says that it lost a bundle, and the CA is away when its renewal is due.
#[test]
fn what_is_due_is_always_something_to_do() {
    let lost = does(Site { unconfirmed: true, ..stored(routed()) }, Outcome::Confirmed(0));
    let renewal = lost.certificate.as_ref().unwrap().renew_at;
    let moment = Moment { now: renewal, chance: 0.0 };
    let begun = action_at(&lost, renewal).unwrap();
    assert_eq!(begun, Action::OpenAccount(ca()));
    let away = Outcome::Failed(Failure::new(FailureKind::Unavailable, "away"));
    let waiting = lost.after(&begun, away, moment, &policy());
    assert_eq!(waiting.due().unwrap().at, None, "it stands in the queue as due at once");
    let taken = action_at(&waiting, renewal);
    assert_eq!(taken, Some(Action::TakeReorder), "else it would be taken from there again and again");
    let ordered = waiting.after(&taken.unwrap(), Outcome::ReorderTaken, moment, &policy());
    assert!(matches!(ordered.next(renewal, &policy()), Next::WakeAt(at) if at > renewal));
}
