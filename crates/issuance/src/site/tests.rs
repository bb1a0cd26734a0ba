use certseal_wire::{LOST, SiteState};
use jiff::SignedDuration;

use super::*;
use crate::{
    AccountRef, AuthorityId, Progress, SealedKey, Window,
    budget::{Bucket, Delay, Entries},
    site_status,
};

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
    Policy { authority: ca(), retry: SignedDuration::from_secs(60), profile: None }
}

fn request() -> SiteRequest {
    SiteRequest {
        names: NameSet::try_from(vec!["shop.example".parse().unwrap()]).unwrap(),
        upstream: "http://127.0.0.1:1".parse().unwrap(),
        pools: vec!["eu".parse().unwrap()],
        owner: None,
        profile: None,
    }
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
    site.after(&action, Outcome::Stored { authority, id: None, not_before: now(), not_after }, moment(), &policy())
}

fn order_is(state: OrderState) -> Outcome {
    Outcome::OrderIs(OrderReport { state, retry_after: None })
}

fn wait(site: &Site) -> SignedDuration {
    site.due().unwrap().at.unwrap().duration_since(now())
}

#[test]
fn an_order_takes_one_action_after_another() {
    let answers =
        vec![Answer { host: "shop.example".parse().unwrap(), token: "t".into(), key_authorization: "t.p".into() }];
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
    assert_eq!((action(&site), site_status(&site).state), (None, SiteState::Active));
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
    assert!(site_status(&site).order.unwrap().diagnosis.unwrap().contains("not signed"));
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
    assert!(site_status(&site).order.unwrap().diagnosis.unwrap().contains("waits for it again"));
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
    assert_eq!(site_status(&site).state, SiteState::Waiting);
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
    let leaf = Revocation { authority: Some(ca()), leaf: Base64(vec![1]) };
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
    let answers =
        vec![Answer { host: "shop.example".parse().unwrap(), token: "t".into(), key_authorization: "t.p".into() }];
    let look = Look::first(now());
    let pending = at_step(routed(), Step::ChallengePending { order: order(), answers: answers.clone(), look });
    let site = fails(pending, FailureKind::Rejected);
    assert_eq!(site_status(&site).order.unwrap().diagnosis.unwrap(), "why (names: shop.example)");
    assert_eq!(site.published, answers, "nobody asks for them any more");
    assert_eq!(Failure::new(FailureKind::Rejected, "x".repeat(1 << 20)).detail.len(), Failure::MAX_DETAIL);
}

#[test]
fn a_hopeless_order_waits_for_a_change() {
    let site = fails(routed(), FailureKind::Hopeless);
    assert_eq!((site.due(), site_status(&site).state), (None, SiteState::Failed));
    assert_eq!(action(&site.changed(request())), Some(Action::OpenAccount(ca())));
}

#[test]
fn a_change_of_the_upstream_needs_a_route_but_no_certificate() {
    let upstream = SiteRequest { upstream: "http://127.0.0.1:2".parse().unwrap(), ..request() };
    let site = stored(routed()).changed(upstream);
    assert_eq!((site.route_version, &site.order), (2, &None));
    assert_eq!(action(&site), Some(Action::StoreRoute));
    let again = site.clone().changed(request());
    assert_eq!(again.route_version, 3);
    assert_eq!(again.clone().changed(request()), again);
}

#[test]
fn a_site_is_onboarded_once_no_other_certificate_is_on_the_way_and_fails_when_the_ca_rejects_it() {
    let progress = |site: &Site| Progress::of(&site_status(site));
    assert_eq!(progress(&routed()), Progress::Open);
    assert_eq!(progress(&fails(routed(), FailureKind::Unavailable)), Progress::Open);
    assert_eq!(progress(&fails(routed(), FailureKind::Rejected)), Progress::Failing);
    assert_eq!(progress(&fails(routed(), FailureKind::Hopeless)), Progress::Failing);
    let active = stored(routed());
    assert_eq!(progress(&active), Progress::Active);
    let names = NameSet::try_from(vec!["shop.example".parse().unwrap(), "www.shop.example".parse().unwrap()]).unwrap();
    assert_eq!(progress(&active.changed(SiteRequest { names, ..request() })), Progress::Open);
}

