//! The place of an order in the CA's budget and in the lanes, and renewals as the CA advises them.

use super::*;

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
    let status = site_status(&waiting, now());
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
    let answers = vec![Answer {
        host: name.clone(),
        token: "t".into(),
        key_authorization: "t.p".into(),
        method: Default::default(),
    }];
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
    assert_eq!(lane(&Site { on_demand: true, ..new() }), Lane::OnDemand, "a visitor waits for it");
    let active = stored(routed());
    assert_eq!(lane(&active), Lane::Renewal);
    assert_eq!(lane(&Site { on_demand: true, ..active.clone() }), Lane::Renewal, "nobody waits any more");
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
    let (authority, id) = ("CA".to_owned(), Some("aki.serial".to_owned()));
    let stored = Outcome::Stored { authority, id, not_before: now(), not_after, responder: false };
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
    assert_eq!(site_status(&failed, now()).state, SiteState::Active);
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
    assert_eq!(action(&rejected.clone().order_retried(now())), Some(Action::OpenAccount(ca())));
    let discarded = at_step(rejected, Step::Authorizing { order: order() }).order_discarded();
    let discarded = does(discarded, Outcome::Deactivated(order()));
    assert_eq!((discarded.due(), discarded.stage()), (None, Some(Stage::DeadLetter)));
    assert_eq!(action(&discarded.order_retried(now())), Some(Action::OpenAccount(ca())));
    // Where none is under way there is nothing to give up.
    let active = stored(routed());
    assert_eq!(active.clone().order_discarded(), active);
    let paused = Attempt { rejected: 29, ..Attempt::default() };
    let paused = Site { attempts: Attempts { order: paused, ..Attempts::default() }, ..routed() };
    let paused = fails(at_step(paused, Step::Vouched { account: account() }), FailureKind::Rejected);
    assert_eq!(booked(paused, now()).due(), None, "after thirty times somebody has to ask for it");
}

#[test]
fn an_order_moves_to_another_ca_while_its_own_is_away_and_stays_where_nobody_else_may_have_it() {
    let other = AuthorityId("https://other.example/directory".into());
    let both = Policy { further: vec![other.clone()], ..policy() };
    let away = Policy { away: vec![ca()], ..both.clone() };
    let site = routed();
    let opens = |policy: &Policy, site: &Site| match site.next(now(), policy) {
        Next::Do(Action::OpenAccount(authority)) => authority,
        next => panic!("{next:?}"),
    };
    assert_eq!((opens(&both, &site), opens(&away, &site)), (ca(), other.clone()));

    // An order of the CA that is away is given up, and what it left there holds nothing up.
    let account = AccountRef { authority: ca(), thumbprint: Some("print".into()) };
    let order = OrderRef { account: Some(account), url: "https://ca.example/order/1".into() };
    let pending = Site { order: Some(Step::Authorizing { order: order.clone() }), ..site.clone() };
    let failed = |site: &Site, action: Action, policy: &Policy, at: Timestamp| {
        let failure = Failure::new(FailureKind::Unavailable, "cannot reach it");
        site.clone().after(&action, Outcome::Failed(failure), Moment { now: at, chance: 0.0 }, policy)
    };
    let action = Action::FetchChallenges(order.clone());
    let waits = failed(&pending, action.clone(), &both, now());
    assert_eq!(waits.order, pending.order, "it may come back any moment");
    let moved = failed(&pending, action, &away, now());
    assert_eq!((&moved.order, &moved.abandoned), (&Some(Step::Requested), &vec![order.clone()]));
    let soon = now() + SignedDuration::from_secs(2);
    let Next::Do(Action::Deactivate(_)) = moved.next(soon, &away) else { panic!("{:?}", moved.next(soon, &away)) };
    // Nor does one that wants to hear nothing of it.
    for kind in [FailureKind::Unavailable, FailureKind::Rejected] {
        let failure = Outcome::Failed(Failure::new(kind, "no"));
        let moment = Moment { now: soon, chance: 0.0 };
        let left = moved.clone().after(&Action::Deactivate(order.clone()), failure, moment, &away);
        assert_eq!(opens_at(&left, soon, &away), other, "{kind:?}");
    }

    // One that has its key stays: its CA may be about to issue.
    let sealed = Site { order: Some(Step::Finalizing { order: order.clone(), sealed: sealed() }), ..site.clone() };
    let stays = failed(&sealed, Action::LookAtOrder(order), &away, now());
    assert!(stays.abandoned.is_empty() && stays.order.as_ref().and_then(Step::order).is_some(), "{stays:?}");

    // Names whose CAA records forbid the other one wait for their own.
    let looked = |forbidden_to: Vec<String>| {
        let report = certseal_wire::NamesReport { forbidden_to, ..certseal_wire::NamesReport::new(now(), Vec::new()) };
        site.clone().looked_at(report, Moment { now: now(), chance: 0.0 })
    };
    assert_eq!(opens(&away, &looked(vec![other.to_string()])), ca());
    assert_eq!(opens(&both, &looked(vec![ca().to_string()])), other);
    assert_eq!(opens(&both, &looked(vec![ca().to_string(), other.to_string()])), ca(), "the preferred one says why");
}

fn opens_at(site: &Site, at: Timestamp, policy: &Policy) -> AuthorityId {
    match site.next(at, policy) {
        Next::Do(Action::OpenAccount(authority)) => authority,
        next => panic!("{next:?}"),
    }
}
