use certseal_issuance::{Advice, Issued};
use certseal_wire::{NameSet, SiteRequest};

use self::interleaved::Interleaved;
use super::{claims::*, *};

mod interleaved;

fn site(names: &[&str], owner: Option<&str>) -> Site {
    let names: Vec<DnsName> = names.iter().map(|name| name.parse().unwrap()).collect();
    let own = names.iter().find(|name| !name.is_wildcard()).unwrap().clone();
    let request = SiteRequest {
        owner: owner.map(str::to_owned),
        ..SiteRequest::new(
            NameSet::try_from(names).unwrap(),
            "http://127.0.0.1:1".parse().unwrap(),
            vec!["eu".parse().unwrap()],
        )
    };
    Site::new(own, request)
}

fn outcome(journal: &Journal, site: &Site) -> String {
    let before = journal.read(&site.site).unwrap();
    match journal.claim(before.as_ref(), site).unwrap() {
        Claim::Written => "written".to_owned(),
        Claim::Outrun => "outrun".to_owned(),
        Claim::Clash(Clash::Taken { name, holder }) => format!("{name} taken by {holder}"),
        Claim::Clash(Clash::Covered { name, other, holder }) => format!("{name} and {other} of {holder}"),
    }
}

#[test]
fn nobody_claims_a_name_under_anothers_wildcard_nor_a_wildcard_over_anothers_name() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let claim = |names: &[&str], owner| outcome(&journal, &site(names, owner));
    assert_eq!(claim(&["a.example", "*.a.example"], Some("ann")), "written");
    assert_eq!(claim(&["foo.a.example"], None), "foo.a.example and *.a.example of a.example");
    assert_eq!(claim(&["foo.a.example"], Some("bob")), "foo.a.example and *.a.example of a.example");
    assert_eq!(claim(&["foo.a.example"], Some("ann")), "written");
    // Deeper names are no matter of the wildcard (RFC 6125, 6.4.3).
    assert_eq!(claim(&["x.foo.a.example"], None), "written");
    assert_eq!(claim(&["www.b.example"], None), "written");
    assert_eq!(claim(&["www.b.example.org"], None), "written");
    let over = &["b.example", "*.b.example"];
    assert_eq!(claim(over, Some("bob")), "*.b.example and www.b.example of www.b.example");
    // A site that changes hands does not take cover along.
    assert_eq!(claim(&["foo.a.example"], Some("bob")), "foo.a.example and *.a.example of a.example");
    assert_eq!(claim(&["www.b.example"], Some("bob")), "written");
    assert_eq!(claim(over, Some("bob")), "written");
    // A site that is there stays changeable, and one that has left is in nobody's way.
    assert_eq!(claim(over, Some("bob")), "written");
    let left = Site { departed: true, ..site(&["a.example", "*.a.example"], Some("ann")) };
    assert_eq!(outcome(&journal, &left), "written");
    assert_eq!(claim(&["bar.a.example"], None), "written");
}

/// Somebody claims a name below a wildcard after the wildcard's claim has looked for such names.
#[test]
fn a_wildcard_and_a_name_below_it_that_are_claimed_at_the_same_moment_go_to_one_of_two_owners() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let meanwhile = |name: &'static str| {
        let others = journal.clone();
        let claims = move || assert_eq!(outcome(&others, &site(&[name], Some("bob"))), "written");
        let storage = Arc::new(Interleaved::after_a_scan(journal.storage(), UNDER, claims));
        Journal { storage, ..journal.clone() }
    };
    let over = site(&["p.example", "*.p.example"], Some("ann"));
    let late = meanwhile("x.p.example");
    assert_eq!(outcome(&late, &over), "outrun");
    assert_eq!(outcome(&late, &over), "*.p.example and x.p.example of x.p.example");

    let over = site(&["q.example", "*.q.example"], Some("ann"));
    let beside = site(&["r.example"], None);
    let late = meanwhile("x.q.example");
    let said = changed_together(&late, &[Some(beside), Some(over)], &["r.example", "q.example"]);
    assert_eq!(said, ["Created", "*.q.example and x.q.example of x.q.example"]);

    // A name elsewhere is no matter of the wildcard, and neither is one of its own site.
    let own = site(&["s.example", "*.s.example", "www.s.example"], Some("ann"));
    assert_eq!(outcome(&meanwhile("x.t.example"), &own), "written");
}

