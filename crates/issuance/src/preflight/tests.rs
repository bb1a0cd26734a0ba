use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use certseal_wire::{DnsName, FindingCode, NameReport, Readiness};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> DnsName {
    text.parse().unwrap()
}

fn targets() -> Targets {
    let addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|text| text.parse().unwrap()).to_vec();
    let found = vec!["198.51.100.77".parse().unwrap()];
    Targets { alias: Some(name("edge.platform.example")), addresses, found }
}

fn issuer() -> Issuer {
    Issuer {
        identities: vec!["letsencrypt.org".into()],
        account: Some("https://ca.example/acct/1".into()),
        methods: vec!["http-01".into()],
    }
}

fn found<T>(records: &[T]) -> Lookup<T>
where
    T: Clone,
{
    let negative_ttl = records.is_empty().then_some(60);
    Lookup { aliases: Vec::new(), records: Ok(records.to_vec()), ttl: negative_ttl.unwrap_or(300), negative_ttl }
}

fn alias<T>(aliases: &[&str], records: &[T]) -> Lookup<T>
where
    T: Clone,
{
    Lookup { aliases: aliases.iter().map(|alias| alias.to_string()).collect(), ..found(records) }
}

fn resolver(ipv4: Lookup<Ipv4Addr>, ipv6: Lookup<Ipv6Addr>) -> View {
    View { observer: Observer::Resolver("10.0.0.1".into()), ipv4, ipv6, caa: Vec::new() }
}

fn server(ipv4: Lookup<Ipv4Addr>) -> View {
    View { observer: Observer::Authoritative("10.9.9.9".into()), ipv4, ipv6: found(&[]), caa: Vec::new() }
}

fn v4(text: &str) -> Lookup<Ipv4Addr> {
    found(&[text.parse().unwrap()])
}

fn v6(text: &str) -> Lookup<Ipv6Addr> {
    found(&[text.parse().unwrap()])
}

fn with_caa(climbed: &[(&str, &[&str])]) -> View {
    let caa = climbed.iter().map(|(owner, records)| {
        let records: Vec<_> = records
            .iter()
            .map(|record| {
                let mut parts = record.splitn(3, ' ');
                let flags: u8 = parts.next().unwrap().parse().unwrap();
                let tag = parts.next().unwrap().to_owned();
                CaaRecord { is_critical: flags & 128 != 0, tag, value: parts.next().unwrap_or_default().to_owned() }
            })
            .collect();
        CaaLookup { owner: owner.to_string(), lookup: found(&records) }
    });
    View { caa: caa.collect(), ..resolver(v4("192.0.2.1"), found(&[])) }
}

fn look(views: Vec<View>) -> NameReport {
    judged(
        &Observed { name: name("shop.example.com"), is_apex: false, views, servers: None, took: 0 },
        &targets(),
        &issuer(),
    )
}

fn codes(report: &NameReport) -> Vec<FindingCode> {
    report.findings.iter().map(|finding| finding.code).collect()
}

fn edits(report: &NameReport) -> Vec<String> {
    report.findings.iter().flat_map(|finding| &finding.edits).map(ToString::to_string).collect()
}

#[test]
fn a_name_is_ready_by_its_alias_or_by_its_addresses() {
    for view in [
        resolver(v4("192.0.2.1"), found(&[])),
        resolver(found(&[]), v6("2001:db8::1")),
        resolver(v4("192.0.2.2"), v6("2001:db8::1")),
        // Whatever the platform's own host leads to.
        resolver(alias(&["edge.platform.example"], &["203.0.113.9".parse().unwrap()]), found(&[])),
        // As the platform's host leads to, where a zone flattens aliases.
        resolver(v4("198.51.100.77"), found(&[])),
        // A resolver with DNS64 makes one of IPv6 from ours.
        resolver(v4("192.0.2.1"), v6("64:ff9b::c000:201")),
        // By an alias of the customer's own.
        resolver(alias(&["www.example.com"], &["192.0.2.1".parse().unwrap()]), found(&[])),
    ] {
        let report = look(vec![view.clone()]);
        assert_eq!((report.readiness, codes(&report)), (Readiness::Ready, vec![]), "{view:?}");
    }
}