#[test]
fn another_profile_waits_for_the_next_order_unless_one_is_under_way() {
    let short = || SiteRequest { profile: Some("shortlived".parse().unwrap()), ..request() };
    let quiet = stored(routed()).changed(short());
    assert_eq!((action(&quiet), &quiet.order), (None, &None));
    let under_way = at_step(routed(), Step::Authorizing { order: order() }).changed(short());
    assert_eq!((&under_way.abandoned, &under_way.order), (&vec![order()], &Some(Step::Requested)));
    // A key that is sealed has cost an order, or is the old one under another seal.
    let issued = Step::Issued { sealed: sealed(), chain: vec![Base64(vec![3])], authority: Some(ca()) };
    for sealed in [issued, Step::Finalizing { order: order(), sealed: sealed() }] {
        assert_eq!(at_step(routed(), sealed.clone()).changed(short()).order, Some(sealed));
    }
    let profile_of = |site: &Site, policy: &Policy| match site.next(now(), policy) {
        Next::Do(Action::OpenOrder { profile, .. }) => profile.map(|profile| profile.to_string()),
        other => panic!("{other:?}"),
    };
    let tls = Policy { profile: Some("tlsserver".parse().unwrap()), ..policy() };
    let reserved = Some(Reserved { ready: true, ..room() });
    let ready = |site| Site { reserved: reserved.clone(), ..at_step(site, Step::Vouched { account: account() }) };
    assert_eq!(profile_of(&ready(quiet), &tls).as_deref(), Some("shortlived"));
    assert_eq!(profile_of(&ready(routed()), &tls).as_deref(), Some("tlsserver"));
    assert_eq!(profile_of(&ready(routed()), &policy()), None);
}

#[test]
fn a_change_of_the_names_needs_both() {
    let names = NameSet::try_from(vec!["shop.example".parse().unwrap(), "www.shop.example".parse().unwrap()]).unwrap();
    let site = stored(routed()).changed(SiteRequest { names, ..request() });
    assert_eq!(action(&site), Some(Action::StoreRoute));
    assert_eq!(site.order, Some(Step::Requested));
}

#[test]
fn pools_that_a_site_leaves_are_remembered_until_its_route_is_stored() {
    let in_pools =
        |names: &[&str]| SiteRequest { pools: names.iter().map(|name| name.parse().unwrap()).collect(), ..request() };
    let site = routed().changed(in_pools(&["us"])).changed(in_pools(&["ap", "us"])).changed(in_pools(&["ap"]));
    assert_eq!(site.left, ["eu".parse().unwrap(), "us".parse().unwrap()]);
    assert!(site.clone().changed(in_pools(&["eu", "us"])).left.iter().all(|pool| pool.as_str() == "ap"));
    assert!(does(site, Outcome::RouteStored).left.is_empty());
}

#[test]
fn a_site_that_left_keeps_its_versions() {
    let site = stored(routed()).departed();
    assert_eq!(action(&site), Some(Action::StoreRoute));
    let gone = does(site, Outcome::RouteStored);
    assert_eq!(gone.due(), None);
    let back = gone.changed(request());
    assert_eq!((back.route_version, back.bundle_version), (3, 1));
    assert_eq!(action(&back), Some(Action::StoreRoute));
}

#[test]
fn an_order_that_is_given_up_leaves_nothing_pending_at_the_ca() {
    let ordered = at_step(routed(), Step::Authorizing { order: order() });
    let gone = does(ordered.departed(), Outcome::RouteStored);
    assert_eq!(action(&gone), Some(Action::Deactivate(order())));
    assert_eq!(does(gone, Outcome::Deactivated(order())).next(now(), &policy()), Next::Rest);
}

fn brought() -> (SealedKey, Vec<Base64>) {
    (SealedKey { csr: None, bytes: Base64(vec![1]), enveloped: false }, vec![Base64(vec![2])])
}