/// Claims of names below one parent need nothing of one another.
#[test]
fn names_below_one_parent_are_claimed_at_the_same_moment() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let others = journal.clone();
    let claims = move || assert_eq!(outcome(&others, &site(&["a.p.example"], None)), "written");
    // By then the claim has read all that it needs to stay as it is.
    let storage = Arc::new(Interleaved::after_a_get(journal.storage(), NAMES, claims));
    let late = Journal { storage, ..journal.clone() };
    assert_eq!(outcome(&late, &site(&["b.p.example"], None)), "written");
    for name in ["a.p.example", "b.p.example"] {
        let name: DnsName = name.parse().unwrap();
        assert_eq!(journal.holder(&name).unwrap(), Some(name));
    }
}

#[test]
fn names_of_an_earlier_releases_journal_are_found_under_a_wildcard() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(outcome(&journal, &site(&["www.b.example"], None)), "written");
    let forget = vec![Write::delete(UNDER, "b.example/www.b.example"), Write::delete(META, INDEXED)];
    journal.storage.commit(forget.into()).unwrap();
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    let over = site(&["b.example", "*.b.example"], None);
    assert_eq!(outcome(&journal, &over), "*.b.example and www.b.example of www.b.example");
}

/// Sites that are due: each a new one that waits for its order, or an old one whose renewal has come.
fn due_site(name: &str, is_new: bool) -> Site {
    let site = Site { route_stored: true, ..site(&[name], None) };
    let issued = Issued {
        authority: "test".into(),
        ordered_from: None,
        names: None,
        not_before: Some(Timestamp::now() - DAY * 60),
        not_after: Timestamp::now() + DAY * 30,
        renew_at: Timestamp::now() - DAY,
        lineage: None,
        advice: Advice::default(),
        is_put_forward: false,
    };
    if is_new { site } else { Site { certificate: Some(issued), order: None, ..site } }
}

#[test]
fn a_flood_of_new_sites_leaves_renewals_their_turns() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for n in 0..200 {
        let site = due_site(&format!("new-{n}.example"), true);
        journal.write(None, &site, Writer::Request, &[]).unwrap().unwrap();
    }
    for n in 0..5 {
        let site = due_site(&format!("old-{n}.example"), false);
        journal.write(None, &site, Writer::Request, &[]).unwrap().unwrap();
    }
    let mut turns = Turns::default();
    let due = journal.due(Timestamp::now(), 15, &mut turns, |_| true).unwrap();
    let old = due.iter().filter(|place| place.site.as_str().starts_with("old")).count();
    assert_eq!((due.len(), old), (15, 5), "8 to 4 by weight");
}

#[test]
fn a_place_in_the_queue_that_is_not_the_sites_own_goes_and_its_own_stays() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let site = due_site("a.example", true);
    let first = journal.write(None, &site, Writer::Request, &[]).unwrap().unwrap();
    let due = || journal.due(Timestamp::now(), 9, &mut Turns::default(), |_| true).unwrap();
    let [own] = due().try_into().ok().unwrap();
    journal.remove_stray(own, &first).unwrap();
    assert_eq!(due().len(), 1);
    // As an earlier release would have it, in another lane.
    let old = Site { certificate: due_site("a.example", false).certificate, ..site.clone() };
    let stray = queue::moved(None, &Site { written_at: Some(Timestamp::UNIX_EPOCH), ..old });
    journal.storage.commit(stray.into()).unwrap();
    let mut places = due();
    assert_eq!(places.len(), 2);
    places.retain(|place| place.clone().remove_unless_of(&first.site).is_some());
    let [stray] = places.try_into().ok().unwrap();
    // Somebody writes the site first: its place may be another one by now.
    let second = journal.write(Some(&first), &site, Writer::Request, &[]).unwrap().unwrap();
    journal.remove_stray(stray.clone(), &first).unwrap();
    assert_eq!(due().len(), 2);
    journal.remove_stray(stray, &second).unwrap();
    assert_eq!(due().len(), 1);
}