#[test]
fn what_leads_elsewhere_is_told_apart_with_the_records_that_put_it_right() {
    use FindingCode::*;
    let cases = [
        (
            resolver(v4("203.0.113.5"), found(&[])),
            WrongAddress,
            vec![
                "remove shop.example.com. 3600 IN A 203.0.113.5",
                "add shop.example.com. 3600 IN CNAME edge.platform.example.",
            ],
        ),
        (
            resolver(found(&["192.0.2.1".parse().unwrap(), "203.0.113.5".parse().unwrap()]), found(&[])),
            WrongAddress,
            vec![
                "remove shop.example.com. 3600 IN A 192.0.2.1",
                "remove shop.example.com. 3600 IN A 203.0.113.5",
                "add shop.example.com. 3600 IN CNAME edge.platform.example.",
            ],
        ),
        (
            resolver(v4("192.0.2.1"), v6("2001:db8:9::9")),
            StrayIpv6,
            vec!["remove shop.example.com. 3600 IN AAAA 2001:db8:9::9"],
        ),
        (
            resolver(
                alias(&["www.example.com"], &["192.0.2.1".parse().unwrap()]),
                alias(&["www.example.com"], &["2001:db8:9::9".parse().unwrap()]),
            ),
            StrayIpv6,
            vec!["remove www.example.com. 3600 IN AAAA 2001:db8:9::9"],
        ),
        (
            resolver(alias(&["old.example.net"], &["203.0.113.5".parse().unwrap()]), alias(&["old.example.net"], &[])),
            AliasElsewhere,
            vec![
                "remove shop.example.com. 3600 IN CNAME old.example.net.",
                "add shop.example.com. 3600 IN CNAME edge.platform.example.",
            ],
        ),
        (
            resolver(found(&[]), found(&[])),
            NoAddress,
            vec!["add shop.example.com. 3600 IN CNAME edge.platform.example."],
        ),
        (
            resolver(Lookup::failed(Unresolved::NoSuchName), Lookup::failed(Unresolved::NoSuchName)),
            NoSuchName,
            vec!["add shop.example.com. 3600 IN CNAME edge.platform.example."],
        ),
    ];
    for (view, code, expected) in cases {
        let report = look(vec![view.clone(), view]);
        assert_eq!((codes(&report), edits(&report)), (vec![code], expected.iter().map(|it| it.to_string()).collect()));
    }
}

#[test]
fn a_registered_domain_gets_addresses_since_it_can_be_no_alias() {
    let views = vec![resolver(found(&["192.0.2.1".parse().unwrap(), "203.0.113.5".parse().unwrap()]), found(&[]))];
    let observed = Observed { name: name("example.com"), is_apex: true, views, servers: None, took: 0 };
    let report = judged(&observed, &targets(), &issuer());
    let expected = [
        "remove example.com. 3600 IN A 203.0.113.5",
        "add example.com. 3600 IN A 192.0.2.2",
        "add example.com. 3600 IN AAAA 2001:db8::1",
    ];
    assert_eq!(edits(&report), expected);
}

#[test]
fn an_answer_that_depends_on_who_asks_is_no_old_one() {
    let here = || resolver(v4("192.0.2.1"), found(&[]));
    let there = |ttl| resolver(Lookup { ttl, ..v4("203.0.113.5") }, found(&[]));
    assert_eq!(codes(&look(vec![here(), there(300)])), [FindingCode::AnswersDiffer]);
    // The zone's own servers have the right one, and the resolver asked them just now.
    assert_eq!(codes(&look(vec![here(), there(299), server(v4("192.0.2.1"))])), [FindingCode::AnswersDiffer]);
    // A survey that took long has old answers of its own.
    let slow = |took| {
        let views = vec![here(), there(280), server(v4("192.0.2.1"))];
        let observed = Observed { name: name("shop.example.com"), is_apex: false, views, servers: None, took };
        codes(&judged(&observed, &targets(), &issuer()))
    };
    assert_eq!((slow(18), slow(17)), (vec![FindingCode::AnswersDiffer], vec![FindingCode::NotEverywhereYet]));
    // It asked them before.
    assert_eq!(codes(&look(vec![here(), there(120), server(v4("192.0.2.1"))])), [FindingCode::NotEverywhereYet]);
    assert_eq!(codes(&look(vec![there(120), there(120), server(v4("192.0.2.1"))])), [FindingCode::NotEverywhereYet]);
    // Where nothing was found before, the zone itself says for how long that is kept.
    let nothing = |ttl| {
        let none = Lookup { ttl, negative_ttl: Some(60), ..Lookup::failed(Unresolved::NoSuchName) };
        resolver(none, Lookup::failed(Unresolved::NoSuchName))
    };
    assert_eq!(codes(&look(vec![here(), nothing(60), server(v4("192.0.2.1"))])), [FindingCode::AnswersDiffer]);
    assert_eq!(codes(&look(vec![here(), nothing(30), server(v4("192.0.2.1"))])), [FindingCode::NotEverywhereYet]);
    // A secondary of the zone that was left behind.
    let report = look(vec![here(), here(), server(v4("192.0.2.1")), server(v4("203.0.113.5"))]);
    assert_eq!(codes(&report), [FindingCode::AnswersDiffer]);
    // All are wrong: that is the simpler thing to say.
    assert_eq!(codes(&look(vec![there(300), there(300), server(v4("203.0.113.5"))])), [FindingCode::WrongAddress]);
}

