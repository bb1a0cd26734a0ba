//! Looks at names before orders, and after those that the CA rejected.

use certseal_wire::{Finding, FindingCode, NameReport, NamesReport, Readiness};

use super::*;

fn looking() -> Policy {
    Policy { looks_first: true, methods: Default::default(), ..policy() }
}

fn report(at: Timestamp, code: Option<FindingCode>) -> NamesReport {
    let finding = |code| Finding { code, detail: "it leads to 203.0.113.5".into(), edits: Vec::new() };
    NamesReport::new(
        at,
        vec![NameReport::new("shop.example".parse().unwrap(), code.map(finding).into_iter().collect())],
    )
}

/// The site after the look that is due at `at`.
fn seen(site: Site, at: Timestamp, code: Option<FindingCode>) -> Site {
    let at_that_time = Moment { now: at, chance: 0.0 };
    assert_eq!(site.next(at, &looking()), Next::Do(Action::LookAtNames));
    site.after(&Action::LookAtNames, Outcome::NamesAre(report(at, code)), at_that_time, &looking())
}

fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

const WRONG: Option<FindingCode> = Some(FindingCode::WrongAddress);
const SILENT: Option<FindingCode> = Some(FindingCode::NotAsked);

#[test]
fn the_ca_is_asked_for_nothing_before_the_names_are_ready() {
    let waiting = seen(routed(), now(), WRONG);
    assert_eq!(waiting.next(now(), &looking()), Next::WakeAt(after(60)));
    let status = site_status(&waiting, now());
    assert_eq!((status.state, status.dns.unwrap().readiness), (SiteState::Waiting, Readiness::NotReady));
    assert_eq!(status.order.unwrap().diagnosis.as_deref(), Some("shop.example: it leads to 203.0.113.5"));
    // The CA rejected nothing, and all the same an onboarding should hear of it.
    assert_eq!(waiting.attempts.order.failures(), 0);
    assert_eq!(Progress::of(&site_status(&waiting, now())), Progress::Failing);

    let mended = seen(waiting, after(60), None);
    assert_eq!(mended.next(after(60), &looking()), Next::Do(Action::OpenAccount(ca())));
    assert_eq!((site_status(&mended, now()).state, mended.attempts.order.diagnosis), (SiteState::Pending, None));
}

#[test]
fn what_nobody_could_be_asked_holds_no_order_up() {
    let site = seen(routed(), now(), SILENT);
    assert_eq!(site.next(now(), &looking()), Next::Do(Action::OpenAccount(ca())));
    assert_eq!(site_status(&site, now()).state, SiteState::Pending);
}

#[test]
fn a_look_counts_for_some_minutes_and_for_the_names_that_it_saw() {
    let site = seen(routed(), now(), None);
    assert_eq!(site.next(after(599), &looking()), Next::Do(Action::OpenAccount(ca())));
    assert_eq!(site.next(after(600), &looking()), Next::Do(Action::LookAtNames));
    let names = vec!["shop.example".parse().unwrap(), "www.shop.example".parse().unwrap()];
    let more = SiteRequest { names: NameSet::try_from(names).unwrap(), ..request() };
    assert_eq!(site.changed(more).looked, None);
}

#[test]
fn looks_become_rarer_and_never_end() {
    let (mut site, mut at, mut waits) = (routed(), now(), Vec::new());
    for _ in 0..310 {
        site = seen(site, at, WRONG);
        let Next::WakeAt(next) = site.next(at, &looking()) else { panic!("no further look") };
        waits.push(next.duration_since(at).as_secs());
        at = next;
    }
    assert_eq!((waits[0], waits[28], waits[29], waits[298], waits[309]), (60, 60, 300, 300, 3600));
}

#[test]
fn a_rejected_order_is_tried_again_as_soon_as_somebody_mended_the_names() {
    let ordered = at_step(seen(routed(), now(), None), Step::Authorizing { order: order() });
    let failure = Failure::new(FailureKind::Rejected, "the name leads elsewhere");
    let fetch = Action::FetchChallenges(order());
    let mut rejected = ordered.after(&fetch, Outcome::Failed(failure), moment(), &looking());
    // The CA would be asked again in a day.
    rejected.attempts.order.retry_at = Some(after(86_400));
    rejected.abandoned.clear();
    assert_eq!(rejected.attempts.order.wait, Wait::Rejected);
    let looked = seen(rejected.clone(), after(60), WRONG);
    assert_eq!((looked.attempts.order.retry_at, looked.due().unwrap().at), (Some(after(86_400)), Some(after(120))));
    let mended = seen(looked, after(120), None);
    assert_eq!(mended.next(after(120), &looking()), Next::Do(Action::OpenAccount(ca())));
    assert_eq!(mended.attempts.order.rejected, 1);

    // What we do not see we cannot see to be mended.
    let unseen = seen(rejected.clone(), after(60), None);
    assert_eq!(unseen.due().unwrap().at, Some(after(86_400)));
    // That nobody could be asked is not that somebody mended it, and does not make it forgotten.
    let unasked = seen(seen(rejected.clone(), after(60), WRONG), after(120), SILENT);
    assert_eq!(unasked.attempts.order.retry_at, Some(after(86_400)));
    let mended = seen(unasked, after(180), None);
    assert_eq!(mended.attempts.order.retry_at, None);
    // Nobody looks for one that nobody tries again any more.
    rejected.attempts.order.dead = true;
    assert_eq!(rejected.next(after(60), &looking()), Next::Rest);
}