#[test]
fn dead_letters_and_certificates_near_their_end_are_listed_until_they_are_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let near = due_site("near.example", false);
    let end = near.certificate.as_ref().unwrap().not_after;
    let entry = journal.write(None, &near, Writer::Request, &[]).unwrap().unwrap();
    let listed = |sites: Vec<Site>| sites.into_iter().map(|site| site.site.to_string()).collect::<Vec<_>>();
    let expiring = |at| listed(journal.expiring(at, 9).unwrap());
    assert_eq!((expiring(end), expiring(near.expiring_at().unwrap() - DAY)), (vec!["near.example".into()], vec![]));
    let dead = |after: Option<&str>| {
        let after = after.map(|name| name.parse().unwrap());
        listed(journal.at_stage(Stage::DeadLetter, after.as_ref(), 9).unwrap())
    };
    let lost = site(&["lost.example"], None).order_discarded();
    let lost = journal.write(None, &lost, Writer::Request, &[]).unwrap().unwrap();
    assert_eq!((dead(None), dead(Some("lost.example"))), (vec!["lost.example".to_owned()], vec![]));
    let trouble = journal.trouble(end).unwrap();
    assert_eq!((trouble.expiring, trouble.dead_letters), (1, 1));
    journal
        .write(Some(&lost), &lost.site.clone().order_retried(Timestamp::now()), Writer::Request, &[])
        .unwrap()
        .unwrap();
    journal.write(Some(&entry), &near.departed(), Writer::Request, &[]).unwrap().unwrap();
    assert_eq!((dead(None), expiring(end)), (Vec::<String>::new(), vec![]));
}

#[test]
fn of_each_certificate_near_its_end_the_platform_is_told_however_many_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap().telling(true);
    let names: Vec<DnsName> = (0..5).map(|number| format!("near-{number}.example").parse().unwrap()).collect();
    for name in &names {
        journal.write(None, &due_site(name.as_str(), false), Writer::Request, &[]).unwrap().unwrap();
    }
    let at = Timestamp::now() + DAY * 30;
    let is_told = |name: &DnsName| journal.read(name).unwrap().unwrap().site.told_expiring.is_some();
    let first = journal.tell_expiring_of(at, None, 2).unwrap();
    assert_eq!(names.iter().filter(|name| is_told(name)).count(), 2);
    let second = journal.tell_expiring_of(at, first, 2).unwrap();
    assert_eq!(journal.tell_expiring_of(at, second, 2).unwrap(), None, "these are all");
    assert!(names.iter().all(is_told));
    assert_eq!(journal.tell_expiring_of(at, None, 9).unwrap(), None);
}

#[test]
fn on_certstores_word_no_more_is_ordered_again_than_a_day_allows() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let start = Timestamp::from_second(1_800_000_000).unwrap();
    let take = |hours| journal.take_reorder(start + SignedDuration::from_hours(hours), 24).unwrap();
    assert!((0..24).all(|_| take(0).is_none()));
    assert_eq!(take(0), Some(SignedDuration::from_hours(1)));
    assert_eq!((take(1), take(1)), (None, Some(SignedDuration::from_hours(1))));
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    let later = start + SignedDuration::from_hours(1);
    assert!(journal.take_reorder(later, 24).unwrap().is_some(), "a restart gives no more");
    assert!(journal.take_reorder(later + SignedDuration::from_hours(48), 0).unwrap().is_some(), "0 is none");
    let taken =
        (0..100).filter(|_| journal.take_reorder(later + SignedDuration::from_hours(480), 24).unwrap().is_none());
    assert_eq!(taken.count(), 24, "nothing is saved up");
}

