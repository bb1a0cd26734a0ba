//! Pre-flight against hundreds of zones with known faults, on real name servers: does it say what is wrong with each?
//!
//! The zones come from a seed. `CERTSEAL_ZONE_SEED` takes another one, and `CERTSEAL_ZONES` more zones than the normal run.

mod servers;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use certseal_dns::{AllowedServers, Survey, UpdateError, ZoneWriter};
use certseal_issuance::preflight::{Issuer, Targets, judged};
use certseal_wire::{
    DnsName, FindingCode, NameReport, NameSet, NamesReport, OrderSummary, Readiness, SiteRequest, SiteState, SiteStatus,
};
use tokio::task::JoinSet;

use crate::{
    name_lab::{
        BIND, CAA_FAILS, CAA_SILENT, DEAD, GEO, LAME, LIMITED, Lab, MAIN, MUTE, STALE, Signing, UNBOUND, UPDATE_KEY,
        Zone, resolver,
    },
    pebble::Pebble,
    platform::{Authority, Platform},
    process::run,
};

#[test]
fn faults_of_hundreds_of_zones_are_told_apart() {
    in_own_network(look_at_all);
}

#[test]
fn a_site_whose_dns_is_wrong_costs_no_order_and_gets_its_certificate_once_it_is_mended() {
    in_own_network(|| {
        tokio::runtime::Runtime::new().unwrap().block_on(mend_one_beside_another());
    });
}

#[test]
fn wildcards_are_validated_by_dns_01_in_a_zone_to_which_customers_delegate() {
    in_own_network(|| {
        tokio::runtime::Runtime::new().unwrap().block_on(issue_wildcards());
    });
}