#[test]
fn a_site_that_a_platform_brought_has_its_certificate_stored_and_is_then_like_any_other() {
    let (sealed, chain) = brought();
    let site = new().imported(sealed.clone(), chain.clone(), 7);
    assert_eq!(action(&site), Some(Action::StoreRoute));
    let site = does(site, Outcome::RouteStored);
    assert_eq!(action(&site), Some(Action::StoreBundle { sealed, chain }));
    let site = store(site);
    assert_eq!((site.bundle_version, site_status(&site).state, action(&site)), (8, SiteState::Active, None));
    assert!(!site.enveloped);
    assert_eq!(action_at(&site, site.due().unwrap().at.unwrap()), Some(Action::OpenAccount(ca())));
}

#[test]
fn another_seal_does_not_move_the_renewal() {
    let early = now() + SignedDuration::from_hours(1);
    let site = stored(routed()).renewed(Some(early));
    let (sealed, chain) = brought();
    let site = store(site.resealed(sealed, chain));
    assert_eq!((site.bundle_version, site.due().unwrap().at), (2, Some(early)));
    assert_eq!(site.certificate.unwrap().ordered_from, Some(ca()), "and not who has to revoke it");
}

fn compromised(version: u64) -> Compromised {
    Compromised { version, certificate: Revocation { authority: Some(ca()), leaf: Base64(vec![version as u8]) } }
}

#[test]
fn a_compromised_certificate_is_replaced_before_everything_else_and_then_revoked() {
    let site = at_step(stored(routed()).renewed(None), Step::Authorizing { order: order() });
    let site = site.replaced(compromised(1));
    assert_eq!(site.due().unwrap().lane, Lane::Incident, "it is ahead of new sites");
    assert_eq!(action(&site), Some(Action::Deactivate(order())), "its key may be sealed to the compromised key");
    let site = does(site, Outcome::Deactivated(order()));
    assert_eq!(action(&site), Some(Action::OpenAccount(ca())));
    let again = at_step(site.clone(), Step::Authorizing { order: order() });
    assert_eq!(again.clone().replaced(compromised(1)), again, "asked again, the new order goes on");

    // Revoked only once another certificate is there to be served.
    let site = stored(site);
    assert_eq!((site.bundle_version, &site.compromised), (2, &None));
    let leaf = compromised(1).certificate;
    assert_eq!(action(&site), Some(Action::Revoke(leaf.clone())));
    assert_eq!(site.due().unwrap().lane, Lane::Incident);
    let away = fails(site.clone(), FailureKind::Unavailable);
    assert_eq!(action_at(&away, away.due().unwrap().at.unwrap()), Some(Action::Revoke(leaf.clone())));
    assert_eq!(action(&does(site, Outcome::Revoked(leaf))), None);
}

#[test]
fn a_compromised_certificate_that_came_in_between_or_whose_site_leaves_is_revoked_too() {
    let site = stored(routed()).replaced(compromised(1)).replaced(compromised(2));
    assert_eq!(
        (site.revoke.as_slice(), site.compromised.as_ref().unwrap().version),
        ([compromised(1).certificate].as_slice(), 2)
    );
    let site = stored(site);
    assert!(site.compromised.is_some(), "version 2 is not above the compromised one");
    let gone = does(site.departed(), Outcome::RouteStored);
    assert_eq!((gone.revoke.len(), action(&gone)), (2, Some(Action::Revoke(compromised(1).certificate))));
}