/// The site after somebody had its names looked at, whatever is due.
fn looked(site: Site, at: Timestamp, code: Option<FindingCode>) -> Site {
    site.looked_at(report(at, code), Moment { now: at, chance: 0.0 })
}

#[test]
fn a_look_cuts_no_wait_short_that_is_for_something_else() {
    let throttled = fails(routed(), FailureKind::Throttled(3600));
    let flipped = looked(looked(throttled.clone(), now(), WRONG), now(), None);
    assert_eq!(flipped.attempts.order, throttled.attempts.order);

    let mut delayed = at_step(routed(), Step::Vouched { account: account() });
    delayed.attempts.order.retry_at = Some(after(7_200));
    assert_eq!(looked(looked(delayed.clone(), now(), WRONG), now(), None).attempts.order, delayed.attempts.order);

    // One that people gave up stays given up.
    let discarded = seen(routed(), now(), WRONG).order_discarded();
    let flipped = looked(looked(discarded, now(), WRONG), now(), None);
    assert!(flipped.attempts.order.dead);
    assert_eq!(flipped.next(after(86_400), &looking()), Next::Rest);
}

#[test]
fn an_order_under_way_and_an_urgent_one_go_on_whatever_is_seen_meanwhile() {
    let answers = Vec::new();
    let look = Look::first(now());
    let running = at_step(seen(routed(), now(), None), Step::ChallengePending { order: order(), answers, look });
    assert_eq!(looked(running.clone(), now(), WRONG).attempts, running.attempts);
    let mut rejected_before = running;
    rejected_before.looked.as_mut().unwrap().again_at = Some(now());
    assert_eq!(rejected_before.next(now(), &looking()), Next::Do(Action::LookAtOrder(order())));

    let mut urgent = routed();
    let certificate = Revocation { authority: None, leaf: Base64(vec![1]), reason: Default::default() };
    urgent.compromised = Some(Compromised { version: 1, certificate });
    assert_eq!(looked(urgent.clone(), now(), WRONG).attempts, urgent.attempts);
}

#[test]
fn a_look_at_a_healthy_site_changes_nothing_but_what_is_known_of_its_names() {
    let mut site = routed();
    site.order = None;
    site.certificate = Some(issued(90));
    let seen = looked(site.clone(), now(), WRONG);
    assert_eq!(seen.attempts, site.attempts);
    assert_eq!((site_status(&seen, now()).state, seen.due()), (SiteState::Active, site.due()));
    assert_eq!(Progress::of(&site_status(&Site { bundle_version: 1, ..seen }, now())), Progress::Active);
}

#[test]
fn names_are_looked_at_again_after_a_long_wait_for_room_and_not_when_people_say_go() {
    let vouched = at_step(seen(routed(), now(), None), Step::Vouched { account: account() });
    assert!(matches!(vouched.next(after(599), &looking()), Next::Book(_)));
    let waiting = seen(vouched, after(600), WRONG);
    assert_eq!(waiting.next(after(600), &looking()), Next::WakeAt(after(660)));
    let told = waiting.order_retried(after(610));
    assert!(matches!(told.next(after(610), &looking()), Next::Book(_)));
}

#[test]
fn names_that_seem_mended_again_and_again_do_not_use_the_cas_patience_up() {
    let mut site = at_step(seen(routed(), now(), None), Step::Requested);
    site.attempts.order.rejected = 4;
    for round in 0..7 {
        (site.attempts.order.retry_at, site.attempts.order.wait) = (Some(after(86_400)), Wait::Rejected);
        let Some(looked) = &mut site.looked else { panic!("it was looked at") };
        (looked.was_bad, looked.again_at) = (true, Some(after(60)));
        site = seen(site, after(60), None);
        assert_eq!(site.attempts.order.retry_at.is_none(), round < 5, "{round}");
    }
}

#[test]
fn nothing_that_is_seen_of_names_has_a_certificate_expire() {
    let mut site = routed();
    site.order = None;
    let day = |days: i64| after(days * 86_400);
    site.certificate = Some(issued(90));
    site.bundle_version = 1;
    let waiting = seen(site, day(60), WRONG);
    assert_eq!(waiting.next(day(60), &looking()), Next::WakeAt(day(60) + SignedDuration::from_mins(1)));
    assert_eq!(waiting.next(day(76), &looking()), Next::Do(Action::OpenAccount(ca())));
}

fn issued(days: i64) -> Issued {
    Issued {
        authority: "CA".into(),
        ordered_from: None,
        names: None,
        not_before: Some(now()),
        not_after: after(days * 86_400),
        renew_at: after(days * 57_600),
        lineage: None,
        advice: Default::default(),
        is_put_forward: false,
    }
}

#[test]
fn a_look_is_kept_in_the_journal_and_stays_short() {
    let detail = "x".repeat(5_000);
    let name = |n| {
        let finding = Finding { code: FindingCode::WrongAddress, detail: detail.clone(), edits: Vec::new() };
        NameReport::new(format!("n{n}.example").parse().unwrap(), vec![finding])
    };
    let report = NamesReport::new(now(), (0..100).map(name).collect());
    let site = routed().after(&Action::LookAtNames, Outcome::NamesAre(report), moment(), &looking());
    let record = serde_json::to_vec(&site).unwrap();
    assert!(record.len() < 6_000, "{}", record.len());
    assert_eq!(crate::read(&record, |_| true).unwrap(), site);
}
