//! OCSP answers: when a responder is asked, and what it holds up.

use super::*;

/// A site whose certificate names a responder.
fn answered() -> Site {
    store_naming(issued(Some(ca())), true)
}

fn issued(authority: Option<AuthorityId>) -> Site {
    at_step(routed(), Step::Issued { sealed: sealed(), chain: vec![Base64(vec![3])], authority })
}

fn store_naming(site: Site, responder: bool) -> Site {
    let (authority, not_after) = ("CA".to_owned(), now() + SignedDuration::from_hours(90 * 24));
    let outcome = Outcome::Stored { authority, id: None, not_before: now(), not_after, responder };
    site.after(&Action::StoreBundle { sealed: sealed(), chain: Vec::new() }, outcome, moment(), &policy())
}

fn fetch(version: u64) -> Option<Action> {
    Some(Action::FetchStaple { version })
}

/// An answer that holds for a week from `now()`.
fn stapled(version: u64) -> Outcome {
    Outcome::Stapled { version, this_update: now(), next_update: now() + SignedDuration::from_hours(7 * 24) }
}

#[test]
fn an_answer_is_fetched_at_once_and_again_at_half_of_its_life() {
    let site = answered();
    assert_eq!((action(&site), site.due()), (fetch(1), Some(Due { lane: Lane::Renewal, at: None })));
    let site = does(site, stapled(1));
    assert_eq!((action(&site), wait(&site)), (None, SignedDuration::from_hours(84)));
    let site = does(site, stapled(2));
    assert_eq!(site.staple.as_ref().unwrap().version, 2);
    let status = site_status(&site, now());
    assert_eq!((status.state, status.staple.unwrap().version), (SiteState::Active, 2));
    // The journal has it, and a record from before has none.
    let record = serde_json::to_vec(&site).unwrap();
    assert_eq!(crate::read(&record, |_| true), Ok(site));
}

#[test]
fn a_certificate_without_a_responder_costs_nothing() {
    let site = store_naming(issued(Some(ca())), false);
    assert_eq!((&site.staple, action(&site), site_status(&site, now()).staple), (&None, None, None));
    assert!(!serde_json::to_string(&site).unwrap().contains("staple"));
    // Nor does one that a platform brought: it names whom its bringer likes.
    assert_eq!(store_naming(issued(None), true).staple, None);
    // The next certificate may name none, and the one after it one again: versions go on.
    let site = does(answered(), stapled(4));
    let without = store_naming(at_step(site, issued(Some(ca())).order.unwrap()), false);
    assert_eq!((action(&without), without.staple.as_ref().unwrap().version), (None, 4));
    let again = store_naming(at_step(without, issued(Some(ca())).order.unwrap()), true);
    assert_eq!(action(&again), fetch(5));
    assert_eq!(action(&does(again, Outcome::NoResponder)), None);
}

#[test]
fn a_responder_that_is_away_is_asked_again_for_ever_and_holds_up_nothing() {
    let mut site = answered();
    for seconds in [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600] {
        site = fails(site, FailureKind::Rejected);
        assert_eq!(wait(&site).as_secs(), seconds);
    }
    let status = site_status(&site, now());
    assert_eq!((status.state, status.order), (SiteState::Active, None), "the certificate is good");
    assert_eq!((status.staple.as_ref().unwrap().failures, status.staple.unwrap().diagnosis), (12, Some("why".into())));
    // A change and a renewal go at once.
    let changed = site.clone().changed(SiteRequest { upstream: "http://127.0.0.1:2".parse().unwrap(), ..request() });
    assert_eq!(action(&changed), Some(Action::StoreRoute));
    let renewed = site.clone().renewed(None);
    assert_eq!(action(&renewed), Some(Action::OpenAccount(ca())));
    assert_eq!(action(&does(site, stapled(1))), None);
    assert_eq!(wait(&fails(answered(), FailureKind::Throttled(7200))).as_secs(), 7200);
}

#[test]
fn an_order_goes_before_an_answer_and_one_that_waits_does_not_hold_it_up() {
    let renewing = answered().renewed(None);
    assert_eq!(action(&renewing), Some(Action::OpenAccount(ca())));
    let under_way = does(renewing.clone(), Outcome::AccountReady(account()));
    assert_eq!(action(&under_way), Some(Action::VouchForAccount(account())));
    let rejected = fails(renewing, FailureKind::Rejected);
    assert_eq!(action(&rejected), fetch(1), "the order waits for a minute");
    let hopeless = fails(answered().renewed(None), FailureKind::Hopeless);
    assert_eq!(action(&hopeless), fetch(1));
    // With nothing else to do, what is due is what is done.
    let rested = does(hopeless, stapled(1));
    assert_eq!((action(&rested), wait(&rested)), (None, SignedDuration::from_hours(84)));
}

#[test]
fn a_version_that_certstore_has_already_is_gone_beyond() {
    let site = fails(answered(), FailureKind::Outrun(7));
    assert_eq!(action_at(&site, site.due().unwrap().at.unwrap()), fetch(8));
    let site = fails(site, FailureKind::Outrun(3));
    assert_eq!(action_at(&site, site.due().unwrap().at.unwrap()), fetch(8));
    // A thief signed the highest one: the next one is above the floor that the security team signed.
    let taken = does(answered(), stapled(u64::MAX)).signed_anew(20);
    assert_eq!(taken.staple.as_ref().unwrap().version, 20);
    let confirmed = does(does(taken, Outcome::RouteStored), Outcome::Confirmed(9));
    assert_eq!(action(&confirmed), fetch(21), "signed anew at once");
}

#[test]
fn nobody_asks_about_a_site_that_has_left_nor_a_certificate_that_has_expired() {
    let left = answered().departed();
    assert_eq!(action(&left), Some(Action::StoreRoute));
    let left = does(left, Outcome::RouteStored);
    assert_eq!((action(&left), site_status(&left, now()).staple), (None, None));
    let lost = does(Site { unconfirmed: true, ..answered() }, Outcome::Confirmed(0));
    assert_eq!(action(&lost), Some(Action::TakeReorder));

    let mut expired = does(answered(), stapled(1));
    let certificate = expired.certificate.as_mut().unwrap();
    (certificate.not_after, certificate.renew_at) =
        (now() + SignedDuration::from_hours(10), now() + SignedDuration::from_hours(999));
    assert_eq!(wait(&expired), SignedDuration::from_hours(999));
}
