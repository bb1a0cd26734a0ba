use std::sync::Mutex;

use certseal_seal::{Recipient, SigningKey, Suite};
use certseal_wire::Epoch;

use super::*;
use crate::birth::{Groups, sealed_key};

const PACE: Pace = Pace { retry: SignedDuration::from_secs(60), chance: 0.0 };

fn now() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn request() -> SiteRequest {
    SiteRequest {
        names: NameSet::try_from(vec!["shop.example".parse().unwrap()]).unwrap(),
        upstream: "http://127.0.0.1:1".parse().unwrap(),
        pools: vec!["eu".parse().unwrap()],
        owner: None,
    }
}

fn routed() -> Site {
    Site::new("shop.example".parse().unwrap(), request()).after(Outcome::RouteStored, now(), PACE)
}

fn fail(site: Site, kind: FailureKind) -> Site {
    site.after(Outcome::Failed(Failure::new(kind, "why")), now(), PACE)
}

fn stored(site: Site) -> Site {
    let not_after = now() + SignedDuration::from_hours(90 * 24);
    site.after(Outcome::Stored { authority: "CA".into(), not_before: now(), not_after, enveloped: true }, now(), PACE)
}

#[test]
fn a_new_site_first_gets_its_route_and_then_its_order() {
    let site = Site::new("shop.example".parse().unwrap(), request());
    assert_eq!(site.task(now()), Some(Task::StoreRoute));
    assert_eq!(routed().task(now()), Some(Task::Order(Step::Requested)));
    assert_eq!(routed().status().state, SiteState::Pending);
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
fn a_renewal_is_due_at_two_thirds_of_the_lifetime_with_jitter() {
    let site = stored(routed());
    assert_eq!(site.status().state, SiteState::Active);
    assert_eq!(site.task(now()), None);
    let at = |chance| renewal(now(), now() + SignedDuration::from_hours(100), chance).duration_since(now());
    assert_eq!(at(0.0).as_hours(), 63);
    assert_eq!((at(1.0).as_secs_f64() / 3600.0).round(), 67.0);
    let due = site.due().unwrap();
    assert_eq!(site.task(due), Some(Task::Order(Step::Requested)));
    assert_eq!(stored(site).bundle_version, 2);
}

#[test]
fn an_unavailable_peer_is_asked_for_the_same_step_again_soon() {
    let step = Step::Authorizing { order_url: "u".into() };
    let mut site = routed().after(Outcome::Moved(step.clone()), now(), PACE);
    for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
        site = fail(site, FailureKind::Unavailable);
        assert_eq!(site.due().unwrap().duration_since(now()).as_secs(), seconds);
        assert_eq!(site.order, Some(step.clone()));
    }
    assert_eq!(site.status().state, SiteState::Waiting);
}

#[test]
fn a_throttling_ca_is_obeyed() {
    let site = fail(routed(), FailureKind::Throttled(3600));
    assert_eq!(site.due().unwrap().duration_since(now()).as_secs(), 3600);
}

#[test]
fn a_rejected_order_begins_anew_after_1_10_100_minutes_and_then_daily() {
    let mut site = routed();
    for minutes in [1, 10, 100, 1000, 1440, 1440] {
        site = site.after(Outcome::Moved(Step::Authorizing { order_url: "u".into() }), now(), PACE);
        site = fail(site, FailureKind::Rejected);
        assert_eq!(site.due().unwrap().duration_since(now()).as_mins(), minutes);
        assert_eq!(site.order, Some(Step::Requested));
        // What the CA still has pending goes first.
        assert_eq!(site.task(site.due().unwrap()), Some(Task::Abandon("u".into())));
        site = site.after(Outcome::Abandoned("u".into()), now(), PACE);
        assert_eq!(site.task(site.due().unwrap()), Some(Task::Order(Step::Requested)));
    }
}

#[test]
fn a_version_that_certstore_has_already_is_gone_beyond() {
    let site = fail(Site::new("shop.example".parse().unwrap(), request()), FailureKind::Outrun(7));
    assert_eq!((site.route_version, site.task(site.due().unwrap())), (8, Some(Task::StoreRoute)));

    let issued = Step::Issued { sealed: SealedKey { csr: Base64(vec![]), bytes: Base64(vec![]) }, chain: vec![] };
    let site = fail(routed().after(Outcome::Moved(issued), now(), PACE), FailureKind::Outrun(3));
    assert_eq!((site.bundle_version, &site.order), (3, &Some(Step::Requested)));
    assert_eq!(stored(site).bundle_version, 4);
}