async fn issue_wildcards() {
    let wild =
        zone("wild.com", &["@ IN A 127.0.0.1", "* IN A 127.0.0.1", "_acme-challenge IN CNAME wild.com.acme.net."]);
    let other = zone("other.com", &["@ IN A 127.0.0.1", "* IN A 127.0.0.1"]);
    let thief = ["@ IN A 127.0.0.1", "* IN A 127.0.0.1", "_acme-challenge IN CNAME wild.com.acme.net."];
    let thief = zone("thief.com", &thief);
    let own = zone("platform.net", &["edge IN A 127.0.0.1"]);
    let answers = Zone { updated: true, ..zone("acme.net", &[]) };
    let zones = [wild, other, thief, own, answers].map(|zone| Zone { signing: Signing::Unsigned, ..zone });
    let _lab = Lab::start(&zones, &[("com", &[]), ("net", &[])]);
    let pebble = Pebble::start_resolving(resolver(UNBOUND));
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let key = platform.dir.path().join("tsig.key");
    fs::write(&key, UPDATE_KEY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    platform.configure_authority(&format!(
        "[dns]\nresolvers = [\"{UNBOUND}\", \"{BIND}\"]\ntarget = \"edge.platform.net\"\naddresses = [\"127.0.0.1\"]\n\
         private_networks = [\"127.0.0.0/8\"]\nfetch_port = {}\n[dns.challenges]\nzone = \"acme.net\"\nserver = \"{MAIN}\"\n\
         key_name = \"certman\"\nkey_file = \"{}\"",
        pebble.http.port(),
        key.display()
    ));
    let add = async |name: &str| {
        let site: DnsName = name.parse().unwrap();
        let names = vec![site.clone(), format!("*.{name}").parse().unwrap()];
        let request = SiteRequest { names: NameSet::try_from(names).unwrap(), ..platform.request(&site) };
        platform.certman_as("platform").put_site(&site, &request).await.unwrap();
        site
    };
    // Its own name over HTTP, and the wildcard beside it.
    let wild = add("wild.com").await;
    platform.wait_active(&wild, 1).await;
    let (root, visitor) = (pebble.issuing_root(), "any.wild.com".parse().unwrap());
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // The edge hears of it a moment later.
        let visited = platform.curl(&root, &visitor);
        if visited.status.success() {
            break;
        }
        assert!(Instant::now() < deadline, "{visited:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // The answer is taken out again, and nothing else can write there.
    let survey = Survey::new([resolver(UNBOUND)], AllowedServers::new(|_| true));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let texts = survey.texts("wild.com.acme.net").await;
        assert!(!texts.is_empty());
        if texts.iter().all(|(_, texts)| texts.as_ref().is_ok_and(Vec::is_empty) || texts.is_err()) {
            break;
        }
        assert!(Instant::now() < deadline, "{texts:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let writer = |secret: &[u8]| {
        let zone = "acme.net".parse().unwrap();
        ZoneWriter::new(resolver(MAIN), &zone, "certman", "hmac-sha256", secret.to_vec()).unwrap()
    };
    let right = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, UPDATE_KEY).unwrap();
    writer(&right).add_text("x.acme.net", "a").await.unwrap();
    writer(&right).add_text("x.acme.net", "b").await.unwrap();
    writer(&right).remove_text("x.acme.net", "a").await.unwrap();
    assert_eq!(survey.texts("x.acme.net").await[0].1, Ok(vec!["b".to_owned()]));
    writer(&[7; 32]).add_text("x.acme.net", "c").await.unwrap_err();
    assert!(matches!(writer(&right).add_text("x.other.com", "c").await, Err(UpdateError::Outside { .. })));
    assert_eq!(survey.texts("x.acme.net").await[0].1, Ok(vec!["b".to_owned()]));

    // Nobody's answers go where another customer's are.
    let thief = add("thief.com").await;
    let dns = waits_for_its_names(&platform, &thief).await.dns.unwrap();
    let edits: Vec<_> = dns.names[0].findings[0].edits.iter().map(ToString::to_string).collect();
    assert_eq!(dns.names[0].findings[0].code, FindingCode::ChallengeNotDelegated);
    assert_eq!(edits, ["add _acme-challenge.thief.com. 3600 IN CNAME thief.com.acme.net."]);
    // Also when people say that the order is to go on.
    assert!(platform.certctl(&["order", "retry", "thief.com"]).status.success());
    rejected(&platform, &thief, "are not delegated").await;
    assert!(
        survey
            .texts("wild.com.acme.net")
            .await
            .iter()
            .all(|(_, texts)| texts.as_ref().is_ok_and(Vec::is_empty) || texts.is_err())
    );

    let other = add("other.com").await;
    let dns = waits_for_its_names(&platform, &other).await.dns.unwrap();
    let finding = &dns.names[0].findings[0];
    assert_eq!((dns.names[0].name.as_str(), finding.code), ("*.other.com", FindingCode::ChallengeNotDelegated));
    let edits: Vec<_> = finding.edits.iter().map(ToString::to_string).collect();
    assert_eq!(edits, ["add _acme-challenge.other.com. 3600 IN CNAME other.com.acme.net."]);
    let plan = platform.certctl(&["dns", "plan", "other.com"]);
    assert!(String::from_utf8_lossy(&plan.stdout).contains("_acme-challenge.other.com. 3600 IN CNAME"), "{plan:?}");
}

/// Runs a test in a network of its own: port 53 and addresses for everybody take one. The test runs itself again there.
fn in_own_network(test: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        test();
        return println!("{PASSED}");
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let mut again = Command::new("unshare");
    again.args(["--net", "--map-root-user"]).arg(env::current_exe().unwrap()).args(["--exact", &name, "--nocapture"]);
    let output = run(again.env(INSIDE, "1"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(PASSED), "the test did not run there:\n{said}");
    println!("{said}");
}

async fn mend_one_beside_another() {
    let good = zone("good.com", &["www 2 IN CNAME edge.platform.net."]);
    let bad = zone("bad.com", &["www 2 IN A 203.0.113.5", "www 2 IN AAAA 2001:db8::5"]);
    let forbidding = zone("strict.com", &["www 2 IN A 127.0.0.1", "www 2 IN CAA 0 issue \"other.example\""]);
    let own = zone("platform.net", &["edge IN A 127.0.0.1"]);
    let [good, bad, forbidding] = [good, bad, forbidding].map(|zone| Zone { signing: Signing::Unsigned, ..zone });
    let lab = Lab::start(&[good, bad.clone(), forbidding.clone(), own], &[("com", &[]), ("net", &[])]);
    let pebble = Pebble::start_resolving(resolver(UNBOUND));
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    platform.configure_authority(&format!(
        "caa_identities = [\"pebble.example\"]\n[dns]\nresolvers = [\"{UNBOUND}\", \"{BIND}\"]\n\
         target = \"edge.platform.net\"\naddresses = [\"127.0.0.1\"]\nprivate_networks = [\"127.0.0.0/8\"]\n\
         fetch_port = {}\ndenied = [\"denied.com\"]",
        pebble.http.port()
    ));
    let [good_name, bad_name, strict_name] =
        ["www.good.com", "www.bad.com", "www.strict.com"].map(|name| name.parse::<DnsName>().unwrap());
    platform.add_site(&good_name).await;
    platform.wait_active(&good_name, 1).await;

    let requests = |platform: &Platform| count(&platform.metrics("man-telemetry"), "certman_acme_requests_total");
    let before = requests(&platform);
    let codes = |dns: &NamesReport| dns.names.iter().flat_map(|it| &it.findings).map(|it| it.code).collect::<Vec<_>>();
    for (name, code) in [(&bad_name, FindingCode::WrongAddress), (&strict_name, FindingCode::CaaForbids)] {
        platform.add_site(name).await;
        let status = waits_for_its_names(&platform, name).await;
        let dns = status.dns.unwrap();
        assert_eq!((dns.readiness, codes(&dns)), (Readiness::NotReady, vec![code]), "{dns:?}");
        assert_eq!(status.state, SiteState::Waiting);
    }
    // What the platform denies is ordered for nobody, not even when people say that the order is to go on.
    let denied: DnsName = "www.denied.com".parse().unwrap();
    platform.add_site(&denied).await;
    assert_eq!(codes(&waits_for_its_names(&platform, &denied).await.dns.unwrap()), [FindingCode::Denied]);
    assert!(platform.certctl(&["order", "retry", "www.denied.com"]).status.success());
    rejected(&platform, &denied, "deny list").await;
    assert!(platform.certctl(&["site", "remove", "www.denied.com"]).status.success());
    assert_eq!(requests(&platform), before, "the CA was asked for names that are not ready");

    let check = platform.certctl(&["dns", "check", "www.bad.com"]);
    let said = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    for line in [
        "remove www.bad.com. 3600 IN A 203.0.113.5",
        "remove www.bad.com. 3600 IN AAAA 2001:db8::5",
        "add www.bad.com. 3600 IN CNAME edge.platform.net.",
    ] {
        assert!(said.contains(line), "{line} is missing in:\n{said}");
    }
    let plan = platform.certctl(&["dns", "plan", "--all"]);
    let plan = String::from_utf8_lossy(&plan.stdout);
    assert!(plan.contains("edge.platform.net. 3600 IN CAA 0 issue \"pebble.example\""), "{plan}");
    assert!(plan.contains("www.strict.com. 3600 IN CNAME edge.platform.net."), "{plan}");

    // What the finding says is done, caches forget what was before, and the next look has the order go on.
    lab.change(&[
        Zone { records: vec!["www 2 IN CNAME edge.platform.net.".into()], ..bad },
        Zone { records: vec!["www 2 IN CNAME edge.platform.net.".into()], ..forbidding },
    ]);
    let deadline = Instant::now() + Duration::from_secs(90);
    while !platform.certctl(&["dns", "check", "--all"]).status.success() {
        assert!(Instant::now() < deadline, "still not ready");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mended = Instant::now();
    for name in [&bad_name, &strict_name] {
        platform.wait_active(name, 1).await;
    }
    // By itself it would have looked again a minute later.
    assert!(mended.elapsed() < Duration::from_secs(30), "{:?}", mended.elapsed());
}

/// Waits until the site's order failed for a reason.
async fn rejected(platform: &Platform, name: &DnsName, reason: &str) {
    let certman = platform.certman_as("platform");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = certman.site(name).await.unwrap().unwrap();
        let is_so = |order: &OrderSummary| {
            order.rejections > 0 && order.diagnosis.as_ref().is_some_and(|said| said.contains(reason))
        };
        if status.order.as_ref().is_some_and(is_so) {
            return;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The site's status once its names were looked at.
async fn waits_for_its_names(platform: &Platform, name: &DnsName) -> SiteStatus {
    let certman = platform.certman_as("platform");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = certman.site(name).await.unwrap().unwrap();
        if status.dns.is_some() {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn count(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

fn look_at_all() {
    let number = |name: &str, normal| env::var(name).map_or(normal, |text| text.parse::<u64>().unwrap());
    let (seed, count) = (number("CERTSEAL_ZONE_SEED", 1), number("CERTSEAL_ZONES", 330));
    let mut random = Random(seed);
    let cases: Vec<_> = (0..count as usize).map(|number| case(&mut random, number)).collect();
    let mut zones: Vec<_> = cases.iter().map(|case| case.zone.clone()).collect();
    zones.push(zone("platform.net", &[&format!("edge IN A {V4}"), &format!("edge IN AAAA {V6}"), CAA_OF_PLATFORM]));
    zones.push(zone("elsewhere.com", &["old IN A 203.0.113.7", "bare IN MX 0 .", "six IN AAAA 2001:db8:bad::7"]));
    let lab = Lab::start(&zones, &[("com", &[]), ("net", &[]), ("locked", &["@ IN CAA 0 issue \";\""])]);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let began = Instant::now();
    let reports = runtime.block_on(async {
        // What caches keep of those that change is older than the rest.
        let changed: Vec<_> = cases.iter().filter(|case| case.later.is_some()).collect();
        look(changed.iter().copied()).await;
        lab.change(&changed.iter().filter_map(|case| case.later.clone()).collect::<Vec<_>>());
        tokio::time::sleep(Duration::from_secs(4)).await;
        look(cases.iter()).await
    });
    println!("seed {seed}: {count} zones in {:.1} s", began.elapsed().as_secs_f64());
    assert_told_apart(&cases, &reports);
}

/// Looks at all of the cases, some at a time.
async fn look(cases: impl Iterator<Item = &Case>) -> BTreeMap<DnsName, NameReport> {
    let mut waiting: Vec<_> = cases.map(|case| (case.name.clone(), case.resolvers)).collect();
    let (mut looks, mut reports) = (JoinSet::new(), BTreeMap::new());
    loop {
        while looks.len() < 24
            && let Some((name, resolvers)) = waiting.pop()
        {
            looks.spawn(async move {
                let survey = Survey::new(resolvers.iter().map(|at| resolver(at)), AllowedServers::new(|_| true));
                let observed = survey.observe(&name).await;
                let report = judged(&observed, &targets(), &issuer());
                (name, report, observed)
            });
        }
        let Some(looked) = looks.join_next().await else { return reports };
        let (name, report, observed) = looked.unwrap();
        if env::var("CERTSEAL_SHOW").is_ok_and(|shown| shown == name.as_str()) {
            println!("{observed:#?}\n{report:#?}");
        }
        reports.insert(name, report);
    }
}

fn targets() -> Targets {
    Targets {
        alias: Some("edge.platform.net".parse().unwrap()),
        addresses: [V4, V4_MORE, V6].map(|address| address.parse().unwrap()).to_vec(),
        found: Vec::new(),
    }
}

fn issuer() -> Issuer {
    Issuer {
        identities: vec!["letsencrypt.org".into()],
        account: Some(ACCOUNT.into()),
        methods: vec!["http-01".into()],
    }
}

/// Prints what was taken for what, and holds it against the bars.
fn assert_told_apart(cases: &[Case], reports: &BTreeMap<DnsName, NameReport>) {
    let word = |code: Option<FindingCode>| code.map_or("ready", FindingCode::as_str);
    let (mut table, mut wrong) = (BTreeMap::<(&str, &str), u32>::new(), Vec::new());
    for case in cases {
        let report = &reports[&case.name];
        let found = report.findings.first().map(|finding| finding.code);
        *table.entry((word(case.expected), word(found))).or_default() += 1;
        if found != case.expected {
            wrong.push(format!("{} ({}) was taken for {}: {report:?}", case.name, case.kind, word(found)));
        }
    }
    let words: BTreeSet<_> = table.keys().flat_map(|(real, found)| [*real, *found]).collect();
    let count = |of: &dyn Fn(&str, &str) -> bool| {
        table.iter().filter(|((real, found), _)| of(real, found)).map(|(_, count)| f64::from(*count)).sum::<f64>()
    };
    println!("{:<20} {:>5} {:>5} {:>9} {:>7}  taken for", "fault", "zones", "found", "precision", "recall");
    for word in &words {
        let hit = count(&|real, found| real == *word && found == *word);
        let (real, found) = (count(&|real, _| real == *word), count(&|_, found| found == *word));
        let others = table.iter().filter(|((real, found), _)| real == word && found != word);
        let others: Vec<_> = others.map(|((_, found), count)| format!("{count} {found}")).collect();
        println!("{word:<20} {real:>5} {found:>5} {:>9.3} {:>7.3}  {}", hit / found, hit / real, others.join(", "));
    }
    wrong.iter().for_each(|line| println!("{line}"));
    // As a question of yes and no, and as one of which fault.
    let is_fault = |word: &str| word != "ready" && word != "not-asked";
    let hit = count(&|real, found| is_fault(real) && is_fault(found));
    let precision = hit / count(&|_, found| is_fault(found));
    let recall = hit / count(&|real, _| is_fault(real));
    let right = count(&|real, found| real == found) / count(&|_, _| true);
    println!(
        "a fault or none: precision {precision:.4}, recall {recall:.4}; the right one of {}: {right:.4}",
        words.len()
    );
    assert!(precision >= 0.99 && recall >= 0.99 && right >= 0.99);
    assert!(words.len() >= 16, "some faults were not tried: {words:?}");
}

/// A name with its zone, and what is wrong with it.
struct Case {
    name: DnsName,
    kind: &'static str,
    expected: Option<FindingCode>,
    zone: Zone,
    /// The zone after caches have it.
    later: Option<Zone>,
    resolvers: &'static [&'static str],
}

/// The kinds of zones: each as often as it stands here. None for one that is ready.
const KINDS: &[(&str, Option<FindingCode>)] = {
    use FindingCode::*;
    &[
        ("address", None),
        ("two kinds of addresses", None),
        ("alias of the platform", None),
        ("apex", None),
        ("alias of its own", None),
        ("wildcard record", None),
        ("deep", None),
        ("signed", None),
        ("one of two servers is lame", None),
        ("one of two servers is dead", None),
        ("CAA at the name", None),
        ("CAA at the apex", None),
        ("CAA of the platform overrides", None),
        ("CAA of the name overrides its TLD", None),
        ("CAA for other things", None),
        ("wildcard name", None),
        ("one resolver is limited", None),
        ("wrong address", Some(WrongAddress)),
        ("wrong address", Some(WrongAddress)),
        ("one wrong address", Some(WrongAddress)),
        ("wrong apex", Some(WrongAddress)),
        ("stray AAAA", Some(StrayIpv6)),
        ("stray AAAA", Some(StrayIpv6)),
        ("stray AAAA behind an alias", Some(StrayIpv6)),
        ("alias elsewhere", Some(AliasElsewhere)),
        ("alias elsewhere", Some(AliasElsewhere)),
        ("circle of aliases", Some(AliasLoop)),
        ("circle of aliases", Some(AliasLoop)),
        ("endless aliases", Some(AliasLoop)),
        ("no such name", Some(NoSuchName)),
        ("alias of nothing", Some(NoSuchName)),
        ("no address", Some(NoAddress)),
        ("alias without address", Some(NoAddress)),
        ("CAA at the name forbids", Some(CaaForbids)),
        ("CAA at the apex forbids", Some(CaaForbids)),
        ("CAA at the TLD forbids", Some(CaaForbids)),
        ("CAA behind an alias forbids", Some(CaaForbids)),
        ("CAA of a wildcard forbids", Some(CaaForbids)),
        ("CAA fails", Some(CaaUnanswered)),
        ("CAA is not answered", Some(CaaUnanswered)),
        ("expired", Some(DnssecBogus)),
        ("another key's digest", Some(DnssecBogus)),
        ("digest without signatures", Some(DnssecBogus)),
        ("expired CAA", Some(DnssecBogus)),
        ("lame", Some(LameDelegation)),
        ("lame and dead", Some(LameDelegation)),
        ("dead", Some(ServersUnreachable)),
        ("mute", Some(ServersUnreachable)),
        ("broken", Some(ServersFail)),
        ("broken", Some(ServersFail)),
        ("by who asks", Some(AnswersDiffer)),
        ("by who asks", Some(AnswersDiffer)),
        ("left-behind secondary", Some(AnswersDiffer)),
        ("changed a moment ago", Some(NotEverywhereYet)),
        ("limited resolvers", Some(NotAsked)),
    ]
};

fn case(random: &mut Random, number: usize) -> Case {
    let (kind, expected) = KINDS[number % KINDS.len()];
    let tld = match kind {
        "CAA at the TLD forbids" | "CAA of the name overrides its TLD" => "locked",
        _ => random.one(&["com", "net"]),
    };
    let origin = format!("z{number}.{tld}");
    let host = random.one(&["www", "shop", "a.b", "x-1"]);
    let name = format!("{host}.{origin}");
    let here = random.one(&[format!("A {V4}"), format!("A {V4_MORE}")]);
    let there = format!("A 203.0.113.{}", 1 + random.below(200));
    let stray = format!("AAAA 2001:db8:bad::{:x}", 1 + random.below(9999));
    let allows = random.one(&[
        "0 issue \"letsencrypt.org\"".to_owned(),
        "128 issue \"letsencrypt.org\"".to_owned(),
        format!("0 issue \"letsencrypt.org; accounturi={ACCOUNT}\""),
        "0 issue \"letsencrypt.org; validationmethods=http-01,dns-01\"".to_owned(),
    ]);
    let forbids = random.one(&[
        "0 issue \";\"".to_owned(),
        "0 issue \"digicert.com\"".to_owned(),
        format!("0 issue \"letsencrypt.org; accounturi={ACCOUNT}0\""),
        "0 issue \"letsencrypt.org; validationmethods=dns-01\"".to_owned(),
        "0 issue \"letsencrypt.org; no equals sign\"".to_owned(),
        "128 tbs \"unknown\"".to_owned(),
    ]);
    let at = |record: &str| format!("{host} IN {record}");
    let mut resolvers: &[_] = &[UNBOUND, BIND];
    let (mut servers, mut other, mut later, mut broken) = (vec![MAIN], None, None, false);
    // Most of those that lead here may be signed as well: that is nothing against them.
    let mut signing = if random.below(4) == 0 { Signing::Signed } else { Signing::Unsigned };
    let mut asked = name.clone();
    let records: Vec<String> = match kind {
        "address" => vec![at(&here)],
        "two kinds of addresses" => vec![at(&here), at(&format!("AAAA {V6}"))],
        "alias of the platform" => vec![at("CNAME edge.platform.net.")],
        "apex" => {
            asked = origin.clone();
            vec![
                format!("@ IN {here}"),
                format!("@ IN AAAA {V6}"),
                "@ IN MX 10 mail".into(),
                format!("mail IN {there}"),
            ]
        }
        "alias of its own" => vec![at("CNAME web"), "web IN CNAME web2".into(), format!("web2 IN {here}")],
        "wildcard record" => vec![format!("* IN {here}")],
        "deep" => {
            asked = format!("a.b.c.{name}");
            vec![format!("a.b.c.{host} IN {here}")]
        }
        "signed" => {
            signing = Signing::Signed;
            vec![at(&here)]
        }
        "one of two servers is lame" => {
            servers = vec![MAIN, LAME];
            vec![at(&here)]
        }
        "one of two servers is dead" => {
            servers = vec![DEAD, MAIN];
            vec![at(&here)]
        }
        "CAA at the name" => vec![at(&here), at(&format!("CAA {allows}")), "@ IN CAA 0 issue \";\"".into()],
        "CAA at the apex" => {
            vec![at(&here), format!("@ IN CAA {allows}"), "@ IN CAA 0 issue \"digicert.com\"".into()]
        }
        "CAA of the platform overrides" => vec![at("CNAME edge.platform.net."), "@ IN CAA 0 issue \";\"".into()],
        "CAA of the name overrides its TLD" => vec![at(&here), at(&format!("CAA {allows}"))],
        "CAA for other things" => {
            let other = random.one(&["0 issuewild \";\"", "0 iodef \"mailto:a@example.com\"", "0 tbs \"unknown\""]);
            vec![at(&here), at(&format!("CAA {other}"))]
        }
        "wildcard name" => {
            asked = format!("*.{origin}");
            vec![
                format!("* IN {here}"),
                "@ IN CAA 0 issue \";\"".into(),
                "@ IN CAA 0 issuewild \"letsencrypt.org\"".into(),
            ]
        }
        "one resolver is limited" => {
            resolvers = &[LIMITED, BIND];
            vec![at(&here)]
        }
        "wrong address" => vec![at(&there)],
        "one wrong address" => vec![at(&here), at(&there)],
        "wrong apex" => {
            asked = origin.clone();
            vec![format!("@ IN {there}"), format!("www IN {here}")]
        }
        "stray AAAA" => vec![at(&here), at(&stray)],
        "stray AAAA behind an alias" => vec![at("CNAME web"), format!("web IN {here}"), format!("web IN {stray}")],
        "alias elsewhere" => vec![at(random.one(&["CNAME old.elsewhere.com.", "CNAME six.elsewhere.com."]))],
        "circle of aliases" => random.one(&[
            vec![at(&format!("CNAME {host}"))],
            vec![at("CNAME p"), format!("p IN CNAME {host}")],
            vec![at("CNAME p"), "p IN CNAME q".into(), "q IN CNAME p".into()],
        ]),
        "endless aliases" => {
            let chain = (1..40).map(|i| format!("c{i} IN CNAME c{}", i + 1));
            [at("CNAME c1")].into_iter().chain(chain).chain([format!("c40 IN {here}")]).collect()
        }
        "no such name" => vec![format!("other IN {here}")],
        "alias of nothing" => vec![at(random.one(&["CNAME gone.elsewhere.com.", "CNAME gone"]))],
        "no address" => random.one(&[vec![at("MX 0 .")], vec![format!("below.{host} IN {here}")]]),
        "alias without address" => vec![at("CNAME bare.elsewhere.com.")],
        "CAA at the name forbids" => {
            vec![at(&here), at(&format!("CAA {forbids}")), "@ IN CAA 0 issue \"letsencrypt.org\"".into()]
        }
        "CAA at the apex forbids" => vec![at(&here), format!("@ IN CAA {forbids}")],
        "CAA at the TLD forbids" => vec![at(&here)],
        "CAA behind an alias forbids" => {
            vec![
                at("CNAME web"),
                format!("web IN {here}"),
                format!("web IN CAA {forbids}"),
                format!("@ IN CAA {allows}"),
            ]
        }
        "CAA of a wildcard forbids" => {
            asked = format!("*.{origin}");
            let wild = random.one(&["0 issuewild \";\"", "0 issuewild \"digicert.com\""]);
            vec![format!("* IN {here}"), "@ IN CAA 0 issue \"letsencrypt.org\"".into(), format!("@ IN CAA {wild}")]
        }
        "CAA fails" | "CAA is not answered" => {
            servers = vec![if kind == "CAA fails" { CAA_FAILS } else { CAA_SILENT }];
            signing = Signing::Unsigned;
            vec![at(&here)]
        }
        "expired" => {
            signing = Signing::Expired;
            vec![at(&here)]
        }
        "another key's digest" => {
            signing = Signing::WrongDigest;
            vec![at(&here)]
        }
        "digest without signatures" => {
            signing = Signing::Stripped;
            vec![at(&here)]
        }
        "expired CAA" => {
            signing = Signing::ExpiredFor("CAA");
            vec![at(&here), format!("@ IN CAA {allows}")]
        }
        "lame" | "lame and dead" | "dead" | "mute" => {
            servers = match kind {
                "lame" => vec![LAME],
                "lame and dead" => vec![LAME, DEAD],
                "dead" => vec![DEAD],
                _ => vec![MUTE],
            };
            signing = Signing::Unsigned;
            vec![at(&here)]
        }
        "broken" => {
            (signing, broken) = (Signing::Unsigned, true);
            Vec::new()
        }
        "by who asks" => {
            (servers, signing) = (vec![GEO], Signing::Unsigned);
            let elsewhere = random.one(&[vec![at(&there)], vec![at("CNAME old.elsewhere.com.")], Vec::new()]);
            other = Some(elsewhere);
            vec![at(&here)]
        }
        "left-behind secondary" => {
            (servers, signing) = (vec![MAIN, STALE], Signing::Unsigned);
            other = Some(vec![at(&there)]);
            vec![at(&here)]
        }
        "changed a moment ago" => {
            signing = Signing::Unsigned;
            later = Some(vec![at(&here)]);
            vec![format!("{host} 3600 IN {there}")]
        }
        "limited resolvers" => {
            resolvers = &[LIMITED];
            vec![at(&here)]
        }
        other => unreachable!("{other}"),
    };
    let zone = Zone { origin, records, other, servers, signing, broken, updated: false };
    let later = later.map(|records| Zone { records, ..zone.clone() });
    Case { name: asked.parse().unwrap(), kind, expected, zone, later, resolvers }
}

fn zone(origin: &str, records: &[&str]) -> Zone {
    Zone {
        origin: origin.to_owned(),
        records: records.iter().map(|record| record.to_string()).collect(),
        other: None,
        servers: vec![MAIN],
        signing: Signing::Signed,
        broken: false,
        updated: false,
    }
}

/// SplitMix64: the same zones for the same seed, whatever else changes.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// Set for the test that runs in its own network, and what it says in the end.
const INSIDE: &str = "CERTSEAL_IN_NAMESPACE";
const PASSED: &str = "the test in its own network passed";

const V4: &str = "198.51.100.10";
const V4_MORE: &str = "198.51.100.11";
const V6: &str = "2001:db8:100::10";
const CAA_OF_PLATFORM: &str = "edge IN CAA 0 issue \"letsencrypt.org\"";
const ACCOUNT: &str = "https://ca.example/acct/7";