#[test]
fn every_site_is_doubted_whatever_else_is_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let count = 2 * DOUBTED_AT_ONCE as u64 + 1;
    for n in 0..count {
        let site = Site { route_stored: true, order: None, ..site(&[&format!("site-{n}.example")], None) };
        assert!(journal.write(None, &site, Writer::Request, &[]).unwrap().is_some());
    }
    journal.storage.commit(Write::put(SITES, "unreadable", 1, "{}").into()).unwrap();
    let due = || journal.due(Timestamp::now(), usize::MAX, &mut Turns::default(), |_| true).unwrap().len() as u64;
    assert_eq!(due(), 0);
    assert_eq!(journal.change_all(Site::unconfirmed).unwrap(), count);
    assert_eq!(due(), count);
}

/// What each change did, as text.
fn changed_together(journal: &Journal, wanted: &[Option<Site>], names: &[&str]) -> Vec<String> {
    let names: Vec<DnsName> = names.iter().map(|name| name.parse().unwrap()).collect();
    let outcomes = journal.change_each(&names, |index, before| match (&wanted[index], before) {
        (Some(site), Some(before)) => {
            let Site { names, upstream, pools, owner, profile, key_type, challenges, .. } = site.clone();
            Ok(before.clone().changed(SiteRequest { names, upstream, pools, owner, profile, key_type, challenges }))
        }
        (Some(site), None) => Ok(site.clone()),
        (None, Some(before)) if !before.departed => Ok(before.clone().departed()),
        (None, _) => Err("absent"),
    });
    let said = |outcome: Result<Done, NotDone<&str>>| match outcome {
        Ok(done) => format!("{done:?}"),
        Err(NotDone::Unwanted(why)) => why.to_owned(),
        Err(NotDone::Clash(Clash::Taken { name, holder })) => format!("{name} taken by {holder}"),
        Err(NotDone::Clash(Clash::Covered { name, other, holder })) => format!("{name} and {other} of {holder}"),
        Err(other) => format!("{other:?}"),
    };
    outcomes.unwrap().into_iter().map(said).collect()
}