#[test]
fn a_certificate_that_is_old_when_it_is_issued_is_not_renewed_at_once() {
    let not_before = now() - SignedDuration::from_hours(24);
    let not_after = now() + SignedDuration::from_secs(100);
    let site =
        routed().after(Outcome::Stored { authority: "CA".into(), not_before, not_after, enveloped: true }, now(), PACE);
    assert_eq!(site.due().unwrap().duration_since(now()), LEAST_LIFE);
}

#[test]
fn a_long_diagnosis_is_cut() {
    assert_eq!(Failure::new(FailureKind::Rejected, "x".repeat(1 << 20)).detail.len(), MAX_DETAIL);
}

#[test]
fn a_hopeless_order_waits_for_a_change() {
    let site = fail(routed(), FailureKind::Hopeless);
    assert_eq!((site.due(), site.status().state), (None, SiteState::Failed));
    assert_eq!(site.changed(request()).task(now()), Some(Task::Order(Step::Requested)));
}

#[test]
fn a_change_of_the_upstream_needs_a_route_but_no_certificate() {
    let upstream = SiteRequest { upstream: "http://127.0.0.1:2".parse().unwrap(), ..request() };
    let site = stored(routed()).changed(upstream);
    assert_eq!((site.route_version, &site.order), (2, &None));
    assert_eq!(site.task(now()), Some(Task::StoreRoute));
    let again = site.clone().changed(request());
    assert_eq!(again.route_version, 3);
    assert_eq!(again.clone().changed(request()), again);
}

#[test]
fn a_change_of_the_names_needs_both() {
    let names = NameSet::try_from(vec!["shop.example".parse().unwrap(), "www.shop.example".parse().unwrap()]).unwrap();
    let site = stored(routed()).changed(SiteRequest { names, ..request() });
    assert_eq!(site.task(now()), Some(Task::StoreRoute));
    assert_eq!(site.order, Some(Step::Requested));
}

#[test]
fn pools_that_a_site_leaves_are_remembered_until_its_route_is_stored() {
    let in_pools =
        |names: &[&str]| SiteRequest { pools: names.iter().map(|name| name.parse().unwrap()).collect(), ..request() };
    let site = routed().changed(in_pools(&["us"])).changed(in_pools(&["ap", "us"])).changed(in_pools(&["ap"]));
    assert_eq!(site.left, ["eu".parse().unwrap(), "us".parse().unwrap()]);
    assert!(site.clone().changed(in_pools(&["eu", "us"])).left.iter().all(|pool| pool.as_str() == "ap"));
    assert!(site.after(Outcome::RouteStored, now(), PACE).left.is_empty());
}

#[test]
fn a_site_that_left_keeps_its_versions() {
    let site = stored(routed()).departed();
    assert_eq!(site.task(now()), Some(Task::StoreRoute));
    let gone = site.after(Outcome::RouteStored, now(), PACE);
    assert_eq!(gone.due(), None);
    let back = gone.changed(request());
    assert_eq!((back.route_version, back.bundle_version), (3, 1));
    assert_eq!(back.task(now()), Some(Task::StoreRoute));
}

#[test]
fn an_order_that_is_given_up_leaves_nothing_pending_at_the_ca() {
    let ordered = routed().after(Outcome::Moved(Step::Authorizing { order_url: "u".into() }), now(), PACE);
    let gone = ordered.departed().after(Outcome::RouteStored, now(), PACE);
    assert_eq!(gone.task(now()), Some(Task::Abandon("u".into())));
    assert_eq!(gone.after(Outcome::Abandoned("u".into()), now(), PACE).task(now()), None);
}

fn brought() -> (SealedKey, Vec<Base64>) {
    (SealedKey { csr: Base64(vec![]), bytes: Base64(vec![1]) }, vec![Base64(vec![2])])
}

#[test]
fn a_site_that_a_platform_brought_has_its_certificate_stored_and_is_then_like_any_other() {
    let (sealed, chain) = brought();
    let site = Site::new("shop.example".parse().unwrap(), request()).imported(sealed.clone(), chain.clone(), 7);
    assert_eq!(site.task(now()), Some(Task::StoreRoute));
    let site = site.after(Outcome::RouteStored, now(), PACE);
    assert_eq!(site.task(now()), Some(Task::Order(Step::Issued { sealed, chain })));
    let site = stored(site);
    assert_eq!((site.bundle_version, site.status().state, site.task(now())), (8, SiteState::Active, None));
    assert_eq!(site.task(site.due().unwrap()), Some(Task::Order(Step::Requested)));
}