#[test]
fn what_could_not_be_asked_is_unknown_and_not_a_failure() {
    let silent = || Lookup::failed(Unresolved::NotAsked("no answer within 6 s".into()));
    let report = look(vec![resolver(silent(), Lookup::failed(Unresolved::NotAsked("REFUSED".into())))]);
    assert_eq!((report.readiness, codes(&report)), (Readiness::Unknown, vec![FindingCode::NotAsked]));
    // The other resolver is enough.
    let report = look(vec![
        resolver(silent(), Lookup::failed(Unresolved::NotAsked("REFUSED".into()))),
        resolver(v4("192.0.2.1"), found(&[])),
    ]);
    assert_eq!(report.readiness, Readiness::Ready);
}

#[test]
fn failures_are_told_apart_by_the_servers_of_the_zone() {
    let failed = || Unresolved::Failed("SERVFAIL".into());
    let view = || resolver(Lookup::failed(failed()), Lookup::failed(failed()));
    let servers = || vec!["ns1.example.net".to_owned()];
    for (trouble, code) in [
        (Some(ServerTrouble::Lame(servers())), FindingCode::LameDelegation),
        (Some(ServerTrouble::Unreachable(servers())), FindingCode::ServersUnreachable),
        (Some(ServerTrouble::Failing(servers())), FindingCode::ServersFail),
        (None, FindingCode::ServersFail),
    ] {
        let views = vec![view(), view()];
        let observed = Observed { name: name("shop.example.com"), is_apex: false, views, servers: trouble, took: 0 };
        assert_eq!(codes(&judged(&observed, &targets(), &issuer())), [code]);
    }
    // Others resolve it, whatever is wrong with one server of many.
    let views = vec![view(), resolver(v4("192.0.2.1"), found(&[]))];
    let servers = Some(ServerTrouble::Lame(servers()));
    let observed = Observed { name: name("shop.example.com"), is_apex: false, views, servers, took: 0 };
    assert_eq!(judged(&observed, &targets(), &issuer()).readiness, Readiness::Unknown);
    // One resolver alone may be at fault itself.
    let report = look(vec![view(), resolver(v4("192.0.2.1"), found(&[]))]);
    assert_eq!(report.readiness, Readiness::Unknown);
    // One kind of address that fails is nothing to a CA that has the other.
    let report = look(vec![resolver(v4("192.0.2.1"), Lookup::failed(failed()))]);
    assert_eq!(report.readiness, Readiness::Ready);
    let bogus = || Lookup::failed(Unresolved::Bogus(Some("a signature has expired".into())));
    assert_eq!(
        codes(&look(vec![resolver(bogus(), Lookup::failed(failed())), resolver(v4("192.0.2.1"), found(&[]))])),
        [FindingCode::DnssecBogus]
    );
    // Without a reason it may have passed by itself, and another one says so.
    let unexplained = || Lookup::failed(Unresolved::Bogus(None));
    let report = look(vec![resolver(unexplained(), Lookup::failed(failed())), resolver(v4("192.0.2.1"), found(&[]))]);
    assert_eq!(report.readiness, Readiness::Unknown);
    let both = || resolver(Lookup::failed(Unresolved::Bogus(None)), Lookup::failed(failed()));
    assert_eq!(codes(&look(vec![both(), both()])), [FindingCode::DnssecBogus]);
    let circle = || Lookup::failed(Unresolved::AliasLoop);
    assert_eq!(codes(&look(vec![resolver(circle(), Lookup::failed(Unresolved::AliasLoop))])), [FindingCode::AliasLoop]);
}

