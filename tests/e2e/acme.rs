//! Issuance by a real ACME CA, seen by real clients.

use std::{
    collections::BTreeSet,
    env, fs,
    process::Command,
    time::{Duration, Instant},
};

use certseal_seal::{Bundle, SigningKey};
use certseal_wire::{
    AuditAction, Challenge, ChallengeMethod, DnsName, Renewal, RenewalAdvice, SiteRequest, SiteState, SiteStatus,
    ValidationMethod,
};
use hyper::StatusCode;
use jiff::{SignedDuration, Timestamp};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    audit,
    fault_proxy::{FaultProxy, Hold},
    pebble::Pebble,
    platform::{Authority, Platform},
    process::run,
    tls_client::{Connection, handshake},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_names_are_issued_over_http_01_and_one_is_renewed_with_connections_open() {
    let pebble = Pebble::start(5);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let names: Vec<DnsName> = (1..=20).map(|number| format!("shop-{number}.customers.test").parse().unwrap()).collect();
    for name in &names {
        platform.add_site(name).await;
    }
    let root = pebble.issuing_root();
    for name in &names {
        platform.wait_active(name, 1).await;
        served_within_two_seconds(&platform, name, &root, 1).await;
        let output = platform.curl(&root, name);
        let body = String::from_utf8_lossy(&output.stdout);
        assert!(body.starts_with(&format!("hello from {name} over https")), "{output:?}");
    }

    // A control: the same client does not accept the chain under another root.
    let other_root = platform.pki("ca.pem");
    assert!(!platform.curl(&other_root, &names[0]).status.success());

    let name = &names[0];
    let mut open = Connection::open(platform.addresses["https"], name, &root).await.unwrap();
    let first = open.chain[0].clone();
    let output = platform.certctl(&["site", "renew", name.as_str()]);
    assert!(output.status.success(), "{output:?}");
    platform.wait_active(name, 2).await;
    let renewed = served_within_two_seconds(&platform, name, &root, 2).await;
    assert_ne!(first, renewed.chain[0], "the old certificate is still served");
    assert_eq!(open.get().await.unwrap().status(), 200, "the connection from before the renewal was dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_survives_sigkill_at_every_step_with_one_key() {
    let pebble = Pebble::start(0);
    let proxy = FaultProxy::start(&pebble).await;
    let authority = Authority::Acme { directory: &proxy.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let steps = [
        Hold { path: "/order-plz", after: true },
        Hold { path: "/chalZ/", after: false },
        Hold { path: "/finalize-order/", after: false },
        Hold { path: "/finalize-order/", after: true },
        Hold { path: "/certZ/", after: true },
    ];
    for (number, hold) in steps.into_iter().enumerate() {
        let name: DnsName = format!("kill-{number}.customers.test").parse().unwrap();
        proxy.hold(hold);
        platform.add_site(&name).await;
        proxy.wait_held().await;
        platform.certman.kill();
        platform.restart_certman();
        let status = platform.wait_active(&name, 1).await;
        assert_eq!(status.version, 1, "{hold:?}");
        assert_eq!(proxy.csrs(), 1, "killed at {hold:?}, the order went on with another key");
        served_within_two_seconds(&platform, &name, &pebble.issuing_root(), 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_order_is_explained_leaves_nothing_pending_and_succeeds_once_the_cause_is_gone() {
    let pebble = Pebble::start(0);
    let proxy = FaultProxy::start(&pebble).await;
    let authority = Authority::Acme { directory: &proxy.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let name: DnsName = "broken.customers.test".parse().unwrap();
    pebble.dns("set-servfail", name.as_str());
    platform.add_site(&name).await;
    let diagnosis = loop {
        let status = platform.certman_as("platform").site(&name).await.unwrap().unwrap();
        if let Some(diagnosis) = status.order.and_then(|order| order.diagnosis) {
            break diagnosis;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(diagnosis.contains(name.as_str()) && diagnosis.contains("urn:ietf:params:acme:error:"), "{diagnosis}");
    pebble.dns("clear-servfail", name.as_str());
    platform.wait_active(&name, 1).await;

    // A site that leaves in the middle of its order: its pending authorizations at the CA are deactivated.
    let name: DnsName = "fickle.customers.test".parse().unwrap();
    pebble.dns("set-servfail", name.as_str());
    proxy.hold(Hold { path: "/chalZ/", after: false });
    platform.add_site(&name).await;
    proxy.wait_held().await;
    platform.certman_as("platform").remove_site(&name).await.unwrap();
    proxy.release();
    let began = Instant::now();
    while proxy.deactivated() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was deactivated\n{}", platform.certman.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_has_the_profile_that_its_site_names() {
    let pebble = Pebble::start_with_profiles(0, &[("default", 7_776_000), ("shortlived", 576_000)]);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    // Of sites that name none.
    platform.configure_authority("profile = \"default\"");
    let certman = platform.certman_as("platform");
    let put = async |name: &DnsName, profile: &str, names: usize| {
        let others = (1..names).map(|n| format!("{n}.{name}").parse().unwrap());
        let names = [name.clone()].into_iter().chain(others).collect::<Vec<DnsName>>().try_into().unwrap();
        let request = SiteRequest { names, profile: Some(profile.parse().unwrap()), ..platform.request(name) };
        certman.put_site(name, &request).await
    };
    let days = |status: SiteStatus| status.not_after.unwrap().duration_since(Timestamp::now()).as_hours() / 24;

    let [short, usual, wrong]: [DnsName; 3] =
        ["short", "usual", "wrong"].map(|it| format!("{it}.test").parse().unwrap());
    put(&short, "shortlived", 1).await.unwrap();
    platform.add_site(&usual).await;
    assert_eq!(days(platform.wait_active(&short, 1).await), 6);
    assert_eq!(days(platform.wait_active(&usual, 1).await), 89);

    // Another profile is no reason for another certificate, but the next one has it.
    let changed = put(&usual, "shortlived", 1).await.unwrap();
    assert_eq!((changed.state, changed.order), (SiteState::Active, None));
    certman.renew(&usual, &Renewal::default()).await.unwrap();
    assert_eq!(days(platform.wait_active(&usual, 2).await), 6);

    // The CA knows its profiles; how many names Let's Encrypt's have is known here.
    put(&wrong, "no-such-profile", 1).await.unwrap();
    let status = failed(&platform, &wrong).await;
    let diagnosis = status.order.unwrap().diagnosis.unwrap();
    assert!(status.state == SiteState::Failed && diagnosis.contains("no-such-profile"), "{diagnosis}");
    let refused = put(&short, "shortlived", 26).await.unwrap_err().to_string();
    assert!(refused.contains("at most 25 names") && refused.contains("these are 26"), "{refused}");
}

/// Waits until the site fails for good.
async fn failed(platform: &Platform, name: &DnsName) -> SiteStatus {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = platform.certman_as("platform").site(name).await.unwrap().unwrap();
        if status.state == SiteState::Failed {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_follows_the_cas_advice_and_says_which_certificate_it_replaces() {
    let pebble = Pebble::start(0);
    let proxy = FaultProxy::start(&pebble).await;
    let authority = Authority::Acme { directory: &proxy.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let name: DnsName = "advised.customers.test".parse().unwrap();
    platform.add_site(&name).await;
    let first = platform.wait_active(&name, 1).await;
    assert_eq!(first.advice, None, "nobody has asked yet");
    let ask = |platform: &Platform| assert!(platform.certctl(&["site", "advice", name.as_str()]).status.success());
    ask(&platform);
    let advised = advised(&platform, &name, |advice| advice.explanation.is_none()).await;
    let RenewalAdvice { start, end, .. } = advised.advice.unwrap();
    let renew_at = advised.renew_at.unwrap();
    assert!(start <= renew_at && renew_at <= end, "{start} to {end}, and the renewal is at {renew_at}");
    assert_eq!(advised.version, 1);

    // The CA wants another time.
    let later = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
    let pem = |bundle: &Bundle| pem::encode(&pem::Pem::new("CERTIFICATE", bundle.chain()[0].clone()));
    pebble.advise(&pem(&platform.bundle(&name).await), later(24), later(26));
    ask(&platform);
    let moved = self::advised(&platform, &name, |advice| advice.explanation.is_some()).await;
    let wait = moved.renew_at.unwrap().duration_since(Timestamp::now()).as_hours();
    assert!((23..26).contains(&wait), "{moved:?}");
    let page = String::from_utf8(platform.certctl(&["site", "status", name.as_str()]).stdout).unwrap();
    assert!(page.contains("https://ca.example/incident-7"), "{page}");

    // An incident: the window lies in the past.
    assert_eq!(proxy.replacing(), []);
    pebble.advise(&pem(&platform.bundle(&name).await), later(-2), later(-1));
    ask(&platform);
    platform.wait_active(&name, 2).await;
    let [(id, StatusCode::CREATED)] = &proxy.replacing()[..] else { panic!("{:?}", proxy.replacing()) };
    assert!(id.contains('.'), "{id}");

    // A certman that comes back from a backup knows less than the CA, which has a replacement already.
    let (journal, backup) = (platform.dir.path().join("certman"), platform.dir.path().join("certman-backup"));
    platform.certman.kill();
    run(Command::new("cp").arg("-a").arg(&journal).arg(&backup));
    platform.restart_certman();
    pebble.advise(&pem(&platform.bundle(&name).await), later(-2), later(-1));
    ask(&platform);
    platform.wait_active(&name, 3).await;
    platform.certman.kill();
    std::fs::remove_dir_all(&journal).unwrap();
    std::fs::rename(&backup, &journal).unwrap();
    platform.restart_certman();
    ask(&platform);
    platform.wait_active(&name, 4).await;
    let answers: Vec<StatusCode> = proxy.replacing().into_iter().map(|(_, answer)| answer).collect();
    assert_eq!(answers, [StatusCode::CREATED, StatusCode::CREATED, StatusCode::CONFLICT]);
}

/// Waits until the CA's advice for a site is known and as it is wanted.
async fn advised(platform: &Platform, name: &DnsName, is_wanted: fn(&RenewalAdvice) -> bool) -> SiteStatus {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = platform.certman_as("platform").site(name).await.unwrap().unwrap();
        if status.advice.as_ref().is_some_and(is_wanted) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:?}\n{}", platform.certman.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_beyond_the_cas_limits_are_not_placed_and_say_until_when_they_wait() {
    let pebble = Pebble::start(0);
    let proxy = FaultProxy::start(&pebble).await;
    let authority = Authority::Acme { directory: &proxy.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    // Of four that there is room for, the last waits a minute.
    platform.configure_authority(
        "limits = \"letsencrypt\"\n[authority.overrides.certificates_per_domain]\nburst = 4\ncount = 4\nperiod_seconds = 36000",
    );
    let certman = platform.certman_as("platform");
    let names: Vec<DnsName> = (0..6).map(|n| format!("shop-{n}.customers.test").parse().unwrap()).collect();
    for name in &names {
        platform.add_site(name).await;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let waiting = loop {
        let sites = certman.sites(None).await.unwrap().sites;
        let active = sites.iter().filter(|site| site.state == SiteState::Active).count();
        // A validation may come before the edge is ready, and fail once.
        let waiting = sites.into_iter().filter_map(|site| site.order?.diagnosis);
        let waiting: Vec<_> =
            waiting.filter(|said| said.contains("certificates_per_domain of customers.test")).collect();
        if active == 3 && waiting.len() == 3 {
            break waiting;
        }
        assert!(Instant::now() < deadline && active <= 4, "{active} {waiting:?}\n{}", platform.certman.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(waiting.iter().collect::<BTreeSet<_>>().len(), 3, "each is told another instant: {waiting:?}");
    // A process that begins anew knows what was taken.
    platform.certman.kill();
    platform.restart_certman();
    let output = platform.certctl(&["budget"]);
    let page = String::from_utf8(output.stdout).unwrap();
    let row = |limit: &str| page.lines().find(|line| line.contains(limit)).unwrap_or_else(|| panic!("{page}"));
    assert!(
        row("certificates_per_domain").contains("customers.test") && row("certificates_per_domain").ends_with(" 1")
    );
    assert!(row("new_orders").contains("the account"), "{page}");
    // A renewal of the same names takes no room of the domain.
    let active = certman.sites(None).await.unwrap().sites.into_iter().find(|site| site.version == 1).unwrap();
    assert!(platform.certctl(&["site", "renew", active.site.as_str()]).status.success());
    platform.wait_active(&active.site, 2).await;
    let since_the_restart = platform.certman_counter("certman_certificates_total");
    assert!(since_the_restart <= 2.0, "{since_the_restart}: that one, and the one that waited a minute");
}

/// One request at a time: while one order looks for authorizations to use again and another one's is read, Pebble 2.10 may
/// stand still for good, each holding a lock that the other waits for. `CERTSEAL_ACME_WORKERS` tries one's luck.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_takes_eight_requests_and_hardly_a_nonce() {
    let count = env::var("CERTSEAL_ACME_NAMES").map_or(30, |count| count.parse::<u32>().unwrap());
    let pebble = Pebble::start(0);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let workers = env::var("CERTSEAL_ACME_WORKERS").unwrap_or_else(|_| "1".into());
    platform.configure_certman(&format!("workers = {workers}"));
    let certman = platform.certman_as("platform");
    let began = Instant::now();
    for number in 0..count {
        let name = format!("n-{number}.customers.test").parse().unwrap();
        certman.put_site(&name, &platform.request(&name)).await.unwrap();
    }
    platform.wait_certificates(count).await;
    let seconds = began.elapsed().as_secs_f64();
    let counted = |name| platform.certman_counter(name) / f64::from(count);
    let (others, nonces) = (counted("certman_acme_requests_total"), counted("certman_acme_nonce_requests_total"));
    println!(
        "{count} certificates in {seconds:.1} s, {:.0} a second; for each {others:.2} requests and {nonces:.2} for nonces",
        f64::from(count) / seconds
    );
    assert_eq!(platform.certman_counter("certman_certificates_total"), f64::from(count), "each once");
    assert!(others + nonces <= 8.0, "{others} + {nonces} requests for a certificate");
    assert!(nonces <= (others + nonces) / 20.0, "{nonces} of {others} requests for a certificate are for nonces");
}

/// Pebble finds nothing where it looks for http-01 answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_validated_by_tls_alpn_01_at_the_edge() {
    let pebble = Pebble::start(0);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_https(authority, pebble.tls).await;
    let name: DnsName = "shop.customers.test".parse().unwrap();
    // The platform's own way is http-01, and nobody answers there.
    let request = SiteRequest { challenges: vec![ValidationMethod::TlsAlpn], ..platform.request(&name) };
    // Another validation of the name is under way, of its site's companion for example: it has the one place, and goes first.
    let other = Challenge {
        host: name.clone(),
        token: "other".to_owned(),
        key_authorization: "other.print".to_owned(),
        expires_at: Timestamp::now() + SignedDuration::from_hours(1),
        method: ChallengeMethod::TlsAlpn,
    };
    let issuer = SigningKey::from_pem(&fs::read_to_string(platform.pki("issuer.key")).unwrap()).unwrap();
    let (certman, place) = (platform.certman_as("platform"), platform.store_as("certman"));
    let signed = issuer.sign(&other);
    place.put_challenge(&name, Challenge::TLS_ALPN, &signed).await.unwrap();
    certman.put_site(&name, &request).await.unwrap();
    let began = Instant::now();
    let said =
        |status: &SiteStatus| status.order.as_ref().and_then(|order| order.diagnosis.clone()).unwrap_or_default();
    loop {
        let status = certman.site(&name).await.unwrap().unwrap();
        assert_eq!(status.version, 0, "its answer took the other one's place");
        if said(&status).contains("another validation") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(place.challenge(&name, Challenge::TLS_ALPN).await.unwrap(), Some(signed));
    place.delete_challenge(&name, Challenge::TLS_ALPN).await.unwrap();
    platform.wait_active(&name, 1).await;
    let root = pebble.issuing_root();
    served_within_two_seconds(&platform, &name, &root, 1).await;

    // One that expects the site's certificate is no CA, whatever it offers besides.
    let https = platform.addresses["https"];
    let visitor = handshake(https, &name, &root, &["acme-tls/1", "http/1.1"]).await.unwrap();
    assert_eq!(visitor.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));

    let store = platform.store_as("admin");
    let challenges: Vec<String> = audit::verified(&store)
        .await
        .into_iter()
        .filter(|record| record.action == AuditAction::PutChallenge)
        .flat_map(|record| record.targets)
        .collect();
    assert!(!challenges.is_empty());
    assert!(challenges.iter().all(|put| *put == format!("{name}/tls-alpn-01")), "{challenges:?}");
    assert!(platform.edge_gauge("certedge_challenges_total") >= 1.0);

    let began = Instant::now();
    while store.challenge(&name, Challenge::TLS_ALPN).await.unwrap().is_some() {
        assert!(began.elapsed() < Duration::from_secs(20), "it is still there\n{}", platform.certman.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let error = handshake(https, &name, &root, &["acme-tls/1"]).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("alert"), "expected that the edge ends the handshake: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_leads_to_the_root_that_the_configuration_prefers_where_the_ca_offers_one() {
    let pebble = Pebble::start_with_alternates(2);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let site = |name: &str| format!("{name}.customers.test").parse::<DnsName>().unwrap();
    let roots = [0, 1, 2].map(|number| pebble.root(number));
    let served_under =
        |platform: &Platform, name: &DnsName| roots.each_ref().map(|root| platform.curl(root, name).status.success());
    // The control: without a preference it is the default one.
    let usual = site("usual");
    platform.add_site(&usual).await;
    platform.wait_active(&usual, 1).await;
    served_within_two_seconds(&platform, &usual, &roots[0], 1).await;
    assert_eq!(served_under(&platform, &usual), [true, false, false]);

    let names = roots.each_ref().map(|root| common_name(root));
    platform.configure_authority(&format!("preferred_chain = \"{}\"", names[2]));
    let preferred = site("preferred");
    platform.add_site(&preferred).await;
    platform.wait_active(&preferred, 1).await;
    assert_eq!(issuer_of_top(&platform.bundle(&preferred).await), names[2]);
    served_within_two_seconds(&platform, &preferred, &roots[2], 1).await;
    assert_eq!(served_under(&platform, &preferred), [false, false, true]);

    // No such chain: the default one, and a line for all of them.
    platform.edit_certman(|text| text.replace(&names[2], "Nobody's root"));
    for name in [site("first"), site("second")] {
        platform.add_site(&name).await;
        platform.wait_active(&name, 1).await;
        assert_eq!(issuer_of_top(&platform.bundle(&name).await), names[0]);
    }
    let log = platform.certman.log();
    assert_eq!(log.matches("no chain leads to the issuer of `preferred_chain`").count(), 1, "{log}");
}

/// The common name in a certificate file.
fn common_name(file: &std::path::Path) -> String {
    let read = pem::parse(std::fs::read(file).unwrap()).unwrap();
    let (_, certificate) = X509Certificate::from_der(read.contents()).unwrap();
    certificate.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

/// The common name of the issuer of a chain's topmost certificate.
fn issuer_of_top(bundle: &Bundle) -> String {
    let (_, top) = X509Certificate::from_der(bundle.chain().last().unwrap()).unwrap();
    top.issuer().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

/// A new certificate is served within 2 s of being stored. Opens a connection that sees `version`.
async fn served_within_two_seconds(
    platform: &Platform,
    name: &DnsName,
    root: &std::path::Path,
    version: u64,
) -> Connection {
    let stored = platform.store_as("admin").bundle(name).await.unwrap().unwrap();
    let bundle = certseal_seal::Bundle::parse(&stored).unwrap();
    assert_eq!(bundle.sealed().envelope().unwrap().header().key_version, version);
    let leaf = &bundle.chain()[0];
    let began = Instant::now();
    loop {
        match Connection::open(platform.addresses["https"], name, root).await {
            Ok(connection) if connection.chain[0].as_ref() == leaf => return connection,
            other => {
                let waited = began.elapsed();
                let error = other.map(drop).err();
                assert!(
                    waited < Duration::from_secs(2),
                    "not served after {waited:?}: {error:?}\n{}",
                    platform.edge.log()
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