#[test]
fn many_changes_share_transactions_and_have_the_outcomes_of_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let names: Vec<String> = (0..1000).map(|number| format!("site-{number}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let sites: Vec<Option<Site>> = names.iter().map(|name| Some(site(&[name], None))).collect();
    let before = journal.commits().get();
    assert!(changed_together(&journal, &sites, &names).iter().all(|done| done == "Created"));
    let commits = journal.commits().get() - before;
    assert!(commits <= 10, "{commits} transactions");
    assert!(changed_together(&journal, &sites, &names).iter().all(|done| done == "Nothing"));
    assert_eq!(journal.commits().get() - before, commits, "nothing was written");
    // Names below one parent, and names each of which has its own.
    let parents: [fn(usize) -> String; 2] = [|_| "p.example".to_owned(), |number| format!("p-{number}.example")];
    for parent in parents {
        let names: Vec<String> = (0..1000).map(|number| format!("below-{number}.{}", parent(number))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let sites: Vec<Option<Site>> = names.iter().map(|name| Some(site(&[name], None))).collect();
        let before = journal.commits().get();
        assert!(changed_together(&journal, &sites, &names).iter().all(|done| done == "Created"));
        let commits = journal.commits().get() - before;
        assert!(commits <= 10, "{commits} transactions");
    }
    assert_eq!(journal.holder(&"site-999.example".parse().unwrap()).unwrap().unwrap().as_str(), "site-999.example");

    // Those that have to do with one another come one after the other.
    let wanted = [
        ("a.example", Some(site(&["a.example", "*.a.example"], Some("ann")))),
        ("b.a.example", Some(site(&["b.a.example"], None))),
        ("c.a.example", Some(site(&["c.a.example"], Some("ann")))),
        ("d.example", Some(site(&["d.example", "c.a.example"], None))),
        ("site-0.example", None),
        ("e.example", Some(site(&["e.example", "site-0.example"], None))),
        ("e.example", Some(site(&["e.example"], None))),
        ("f.example", Some(site(&["f.example", "site-0.example"], None))),
        ("g.example", None),
        ("x.h.example", Some(site(&["x.h.example"], None))),
        ("h.example", Some(site(&["h.example", "*.h.example"], None))),
    ];
    let (names, wanted): (Vec<&str>, Vec<Option<Site>>) = wanted.into_iter().unzip();
    let said = changed_together(&journal, &wanted, &names);
    let expected = [
        "Created",
        "b.a.example and *.a.example of a.example",
        "Created",
        "c.a.example taken by c.a.example",
        "Changed",
        "Created",
        "Changed",
        "Created",
        "absent",
        "Created",
        "*.h.example and x.h.example of x.h.example",
    ];
    assert_eq!(said, expected);
    assert_eq!(journal.holder(&"site-0.example".parse().unwrap()).unwrap().unwrap().as_str(), "f.example");
}

#[test]
fn a_record_that_cannot_be_read_holds_up_no_other_change() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.storage().commit(Write::put(SITES, "b.example", 1, "no site").into()).unwrap();
    let names = ["a.example", "b.example", "c.example"];
    let sites: Vec<Option<Site>> = names.iter().map(|name| Some(site(&[name], None))).collect();
    let said = changed_together(&journal, &sites, &names);
    assert_eq!((said[0].as_str(), said[2].as_str()), ("Created", "Created"));
    assert!(said[1].starts_with("Failed"), "{}", said[1]);
}

#[test]
fn a_companion_is_written_with_its_site_and_claims_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let (name, companion): (DnsName, DnsName) = ("a.example".parse().unwrap(), "_rsa.a.example".parse().unwrap());
    let both = Site { key_type: KeyType::Both, ..site(&["a.example", "*.a.example"], Some("ann")) };
    assert_eq!(outcome(&journal, &both), "written");
    assert!(journal.read(&companion).unwrap().is_none());

    let entry = journal.read(&name).unwrap().unwrap();
    let issued = Site { certificate: due_site("a.example", false).certificate, ..entry.site.clone() };
    journal.write_work(entry, &issued, &[]).unwrap();
    let found = journal.read(&companion).unwrap().unwrap().site;
    assert_eq!((&found.names, &found.companion_of), (&both.names, &Some(name.clone())));
    assert!(journal.list(None, 10).unwrap().iter().any(|site| site.site == companion));
    assert_eq!(journal.holder(&name).unwrap(), Some(name.clone()));
    assert_eq!(outcome(&journal, &site(&["b.a.example"], None)), "b.a.example and *.a.example of a.example");

    // A certman of a release before drops what it does not know, and takes no name from the site with it.
    let entry = journal.read(&companion).unwrap().unwrap();
    let dropped = Site { companion_of: None, key_type: KeyType::EcdsaP256, ..found.clone() };
    journal.write_work(entry, &dropped, &[]).unwrap();
    assert_eq!(journal.holder(&name).unwrap(), Some(name.clone()));
    let entry = journal.read(&name).unwrap().unwrap();
    let work = Site { bundle_version: 2, ..entry.site.clone() };
    journal.write_work(entry, &work, &[]).unwrap();
    let found = journal.read(&companion).unwrap().unwrap().site;
    assert_eq!((&found.companion_of, found.key_type), (&Some(name.clone()), KeyType::Rsa2048));

    // Its work goes on beside that of the site.
    let entry = journal.read(&companion).unwrap().unwrap();
    journal.write_work(entry, &Site { route_stored: true, ..found }, &[]).unwrap();
    let left = journal.change_alone(&name, |before| Ok::<_, ()>(before.unwrap().clone().departed())).unwrap();
    assert!(left.unwrap().0.departed);
    let gone = journal.read(&companion).unwrap().unwrap().site;
    assert!(gone.departed && !gone.route_stored, "its route is to say that it left");
    assert_eq!(outcome(&journal, &site(&["b.example", "a.example"], None)), "written", "the names are free");
}