#[test]
fn caa_is_judged_as_boulder_judges_it() {
    let verdict = |climbed: &[(&str, &[&str])]| codes(&look(vec![with_caa(climbed)]));
    let at = |records: &[&str]| {
        verdict(&[("shop.example.com", &[]), ("example.com", records), ("com", &["0 issue x.example"])])
    };
    let allowed: &[&[&str]] = &[
        &["0 issue letsencrypt.org"],
        &["0 issue LetsEncrypt.org"],
        &["0 issue letsencrypt.org;"],
        &["0 issue other.example", "0 issue letsencrypt.org"],
        &["0 issue  letsencrypt.org ; accounturi=https://ca.example/acct/1"],
        &["0 issue letsencrypt.org; validationmethods=dns-01,http-01"],
        &["0 issue letsencrypt.org; unheard=of"],
        // Of other things only.
        &["0 issuewild ;"],
        &["0 iodef mailto:a@example.com"],
        &["128 issue letsencrypt.org"],
        &["0 unheardof x"],
    ];
    for records in allowed {
        assert_eq!(at(records), [], "{records:?}");
    }
    let forbidden: &[&[&str]] = &[
        &["0 issue other.example"],
        &["0 issue ;"],
        &["0 issue letsencrypt.org.evil.example"],
        &["0 issue letsencrypt.org; accounturi=https://ca.example/acct/2"],
        &["0 issue letsencrypt.org; accounturi=https://ca.example/acct/1; accounturi=https://ca.example/acct/1"],
        &["0 issue letsencrypt.org; validationmethods=dns-01"],
        &["0 issue letsencrypt.org; no equals sign"],
        &["0 issue letsencrypt.org", "128 unheardof x"],
    ];
    for records in forbidden {
        assert_eq!(at(records), [FindingCode::CaaForbids], "{records:?}");
    }
    // The nearest set decides, and nothing above it.
    assert_eq!(
        verdict(&[("shop.example.com", &["0 issue letsencrypt.org"]), ("example.com", &["0 issue ;"]), ("com", &[])]),
        []
    );
}

#[test]
fn a_wildcard_goes_by_issuewild_and_needs_no_address() {
    let judged_wildcard = |records: &[&str]| {
        let mut view = with_caa(&[("example.com", records)]);
        view.ipv4 = found(&[]);
        let observed =
            Observed { name: name("*.example.com"), is_apex: true, views: vec![view], servers: None, took: 0 };
        judged(&observed, &targets(), &issuer())
    };
    assert_eq!(codes(&judged_wildcard(&["0 issue letsencrypt.org"])), []);
    assert_eq!(codes(&judged_wildcard(&["0 issue ;", "0 issuewild letsencrypt.org"])), []);
    let report = judged_wildcard(&["0 issue letsencrypt.org", "0 issuewild ;"]);
    assert_eq!(codes(&report), [FindingCode::CaaForbids]);
    let expected = [
        "remove example.com. 3600 IN CAA 0 issuewild \";\"",
        "add example.com. 3600 IN CAA 0 issuewild \"letsencrypt.org\"",
    ];
    assert_eq!(edits(&report), expected);
}

#[test]
fn where_the_ca_comes_to_the_dns_alone_addresses_do_not_matter() {
    let views = vec![resolver(v4("203.0.113.5"), found(&[]))];
    let observed = Observed { name: name("shop.example.com"), is_apex: false, views, servers: None, took: 0 };
    let by = |methods: &[&str]| {
        let methods = methods.iter().map(|method| method.to_string()).collect();
        codes(&judged(&observed, &targets(), &Issuer { methods, ..issuer() }))
    };
    assert_eq!(by(&["dns-01"]), []);
    for visiting in ["http-01", "tls-alpn-01"] {
        assert_eq!(by(&[visiting]), [FindingCode::WrongAddress]);
        assert_eq!(by(&["dns-01", visiting]), [FindingCode::WrongAddress]);
    }
}