#[test]
fn another_seal_does_not_move_the_renewal() {
    let early = now() + SignedDuration::from_hours(1);
    let site = stored(routed()).renewed(Some(early));
    let (sealed, chain) = brought();
    let site = stored(site.resealed(sealed, chain));
    assert_eq!((site.bundle_version, site.due()), (2, Some(early)));
}

#[test]
fn a_compromised_certificate_is_replaced_before_everything_else_and_then_revoked() {
    let order = Step::Authorizing { order_url: "u".into() };
    let site = stored(routed()).renewed(None).after(Outcome::Moved(order.clone()), now(), PACE);
    let compromised = |version| Compromised { version, leaf: Base64(vec![version as u8]) };
    let site = site.replaced(compromised(1));
    assert!(site.due() < routed().due(), "it is not ahead of new sites");
    assert_eq!(site.task(now()), Some(Task::Abandon("u".into())), "its key may be sealed to the compromised key");
    let site = site.after(Outcome::Abandoned("u".into()), now(), PACE);
    assert_eq!(site.task(now()), Some(Task::Order(Step::Requested)));
    let again = site.clone().after(Outcome::Moved(order), now(), PACE);
    assert_eq!(again.clone().replaced(compromised(1)), again, "asked again, the new order goes on");

    // Revoked only once another certificate is there to be served.
    let site = stored(site);
    assert_eq!((site.bundle_version, &site.compromised), (2, &None));
    let leaf = Base64(vec![1]);
    assert_eq!(site.task(now()), Some(Task::Revoke(leaf.clone())));
    assert!(site.due() < routed().due());
    let away = fail(site.clone(), FailureKind::Unavailable);
    assert_eq!(away.task(away.due().unwrap()), Some(Task::Revoke(leaf.clone())));
    assert_eq!(site.after(Outcome::Revoked(leaf), now(), PACE).task(now()), None);
}

#[test]
fn a_compromised_certificate_that_came_in_between_or_whose_site_leaves_is_revoked_too() {
    let compromised = |version| Compromised { version, leaf: Base64(vec![version as u8]) };
    let site = stored(routed()).replaced(compromised(1)).replaced(compromised(2));
    assert_eq!((site.revoke.as_slice(), site.compromised.as_ref().unwrap().version), ([Base64(vec![1])].as_slice(), 2));
    let site = stored(site);
    assert!(site.compromised.is_some(), "version 2 is not above the compromised one");
    let gone = site.departed().after(Outcome::RouteStored, now(), PACE);
    assert_eq!((gone.revoke.len(), gone.task(now())), (2, Some(Task::Revoke(Base64(vec![1])))));
}

#[test]
fn a_journal_from_before_imports_and_revocations_reads() {
    let mut json = serde_json::to_value(stored(routed())).unwrap();
    let members = json.as_object_mut().unwrap();
    members.remove("compromised").unwrap();
    members.remove("revoke").unwrap();
    members["order"] = serde_json::json!({"issued": {"sealed": {"csr": "", "envelope": "AQ"}, "chain": []}});
    let site: Site = serde_json::from_value(json).unwrap();
    let Some(Step::Issued { sealed, .. }) = site.order else { panic!("another step") };
    assert_eq!(sealed.bytes, Base64(vec![1]));
}

#[test]
fn a_site_reads_back_from_the_journal() {
    let site = routed().after(
        Outcome::Moved(Step::ChallengePending {
            order_url: "u".into(),
            answers: vec![Answer { host: "a.b".parse().unwrap(), token: "t".into(), key_authorization: "t.x".into() }],
        }),
        now(),
        PACE,
    );
    let json = serde_json::to_vec(&site).unwrap();
    assert_eq!(serde_json::from_slice::<Site>(&json).unwrap(), site);
}

