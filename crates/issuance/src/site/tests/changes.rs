//! What people, platforms and a store that lost something change about a site.

use certseal_wire::{CertificateState, RevocationReason};

use super::*;

#[test]
fn a_hopeless_order_waits_for_a_change() {
    let site = fails(routed(), FailureKind::Hopeless);
    assert_eq!((site.due(), site_status(&site, now()).state), (None, SiteState::Failed));
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
    let progress = |site: &Site| Progress::of(&site_status(site, now()));
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
    assert_eq!((site.bundle_version, site_status(&site, now()).state, action(&site)), (8, SiteState::Active, None));
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
    unwanted(version, RevocationReason::KeyCompromise)
}

fn unwanted(version: u64, reason: RevocationReason) -> Compromised {
    let leaf = Base64(vec![version as u8]);
    Compromised { version, certificate: Revocation { authority: Some(ca()), leaf, reason } }
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
fn a_certificate_that_somebody_wants_revoked_is_replaced_first_and_is_no_incident() {
    let superseded = unwanted(1, RevocationReason::Superseded);
    let site = stored(routed()).replaced(superseded.clone());
    assert_eq!(site.due().unwrap().lane, Lane::OnDemand, "it goes before no compromised key");
    assert_eq!(site_status(&site, now()).certificate_state, CertificateState::Valid, "nobody else has its key");
    assert_eq!(action(&site), Some(Action::OpenAccount(ca())));
    let running = at_step(site.clone(), Step::Authorizing { order: order() });
    assert_eq!(running.clone().replaced(superseded.clone()), running, "asked again, the order goes on");
    assert_eq!(running.clone().replaced(unwanted(1, RevocationReason::Unspecified)), running, "the first word counts");
    let site = stored(site);
    assert_eq!(action(&site), Some(Action::Revoke(superseded.certificate.clone())));
    assert_eq!(action(&does(site, Outcome::Revoked(superseded.certificate))), None);
}

#[test]
fn a_compromised_key_is_worse_than_any_reason_before_and_the_certificate_is_revoked_once() {
    let wanted = stored(routed()).replaced(unwanted(1, RevocationReason::Superseded));
    let site = wanted.replaced(compromised(1));
    assert_eq!((site.due().unwrap().lane, site.revoke.len()), (Lane::Incident, 0));
    assert_eq!(site.clone().replaced(unwanted(1, RevocationReason::Superseded)), site, "and no word makes it better");
    assert_eq!(stored(site).revoke, [compromised(1).certificate]);
}

#[test]
fn a_certificate_that_gets_no_replacement_is_revoked_at_once_and_so_is_that_of_a_site_that_left() {
    let ended = unwanted(1, RevocationReason::CessationOfOperation).certificate;
    let site = stored(routed()).revoked(ended.clone());
    assert_eq!((action(&site), &site.order), (Some(Action::Revoke(ended.clone())), &None));
    assert_eq!(site.clone().revoked(ended.clone()), site, "asked again, it is asked for once");
    assert_eq!(action(&does(site, Outcome::Revoked(ended.clone()))), None, "it is served as before");
    let waiting = stored(routed()).replaced(unwanted(1, RevocationReason::Superseded));
    assert_eq!(waiting.revoked(ended.clone()).compromised, None, "the later word says not to wait");
    let left = does(stored(routed()).departed(), Outcome::RouteStored).revoked(ended.clone());
    assert_eq!(action(&left), Some(Action::Revoke(ended)));
}

#[test]
fn a_reason_is_kept_in_the_journal_and_a_record_without_one_says_that_the_key_is_compromised() {
    let site = stored(routed()).replaced(unwanted(1, RevocationReason::Superseded));
    let record = serde_json::to_string(&site).unwrap();
    assert!(record.contains(r#""reason":"superseded""#), "{record}");
    assert_eq!(crate::read(record.as_bytes(), |_| true), Ok(site.clone()));
    let old = serde_json::to_string(&stored(routed()).replaced(compromised(1))).unwrap();
    assert!(!old.contains("reason"), "a release before reads it as it wrote it: {old}");
    let read = crate::read(old.as_bytes(), |_| true).unwrap();
    assert_eq!(read.compromised, Some(compromised(1)));
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
    assert_eq!(site_status(&gone, now()).order.unwrap().step, LOST);
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
    assert_eq!((action(&waiting), site_status(&waiting, now()).state), (None, SiteState::Waiting));
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
fn a_site_with_both_types_of_key_has_a_companion_that_follows_it() {
    let both = || SiteRequest { key_type: KeyType::Both, ..request() };
    let new = new().changed(both());
    assert_eq!(new.companion(None), None, "names that are not validated yet would cost twice");
    let site = stored(routed()).changed(both());
    assert_eq!(action(&site), None, "its own certificate is of the right type already");
    let companion = site.companion(None).unwrap();
    assert_eq!(companion.site.as_str(), "_rsa.shop.example");
    assert_eq!((companion.key_type, &companion.companion_of), (KeyType::Rsa2048, &Some(site.site.clone())));
    assert_eq!((&companion.names, &companion.order), (&site.names, &Some(Step::Requested)));
    assert_eq!((site.companion(Some(&companion)), companion.companion(None)), (None, None));

    // A certman of a release before drops what it does not know.
    let dropped = Site { companion_of: None, key_type: KeyType::EcdsaP256, ..companion.clone() };
    let mended = site.companion(Some(&dropped)).unwrap();
    assert_eq!((&mended.companion_of, mended.key_type), (&companion.companion_of, KeyType::Rsa2048));
    assert!(site.clone().changed(request()).companion(Some(&dropped)).unwrap().departed);

    // What became of its order is its own affair.
    let dead = fails(Site { route_stored: true, ..companion.clone() }, FailureKind::Hopeless);
    assert_eq!(site.companion(Some(&dead)), None);
    let moved = site.clone().changed(SiteRequest { upstream: "http://127.0.0.1:2".parse().unwrap(), ..both() });
    let followed = moved.companion(Some(&companion)).unwrap();
    assert_eq!((&followed.upstream, followed.route_version), (&moved.upstream, 2));
    assert_eq!(moved.companion(Some(&followed)), None);

    for gone in [site.clone().changed(request()), site.clone().departed()] {
        let left = gone.companion(Some(&companion)).unwrap();
        assert!(left.departed && left.route_version == 2);
        assert_eq!(gone.companion(Some(&left)), None);
        let back = site.companion(Some(&left)).unwrap();
        assert!(!back.departed && back.companion_of.is_some());
    }
}

#[test]
fn a_site_is_validated_in_its_own_ways_one_after_the_other() {
    let policy = Policy { methods: vec![ValidationMethod::Http], ..policy() };
    let own = || SiteRequest { challenges: vec![ValidationMethod::TlsAlpn, ValidationMethod::DnsPersist], ..request() };
    let (site, host) = (routed().changed(own()), routed().site);
    let method = |site: &Site, host: &DnsName, rejected| policy.method(&site.challenges, host, rejected);
    assert_eq!(method(&routed(), &host, 0), ValidationMethod::Http);
    assert_eq!(method(&site, &host, 0), ValidationMethod::TlsAlpn);
    assert_eq!(method(&site, &host, 1), ValidationMethod::DnsPersist);
    assert_eq!(method(&site, &"*.shop.example".parse().unwrap(), 2), ValidationMethod::DnsPersist);

    // Another way begins the order anew, and what was seen of the names was seen for the way before.
    let looked =
        Site { looked: Some(Looked::unknown(now())), ..at_step(routed(), Step::Authorizing { order: order() }) };
    let changed = looked.changed(own());
    assert_eq!((changed.looked, changed.order, changed.abandoned), (None, Some(Step::Requested), vec![order()]));
}

#[test]
fn a_site_is_of_a_later_format_where_a_release_before_would_lose_something_of_it() {
    let format = |request: SiteRequest| routed().changed(request).in_its_format().format;
    assert_eq!(format(request()), Format::Second);
    for request in [
        SiteRequest { key_type: KeyType::Both, ..request() },
        SiteRequest { challenges: vec![ValidationMethod::Dns], ..request() },
    ] {
        assert_eq!(format(request), Format::Third);
    }
    let site = routed().changed(SiteRequest { key_type: KeyType::Both, ..request() }).in_its_format();
    assert_eq!(crate::read(&serde_json::to_vec(&site).unwrap(), |_| true), Ok(site.clone()));
    assert_eq!(site.changed(request()).in_its_format().format, Format::Second);
}