#[test]
fn a_question_for_caa_that_fails_is_no_permission() {
    let climbed = |why: Unresolved| {
        let failed = CaaLookup { owner: "shop.example.com".into(), lookup: Lookup::failed(why) };
        let mut view = with_caa(&[("example.com", &["0 issue letsencrypt.org"])]);
        view.caa.insert(0, failed);
        codes(&look(vec![view]))
    };
    assert_eq!(climbed(Unresolved::Failed("SERVFAIL".into())), [FindingCode::CaaUnanswered]);
    assert_eq!(climbed(Unresolved::Bogus(None)), [FindingCode::DnssecBogus]);
    assert_eq!(climbed(Unresolved::NotAsked("REFUSED".into())), [FindingCode::NotAsked]);
    assert_eq!(climbed(Unresolved::NoSuchName), []);

    // Where another resolver has an answer, the one that fails may be at fault; not where it is DNSSEC that fails.
    let beside_another = |why: Unresolved| {
        let mut failing = with_caa(&[]);
        failing.caa = vec![CaaLookup { owner: "shop.example.com".into(), lookup: Lookup::failed(why) }];
        codes(&look(vec![failing, with_caa(&[("shop.example.com", &[])])]))
    };
    assert_eq!(beside_another(Unresolved::Failed("no answer".into())), []);
    assert_eq!(beside_another(Unresolved::NotAsked("REFUSED".into())), []);
    assert_eq!(beside_another(Unresolved::Bogus(None)), []);
    assert_eq!(beside_another(Unresolved::Bogus(Some("expired".into()))), [FindingCode::DnssecBogus]);
}

#[test]
fn names_that_no_ca_certifies_are_refused_without_a_question() {
    let judge =
        |text: &str, suffix| refused(&name(text), suffix, &[name("denied.example")]).map(|finding| finding.code);
    assert_eq!(judge("shop.example.com", Suffix::Below), None);
    assert_eq!(judge("*.example.com", Suffix::Below), None);
    assert_eq!(judge("xn--mnchen-3ya.example", Suffix::Below), None);
    for (bad, suffix) in [
        ("co.uk", Suffix::Itself),
        ("*.co.uk", Suffix::Itself),
        ("db.internal", Suffix::Unknown),
        ("a.b.c.d.e.f.g.h.i.example.com", Suffix::Below),
        ("www.www.example.com", Suffix::Below),
        ("_dmarc.example.com", Suffix::Below),
        ("bq--abwhky3f6fxq.example.com", Suffix::Below),
        ("xn--0.example.com", Suffix::Below),
        ("xn--109-3veba6djs1bfxlfmx6c9g.xn--p1ai", Suffix::Below),
    ] {
        assert_eq!(judge(bad, suffix), Some(FindingCode::NameRefused), "{bad}");
    }
    assert_eq!(judge("denied.example", Suffix::Below), Some(FindingCode::Denied));
    assert_eq!(judge("*.shop.denied.example", Suffix::Below), Some(FindingCode::Denied));
    assert_eq!(judge("notdenied.example", Suffix::Below), None);
    let below = [name("shop.denied.example")];
    let over = refused(&name("*.denied.example"), Suffix::Below, &below).map(|finding| finding.code);
    assert_eq!(over, Some(FindingCode::Denied));
}

proptest! {
    /// Whatever comes from outside is judged, and its words stay short enough for the journal.
    #[test]
    fn hostile_answers_are_judged(
        tag in "[a-z]{1,300}", value in "\\PC{0,400}", aliases in prop::collection::vec("[a-z.]{1,250}", 0..20),
        addresses in prop::collection::vec(any::<[u8; 4]>(), 0..64), flags in any::<bool>(), apex in any::<bool>(),
    ) {
        let ipv4 = Lookup { aliases: aliases.clone(), records: Ok(addresses.into_iter().map(Ipv4Addr::from).collect()), ttl: 1, negative_ttl: None };
        let record = CaaRecord { is_critical: flags, tag, value };
        let caa = CaaLookup { owner: "example.com".into(), lookup: Lookup { aliases, records: Ok(vec![record; 9]), ttl: 1, negative_ttl: None } };
        let view = View { caa: vec![caa], ..resolver(ipv4, found(&[])) };
        let views = vec![view.clone(), view];
        let report = judged(&Observed { name: name("a.example.com"), is_apex: apex, views, servers: None, took: 0 }, &targets(), &issuer());
        for finding in &report.findings {
            prop_assert!(finding.detail.chars().count() < 4_000, "{}", finding.detail.len());
            prop_assert!(finding.edits.len() < 100);
        }
    }

    /// What leads here wherever one asks is ready, in whatever order the addresses come.
    #[test]
    fn our_own_addresses_are_always_ready(picked in prop::collection::vec(0..2_usize, 1..8), resolvers in 1..5_usize) {
        let ours = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<Ipv4Addr>().unwrap());
        let ipv4: Vec<_> = picked.iter().map(|at| ours[*at]).collect();
        let report = look(vec![resolver(found(&ipv4), found(&[])); resolvers]);
        prop_assert_eq!(report.readiness, Readiness::Ready);
        prop_assert!(ipv4.iter().all(|address| targets().is_ours(IpAddr::from(*address))));
    }
}
