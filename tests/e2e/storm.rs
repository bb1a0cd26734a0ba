//! Two certmans that share a journal, a CA with limits behind a line that fails in every way, and customers whose DNS is broken.
//!
//! The CA is the planner's twin, since Pebble has no limits and stands still now and then. `CERTSEAL_STORM_ORDERS=2000` makes
//! it long.

use std::{
    collections::BTreeMap,
    env, fs,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use certseal_client::CertmanClient;
use certseal_issuance::budget::LimitName;
use certseal_planner::{Override, Scenario, TwinLimits};
use certseal_wire::{DnsName, SiteState};
use x509_parser::{
    certification_request::X509CertificationRequest, extensions::GeneralName, extensions::ParsedExtension,
    prelude::FromDer,
};

use crate::{
    fault_proxy::FaultProxy,
    platform::{Authority, Platform},
    postgres::Server,
    process::{Process, free_address, program, run},
    twin_ca::{Terms, TwinCa},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_certmans_issue_each_good_name_once_whatever_fails_and_say_why_others_get_none() {
    let count: usize = env::var("CERTSEAL_STORM_ORDERS").map_or(40, |count| count.parse().unwrap());
    // A bucket that many orders find full, and the others as Let's Encrypt has them, but for the domain of all.
    let limits = [(LimitName::NewOrders, limit(20, 300, 60)), (LimitName::CertificatesPerDomain, limit(10_000, 1, 60))];
    let scenario = Scenario { overrides: limits.into(), ..Scenario::default() };
    let twin =
        TwinCa::start(Terms { limits: TwinLimits::of(&scenario).unwrap(), nonces_refused: 30, ..Terms::default() });
    let proxy = FaultProxy::before(twin.origin(), free_address()).await;
    twin.speak_of(proxy.address);
    let directory = proxy.directory();
    let authority = Authority::Acme { directory: &directory, roots: &twin.tls_root };
    let mut platform = Platform::start_with_http(authority, twin.http).await;
    platform.configure_authority(
        "limits = \"letsencrypt\"\noverrides = { new_orders = { burst = 20, count = 300, period_seconds = 60 }, \
         certificates_per_domain = { burst = 10000, count = 1, period_seconds = 60 } }",
    );
    let database = Server::shared().database();
    // A rejected order is tried again at once, until it is a dead letter.
    platform.edit_certman(|text| text.replace("retry_seconds = 1", "retry_seconds = 0"));
    platform.configure_certman(&format!("postgres = {{ url = \"{}\" }}\nworkers = 4", database.url()));
    let key = platform.dir.path().join("certman/acme-account.key");
    platform.configure_authority(&format!("account_key = \"{}\"", key.display()));
    let certman = platform.certman_as("platform");
    // The account is there before there are two.
    let first: DnsName = "first.customers.test".parse().unwrap();
    platform.add_site(&first).await;
    platform.wait_active(&first, 1).await;
    let mut other = Other::start(&platform);

    proxy.storm(8);
    let name = |n: usize| format!("{}-{n}.customers.test", if n % 10 == 3 { "broken" } else { "shop" });
    let names: Vec<DnsName> = (0..count).map(|n| name(n).parse().unwrap()).collect();
    let is_broken = |name: &DnsName| name.as_str().starts_with("broken");
    for name in &names {
        if is_broken(name) {
            twin.break_dns(name.as_str(), true);
        }
        certman.put_site(name, &platform.request(name)).await.unwrap();
    }
    let began = Instant::now();
    let patience = Duration::from_secs(60 + 2 * count as u64);
    let mut kills = 0;
    while let Some((good, dead)) = unfinished(&certman, &names, is_broken).await {
        if began.elapsed() > patience {
            for name in &names {
                let order = certman.order(name).await.unwrap();
                println!("{order:?}");
            }
            panic!("{good} good names and {dead} dead letters are missing\n{}", platform.certman.log());
        }
        // Its sites wait until its leases are over; then they are this one's.
        if kills < 3 + count as u64 / 50 && began.elapsed() > Duration::from_secs(4 * kills) {
            kills += 1;
            other.process.kill();
            other = Other::start(&platform);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    proxy.storm(0);
    let mut issued = BTreeMap::<String, u32>::new();
    for csr in proxy.taken_csrs() {
        *issued.entry(name_in(&csr)).or_default() += 1;
    }
    let twice: Vec<_> = issued.iter().filter(|(_, times)| **times > 1).collect();
    let logs = || platform.certman.log() + &other.process.log();
    assert!(twice.is_empty(), "issued more than once: {twice:?}\n{}", logs());
    assert_eq!(issued.len(), 1 + names.iter().filter(|name| !is_broken(name)).count());
    for name in names.iter().filter(|name| is_broken(name)) {
        let order = certman.order(name).await.unwrap().unwrap();
        let said = order.diagnosis.unwrap_or_default();
        assert!(said.contains("could not resolve") && said.contains(name.as_str()), "{name}: {said}");
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while !proxy.pending().is_empty() {
        assert!(Instant::now() < deadline, "pending at the CA still: {:?}", proxy.pending());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let seconds = began.elapsed().as_secs();
    println!("{count} orders in {seconds} s, {kills} kills, faults: {:?}", proxy.faults());
    assert_eq!(twin.refused(), BTreeMap::new(), "a limit of the CA was met\n{}", logs());

    // A dead letter is tried again when somebody asks for it, and gets its certificate once the cause is gone.
    let broken = names.iter().find(|name| is_broken(name)).unwrap();
    let page = platform.certctl(&["order", "list"]).stdout;
    assert!(String::from_utf8(page).unwrap().contains(broken.as_str()));
    twin.break_dns(broken.as_str(), false);
    assert!(platform.certctl(&["order", "retry", broken.as_str()]).status.success());
    platform.wait_active(broken, 1).await;

    // One that is frozen goes on after its sites were taken from it, and does nothing to them.
    let signal = |signal: &str| run(Command::new("kill").args([signal, &other.process.id().to_string()]));
    signal("-STOP");
    let late: Vec<DnsName> = (0..8).map(|n| format!("late-{n}.customers.test").parse().unwrap()).collect();
    for name in &late {
        certman.put_site(name, &platform.request(name)).await.unwrap();
    }
    for name in &late {
        platform.wait_active(name, 1).await;
    }
    signal("-CONT");
    tokio::time::sleep(Duration::from_secs(2)).await;
    for name in &late {
        assert_eq!(platform.wait_active(name, 1).await.version, 1);
    }
    let of_late = proxy.taken_csrs().iter().filter(|csr| name_in(csr).starts_with("late")).count();
    assert_eq!(of_late, late.len(), "each once");
}

fn limit(burst: u32, count: u32, period_seconds: u32) -> Override {
    Override { burst, count, period_seconds }
}

/// How many good names have no certificate yet, and how many broken ones are no dead letters; none when all is done.
async fn unfinished(
    certman: &CertmanClient,
    names: &[DnsName],
    is_broken: impl Fn(&DnsName) -> bool,
) -> Option<(usize, usize)> {
    let (mut good, mut dead, mut after) = (0, 0, None);
    loop {
        let page = certman.sites(after.as_ref()).await.unwrap();
        good += page.sites.iter().filter(|site| site.state == SiteState::Active && site.version > 0).count();
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    after = None;
    loop {
        let page = certman.orders("dead-letter", after.as_ref()).await.unwrap();
        dead += page.orders.len();
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let broken = names.iter().filter(|name| is_broken(name)).count();
    let missing = (names.len() + 1 - broken - good.min(names.len() + 1 - broken), broken.saturating_sub(dead));
    (missing != (0, 0)).then_some(missing)
}

/// The name in a CSR.
fn name_in(csr: &str) -> String {
    let der = URL_SAFE_NO_PAD.decode(csr).unwrap();
    let (_, csr) = X509CertificationRequest::from_der(&der).unwrap();
    let names = csr.requested_extensions().unwrap().find_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => names.general_names.first(),
        _ => None,
    });
    let Some(GeneralName::DNSName(name)) = names else { panic!("a CSR without a name") };
    (*name).to_owned()
}

/// A second certman over the same journal.
struct Other {
    process: Process,
}

impl Other {
    fn start(platform: &Platform) -> Self {
        let dir = platform.dir.path();
        let (own, telemetry) = (free_address(), free_address());
        let text = fs::read_to_string(dir.join("certman.toml")).unwrap();
        let text = text
            .replace(&platform.addresses["man"].to_string(), &own.to_string())
            .replace(&platform.addresses["man-telemetry"].to_string(), &telemetry.to_string());
        let config = dir.join("certman-b.toml");
        fs::write(&config, text).unwrap();
        let command = &mut Command::new(program("certman"));
        let mut process = Process::start(command.arg("--config").arg(config), &dir.join("certman-b.log"));
        process.wait_for(own);
        Self { process }
    }
}