#[test]
fn after_a_restore_the_route_is_put_again_and_a_bundle_that_is_gone_is_ordered_anew() {
    let site = stored(routed()).unconfirmed();
    assert_eq!(action(&site), Some(Action::StoreRoute));
    let site = does(site, Outcome::RouteStored);
    assert_eq!(action(&site), Some(Action::Confirm));
    let there = does(site.clone(), Outcome::Confirmed(1));
    assert_eq!((action(&there), there.order.as_ref()), (None, None));
    let gone = does(site, Outcome::Confirmed(0));
    assert_eq!(action(&gone), Some(Action::TakeReorder), "certstore's word alone orders nothing");
    assert_eq!(site_status(&gone).order.unwrap().step, LOST);
    let gone = does(gone, Outcome::ReorderTaken);
    assert_eq!(action(&gone), Some(Action::OpenAccount(ca())));
    assert_eq!((gone.bundle_version, gone.route_version), (1, 1), "the next ones are ahead of what the store has");

    // A site that left has no bundle to look for, and one that has none yet has its order.
    let left = does(stored(routed()).departed(), Outcome::RouteStored).unconfirmed();
    assert_eq!(action(&left), Some(Action::StoreRoute));
    assert_eq!(does(left, Outcome::RouteStored).due(), None);
    let ordered = does(routed().unconfirmed(), Outcome::RouteStored);
    assert_eq!(action(&ordered), Some(Action::OpenAccount(ca())));
    assert_eq!(action(&stored(ordered)), Some(Action::Confirm));
}

#[test]
fn a_lost_bundle_without_room_for_its_order_waits_for_an_operator_or_for_its_renewal() {
    let lost = does(Site { unconfirmed: true, ..stored(routed()) }, Outcome::Confirmed(0));
    let waiting = fails(lost, FailureKind::Throttled(3600));
    assert_eq!((action(&waiting), site_status(&waiting).state), (None, SiteState::Waiting));
    let ordered = waiting.clone().renewed(None);
    assert_eq!(action(&ordered), Some(Action::OpenAccount(ca())));
    let renewal = waiting.certificate.as_ref().unwrap().renew_at;
    assert_eq!(action_at(&waiting, renewal), Some(Action::OpenAccount(ca())), "what is due anyway takes no room");
}

#[test]
fn under_another_issuer_key_everything_is_signed_anew_and_no_version_is_out_of_reach() {
    let site = stored(routed());
    let anew = site.clone().signed_anew(0);
    assert_eq!((anew.route_version, anew.bundle_version, action(&anew)), (2, 1, Some(Action::StoreRoute)));
    let anew = does(anew, Outcome::RouteStored);
    assert_eq!(action(&anew), Some(Action::Confirm));
    // Signed by an issuer that still counts: nothing is ordered.
    assert_eq!(does(anew.clone(), Outcome::Confirmed(1)).due(), site.due());
    let gone = does(anew, Outcome::Confirmed(0));
    assert_eq!(action(&gone), Some(Action::OpenAccount(ca())), "the ring says that it counts no more");

    let blocked = Site { route_version: u64::MAX, bundle_version: u64::MAX, ..site };
    let free = blocked.clone().signed_anew(0);
    assert_eq!((free.route_version, free.bundle_version), (1, 0));
    let free = does(does(free, Outcome::RouteStored), Outcome::Confirmed(0));
    assert_eq!(action(&free), Some(Action::OpenAccount(ca())), "also when its version starts from nothing");
    assert_eq!(blocked.signed_anew(100).route_version, 101);
}

#[test]
fn a_key_that_was_sealed_under_another_issuer_is_not_waited_for() {
    let look = Look::first(now());
    let anew = at_step(routed(), Step::Retrieving { order: order(), sealed: sealed(), look }).signed_anew(0);
    assert_eq!((anew.order, anew.abandoned), (Some(Step::Requested), vec![order()]));
    let step = Step::Authorizing { order: order() };
    assert_eq!(at_step(routed(), step.clone()).signed_anew(0).order, Some(step), "nothing is sealed yet");
    let (legacy, chain) = brought();
    let issued = Step::Issued { sealed: legacy, chain, authority: None };
    assert_eq!(at_step(routed(), issued.clone()).signed_anew(0).order, Some(issued), "no issuer signed it");
}

#[test]
fn that_a_key_was_in_an_envelope_is_never_forgotten() {
    let site = stored(routed());
    assert!(site.enveloped && site.departed().changed(request()).enveloped);
}