#[test]
fn after_a_restore_the_route_is_put_again_and_a_bundle_that_is_gone_is_ordered_anew() {
    let site = stored(routed()).unconfirmed();
    assert_eq!(site.task(now()), Some(Task::StoreRoute));
    let site = site.after(Outcome::RouteStored, now(), PACE);
    assert_eq!(site.task(now()), Some(Task::Confirm));
    let there = site.clone().after(Outcome::Confirmed(1), now(), PACE);
    assert_eq!((there.task(now()), there.order.as_ref()), (None, None));
    let gone = site.after(Outcome::Confirmed(0), now(), PACE);
    assert_eq!(gone.task(now()), Some(Task::Reorder), "certstore's word alone orders nothing");
    assert_eq!(gone.status().order.unwrap().step, LOST);
    let gone = gone.after(Outcome::Reordered, now(), PACE);
    assert_eq!(gone.task(now()), Some(Task::Order(Step::Requested)));
    assert_eq!((gone.bundle_version, gone.route_version), (1, 1), "the next ones are ahead of what the store has");

    // A site that left has no bundle to look for, and one that has none yet has its order.
    let left = stored(routed()).departed().after(Outcome::RouteStored, now(), PACE).unconfirmed();
    assert_eq!(left.task(now()), Some(Task::StoreRoute));
    assert_eq!(left.after(Outcome::RouteStored, now(), PACE).due(), None);
    let ordered = routed().unconfirmed().after(Outcome::RouteStored, now(), PACE);
    assert_eq!(ordered.task(now()), Some(Task::Order(Step::Requested)));
    assert_eq!(stored(ordered).task(now()), Some(Task::Confirm));
}

#[test]
fn a_lost_bundle_without_room_for_its_order_waits_for_an_operator_or_for_its_renewal() {
    let lost = Site { unconfirmed: true, ..stored(routed()) }.after(Outcome::Confirmed(0), now(), PACE);
    let waiting = fail(lost, FailureKind::Throttled(3600));
    assert_eq!((waiting.task(now()), waiting.status().state), (None, SiteState::Waiting));
    let ordered = waiting.clone().renewed(None);
    assert_eq!(ordered.task(now()), Some(Task::Order(Step::Requested)));
    let renewal = waiting.certificate.as_ref().unwrap().renew_at;
    let unheard = Site { attempt: Attempt::default(), ..waiting };
    assert_eq!(unheard.task(renewal), Some(Task::Order(Step::Requested)), "what is due anyway takes no room");
}

#[test]
fn under_another_issuer_key_everything_is_signed_anew_and_no_version_is_out_of_reach() {
    let site = stored(routed());
    let anew = site.clone().signed_anew(0);
    assert_eq!((anew.route_version, anew.bundle_version, anew.task(now())), (2, 1, Some(Task::StoreRoute)));
    let anew = anew.after(Outcome::RouteStored, now(), PACE);
    assert_eq!(anew.task(now()), Some(Task::Confirm));
    // Signed by an issuer that still counts: nothing is ordered.
    assert_eq!(anew.clone().after(Outcome::Confirmed(1), now(), PACE).due(), site.due());
    let gone = anew.after(Outcome::Confirmed(0), now(), PACE);
    assert_eq!(gone.task(now()), Some(Task::Order(Step::Requested)), "the ring says that it counts no more");

    let blocked = Site { route_version: u64::MAX, bundle_version: u64::MAX, ..site };
    let free = blocked.clone().signed_anew(0);
    assert_eq!((free.route_version, free.bundle_version), (1, 0));
    let free = free.after(Outcome::RouteStored, now(), PACE).after(Outcome::Confirmed(0), now(), PACE);
    assert_eq!(free.task(now()), Some(Task::Order(Step::Requested)), "also when its version starts from nothing");
    assert_eq!(blocked.signed_anew(100).route_version, 101);
}

#[test]
fn a_key_that_was_sealed_under_another_issuer_is_not_waited_for() {
    let public = aws_lc_rs::agreement::PrivateKey::generate(&aws_lc_rs::agreement::X25519).unwrap();
    let public = public.compute_public_key().unwrap().as_ref().to_vec();
    let recipient = Recipient::new("eu".parse().unwrap(), Epoch(1), Suite::X25519, public).unwrap();
    let groups = Mutex::new(Groups::new(1, SignedDuration::from_secs(1)));
    let issuer = SigningKey::generate().unwrap();
    let sealed = sealed_key(&request().names, 1, &[recipient], &issuer, &groups).unwrap();
    assert!(sealed.is_envelope());
    let order = Some(Step::Retrieving { order_url: "u".into(), sealed });
    let anew = Site { order, ..routed() }.signed_anew(0);
    assert_eq!((anew.order, anew.abandoned), (Some(Step::Requested), vec!["u".to_owned()]));
    let order = Some(Step::Authorizing { order_url: "u".into() });
    assert_eq!(Site { order: order.clone(), ..routed() }.signed_anew(0).order, order, "nothing is sealed yet");
}

#[test]
fn that_a_key_was_in_an_envelope_is_never_forgotten() {
    let site = stored(routed());
    assert!(site.enveloped && site.departed().changed(request()).enveloped);
}