#[test]
fn a_site_reads_back_from_the_journal_and_a_later_format_is_left_alone() {
    let look = Look::first(now());
    let site = at_step(stored(routed()), Step::ChallengePending { order: order(), answers: Vec::new(), look });
    let record = serde_json::to_string(&site).unwrap();
    assert!(record.starts_with(r#"{"format":"2","#), "{record}");
    assert_eq!(crate::read(record.as_bytes(), |_| true), Ok(site));
    let later = record.replacen(r#""2""#, r#""3""#, 1);
    assert_eq!(crate::read(later.as_bytes(), |_| true), Err(crate::RecordError::Later("3".into())));
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

fn vouched() -> Site {
    at_step(routed(), Step::Vouched { account: account() })
}

fn booking(site: &Site) -> Booking {
    match site.next(now(), &policy()) {
        Next::Book(booking) => booking,
        other => panic!("{other:?}"),
    }
}

fn reserve(again: bool) -> Booking {
    Booking::Reserve { account: account(), kind: OrderKind::New, lane: Lane::NewSite, again }
}

#[test]
fn an_order_is_placed_once_there_is_room_for_it_and_waits_until_then() {
    let site = vouched();
    assert_eq!(booking(&site), reserve(false));
    let until = now() + SignedDuration::from_secs(36);
    let delay = Delay { until, bucket: bucket(LimitName::NewOrders), entries: Entries::new() };
    let waiting = site.clone().booked(&reserve(false), Booked::Delayed(delay));
    assert_eq!(waiting.next(now(), &policy()), Next::WakeAt(until));
    let status = site_status(&waiting);
    let said = status.order.unwrap().diagnosis.unwrap();
    assert!(said.contains("new_orders") && said.contains("2026-11-01T00:00:36Z"), "{said}");
    assert_eq!(status.state, SiteState::Pending, "to wait is no failure");
    let site = waiting.booked(&reserve(false), Booked::Reserved(room()));
    assert_eq!(
        site.next(now(), &policy()),
        Next::Do(Action::OpenOrder { account: account(), replaces: None, profile: None })
    );
    assert_eq!(site.attempts.order, Attempt::default());
}

#[test]
fn an_order_that_the_ca_may_have_takes_room_anew_and_its_certificate_does_not() {
    let site = booked(vouched(), now());
    let refused = fails(site.clone(), FailureKind::Unavailable);
    assert_eq!(refused.reserved, Some(room()), "the CA was not reached");
    let unanswered = fails(site.clone(), FailureKind::Unanswered);
    let later = unanswered.due().unwrap().at.unwrap();
    assert_eq!(unanswered.next(later, &policy()), Next::Book(reserve(true)));
    assert_eq!(booking(&site.clone().resumed()), reserve(true), "nor does a process that died know");
    let again = Booked::Reserved(Reserved { certificate: Vec::new(), ..room() });
    let again = unanswered.booked(&reserve(true), again);
    assert_eq!(again.reserved, Some(room()));
    let opened = does(again, Outcome::OrderOpened(order()));
    assert_eq!(opened.reserved, Some(Reserved { ready: false, order: Vec::new(), ..room() }));
}

#[test]
fn an_order_without_a_certificate_gives_back_what_it_did_not_use() {
    let settled = |site: &Site| match site.next(now(), &policy()) {
        Next::Book(Booking::Settle { account, settlement }) => (account.thumbprint, settlement.back),
        other => panic!("{other:?}"),
    };
    let site = booked(vouched(), now());
    let print = Some("print".to_owned());
    let refused = fails(site.clone(), FailureKind::Rejected);
    assert_eq!(settled(&refused), (print.clone(), vec![bucket(LimitName::NewOrders), bucket(SET)]));
    let opened = does(site.clone(), Outcome::OrderOpened(order()));
    let rejected = fails(opened.clone(), FailureKind::Rejected);
    assert_eq!(settled(&rejected), (print.clone(), vec![bucket(SET)]), "the order was placed");
    assert!(!booked(rejected.clone(), now()).attempts.order.dead && booked(rejected, now()).owed.is_empty());
    // A site that somebody changes, or that leaves, gives it back, too.
    let changed = site.changed(SiteRequest { pools: vec!["us".parse().unwrap()], ..request() });
    let routed = does(changed, Outcome::RouteStored);
    assert_eq!(settled(&routed).1, vec![bucket(LimitName::NewOrders), bucket(SET)]);
    assert_eq!(does(opened.clone().departed(), Outcome::RouteStored).owed.back, vec![bucket(SET)]);
    // With the request at the CA there may be a certificate.
    let finalizing = Site { order: Some(Step::Finalizing { order: order(), sealed: sealed() }), ..opened };
    assert!(fails(finalizing.clone(), FailureKind::Rejected).owed.is_empty());
    let stored = store(at_step(finalizing, Step::Issued { sealed: sealed(), chain: Vec::new(), authority: None }));
    assert_eq!((stored.reserved, stored.owed), (None, Settlement::default()));
}

#[test]
fn a_failed_validation_counts_until_one_succeeds() {
    let name: DnsName = "shop.example".parse().unwrap();
    let answers = vec![Answer { host: name.clone(), token: "t".into(), key_authorization: "t.p".into() }];
    let pending = Step::ChallengePending { order: order(), answers, look: Look::first(now()) };
    let elsewhere = "elsewhere.example".parse().unwrap();
    let failure = Failure { names: vec![name.clone(), elsewhere], ..Failure::new(FailureKind::Rejected, "404") };
    let failed = does(at_step(routed(), pending.clone()), Outcome::Failed(failure));
    assert_eq!(failed.owed.failed, std::slice::from_ref(&name), "a CA that names others counts nothing for them");
    let again = at_step(booked(failed, now()), pending);
    let again = Site { abandoned: Vec::new(), published: Vec::new(), attempts: Attempts::default(), ..again };
    let valid = does(again, order_is(OrderState::Ready));
    assert_eq!((valid.owed.validated.clone(), valid.failing.len()), (vec![name.clone()], 0));
    // A CA that names one again and again has it counted once, and names that the site no longer has are forgotten.
    let failure = Failure { names: vec![name.clone(); 1000], ..Failure::new(FailureKind::Rejected, "404") };
    let pending = Step::ChallengePending { order: order(), answers: Vec::new(), look: Look::first(now()) };
    let failing = Site { failing: vec!["before.example".parse().unwrap()], ..at_step(routed(), pending) };
    let failed = does(failing, Outcome::Failed(failure));
    assert_eq!((&failed.owed.failed, &failed.failing), (&vec![name.clone()], &vec![name]));
    assert_eq!(action(&valid), Some(Action::SealKey));
}

#[test]
fn a_sites_lane_says_how_much_it_matters() {
    let lane = |site: &Site| site.due().unwrap().lane;
    assert_eq!(lane(&new()), Lane::NewSite);
    let active = stored(routed());
    assert_eq!(lane(&active), Lane::Renewal);
    let at = |site: &Site, days: i64| site.lane(Some(now() + SignedDuration::from_hours(24 * days)));
    assert_eq!(
        [10, 60, 74, 76].map(|day| at(&active, day)),
        [Lane::OnDemand, Lane::Renewal, Lane::Renewal, Lane::Expiring]
    );
    let soon = Some(now() + SignedDuration::from_hours(24));
    let moved = active.clone().renewed(soon);
    assert_eq!((lane(&moved), at(&moved, 76)), (Lane::Backfill, Lane::Expiring));
    assert_eq!(lane(&active.clone().renewed(Some(Timestamp::MAX))), Lane::Renewal, "later than planned is as planned");
    let asked = active.renewed(None);
    assert_eq!(Site { written_at: Some(now()), ..asked }.due().unwrap().lane, Lane::OnDemand);
}

#[test]
fn the_same_names_at_the_same_ca_are_no_new_order() {
    let active = at_step(stored(routed()), Step::Vouched { account: account() });
    let kind = |site: &Site, days: i64| site.order_kind(&account(), now() + SignedDuration::from_hours(24 * days));
    assert_eq!([kind(&active, 60), kind(&active, 120)], [OrderKind::SameNames, OrderKind::New]);
    let names = vec!["shop.example".parse().unwrap(), "www.shop.example".parse().unwrap()];
    let other_names = Site { names: NameSet::try_from(names).unwrap(), ..active.clone() };
    assert_eq!(kind(&other_names, 60), OrderKind::New);
    let elsewhere = AccountRef { authority: AuthorityId("https://other.example/directory".into()), ..account() };
    assert_eq!(active.order_kind(&elsewhere, now()), OrderKind::New);
}

/// A site with a certificate that the CA has a name for, the store of which was at `now()`.
fn with_lineage() -> Site {
    let chain = vec![Base64(vec![3])];
    let issued = Step::Issued { sealed: sealed(), chain: chain.clone(), authority: Some(ca()) };
    let site = Site { account: Some(account()), ..at_step(routed(), issued) };
    let not_after = now() + SignedDuration::from_hours(90 * 24);
    let stored =
        Outcome::Stored { authority: "CA".into(), id: Some("aki.serial".into()), not_before: now(), not_after };
    site.after(&Action::StoreBundle { sealed: sealed(), chain }, stored, Moment { now: now(), chance: 0.5 }, &policy())
}

fn window(from_days: i64, to_days: i64) -> Window {
    let at = |days| now() + SignedDuration::from_hours(24 * days);
    Window::new(at(from_days), at(to_days)).unwrap()
}

fn advise(site: Site, window: Window, at: Timestamp, chance: f64) -> Site {
    let ask = action_at(&site, at).unwrap();
    let Action::AskAdvice(lineage) = &ask else { panic!("{ask:?}") };
    assert_eq!((lineage.id.as_str(), &lineage.account), ("aki.serial", &account()));
    let retry_after = SignedDuration::from_hours(6);
    let advised = Outcome::Advised { window, retry_after, explanation: Some("https://why".into()) };
    site.after(&ask, advised, Moment { now: at, chance }, &policy())
}

#[test]
fn the_ca_is_asked_when_to_renew_as_often_as_it_says() {
    let hours = SignedDuration::from_hours;
    let site = with_lineage();
    assert_eq!(wait(&site), hours(3), "spread over six hours");
    let site = advise(site, window(58, 62), now() + hours(3), 0.25);
    let renew_at = |site: &Site| site.certificate.as_ref().unwrap().renew_at;
    assert_eq!(renew_at(&site), now() + hours(59 * 24));
    assert_eq!(wait(&site), hours(9));
    // The same window again moves nothing, whatever chance says.
    let site = advise(site, window(58, 62), now() + hours(9), 0.75);
    assert_eq!((renew_at(&site), wait(&site)), (now() + hours(59 * 24), hours(15)));
    // Another one does, but not beyond what is safe; and one in the past means now.
    let late = advise(site.clone(), window(88, 89), now() + hours(15), 0.5);
    assert_eq!(renew_at(&late), late.certificate.as_ref().unwrap().expiring_at());
    let past = advise(site.clone(), window(-2, -1), now() + hours(15), 0.5);
    assert_eq!(action_at(&past, now() + hours(15)), Some(Action::OpenAccount(ca())));
    // Without an answer it is asked again in six hours, and the renewal keeps its time.
    let asked = action_at(&site, now() + hours(15)).unwrap();
    let failure = Outcome::Failed(Failure::new(FailureKind::Unanswered, "why"));
    let failed = site.clone().after(&asked, failure, Moment { now: now() + hours(15), chance: 0.0 }, &policy());
    assert_eq!((wait(&failed), renew_at(&failed)), (hours(21), now() + hours(59 * 24)));
    assert_eq!(site_status(&failed).state, SiteState::Active);
    let never = site.clone().after(&asked, Outcome::NotAdvised, moment(), &policy());
    assert_eq!(wait(&never), hours(59 * 24));
    // An operator need not wait, nor is a certificate asked about that was replaced or has expired.
    assert_eq!(wait(&never.advice_wanted(now())), SignedDuration::ZERO);
    assert_eq!(action_at(&site.clone().renewed(None), now() + hours(15)), Some(Action::OpenAccount(ca())));
    let mut expired = site;
    let certificate = expired.certificate.as_mut().unwrap();
    (certificate.not_after, certificate.renew_at) = (now() + hours(10), now() + hours(999));
    assert_eq!(wait(&expired), hours(999));
}

#[test]
fn a_renewal_says_what_it_replaces_and_costs_nothing_within_the_window() {
    let hours = SignedDuration::from_hours;
    let site = advise(with_lineage(), window(58, 62), now() + hours(3), 0.0);
    let vouched = at_step(site, Step::Vouched { account: account() });
    let kind = |site: &Site, days: i64| site.order_kind(&account(), now() + hours(24 * days));
    let same = OrderKind::Replacement { same_names: true };
    assert_eq!(
        [57, 58, 61, 62].map(|day| kind(&vouched, day)),
        [OrderKind::SameNames, same, same, OrderKind::SameNames]
    );
    let www = vec!["shop.example".parse().unwrap(), "www.shop.example".parse().unwrap()];
    let wider = Site { names: NameSet::try_from(www).unwrap(), ..vouched.clone() };
    assert_eq!(kind(&wider, 60), OrderKind::Replacement { same_names: false });
    let elsewhere =
        Site { names: NameSet::try_from(vec!["other.example".parse().unwrap()]).unwrap(), ..vouched.clone() };
    assert_eq!(kind(&elsewhere, 60), OrderKind::New, "a name must be the same");
    let other = AccountRef { thumbprint: Some("other".into()), ..account() };
    assert_eq!(vouched.order_kind(&other, now() + hours(24 * 60)), OrderKind::SameNames);

    let at = now() + hours(24 * 60);
    let ordered = booked(vouched, at);
    let replaces = Some("aki.serial".to_owned());
    assert_eq!(
        ordered.next(at, &policy()),
        Next::Do(Action::OpenOrder { account: account(), replaces, profile: None })
    );
    // The CA knows of another order that does.
    let again = fails(ordered, FailureKind::AlreadyReplaced);
    assert_eq!(
        (again.attempts.order.failures(), again.owed.back.clone()),
        (0, vec![bucket(LimitName::NewOrders), bucket(SET)])
    );
    let again = booked(again, at);
    assert_eq!(
        again.next(at, &policy()),
        Next::Do(Action::OpenOrder { account: account(), replaces: None, profile: None })
    );
    assert_eq!(kind(&again, 60), OrderKind::SameNames);
    // A CA that says so of an order that replaces nothing is not asked again at once, and again, and again.
    let refused = fails(again, FailureKind::AlreadyReplaced);
    assert!(refused.attempts.order.rejected == 1 && refused.attempts.order.retry_at.is_some(), "{refused:?}");
}

#[test]
fn an_order_can_be_given_up_and_tried_again() {
    let rejected = (0..4).fold(routed(), |site, _| {
        let site = fails(at_step(site, Step::Authorizing { order: order() }), FailureKind::Rejected);
        does(site, Outcome::Deactivated(order()))
    });
    assert_eq!(rejected.stage(), Some(Stage::DeadLetter));
    assert_eq!(action(&rejected), None);
    assert_eq!(action(&rejected.clone().order_retried()), Some(Action::OpenAccount(ca())));
    let discarded = at_step(rejected, Step::Authorizing { order: order() }).order_discarded();
    let discarded = does(discarded, Outcome::Deactivated(order()));
    assert_eq!((discarded.due(), discarded.stage()), (None, Some(Stage::DeadLetter)));
    assert_eq!(action(&discarded.order_retried()), Some(Action::OpenAccount(ca())));
    // Where none is under way there is nothing to give up.
    let active = stored(routed());
    assert_eq!(active.clone().order_discarded(), active);
    let paused = Attempt { rejected: 29, ..Attempt::default() };
    let paused = Site { attempts: Attempts { order: paused, ..Attempts::default() }, ..routed() };
    let paused = fails(at_step(paused, Step::Vouched { account: account() }), FailureKind::Rejected);
    assert_eq!(booked(paused, now()).due(), None, "after thirty times somebody has to ask for it");
}
