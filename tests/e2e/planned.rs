//! A schedule that was simulated, and the same one run: certman against the same CA, over ACME.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use certseal_issuance::budget::LimitName;
use certseal_planner::{Happened, Override, Scenario, TwinLimits, observe};
use certseal_wire::DnsName;

use crate::{
    platform::{Authority, Platform},
    twin_ca::{Terms, TwinCa},
};

/// Sites that come all at once, to a CA that has room for a few and then for one a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_runs_as_it_was_simulated() {
    let new_orders = Override { burst: 10, count: 1, period_seconds: 1 };
    let scenario = Scenario {
        sites: 24,
        days: 1,
        broken: 0.2,
        limits: "letsencrypt".into(),
        overrides: [(LimitName::NewOrders, new_orders)].into(),
        ..Scenario::default()
    };
    let mut simulated = Vec::new();
    observe(&scenario, |_| {}, |event| simulated.push(event)).unwrap();
    // Before the first broken one is tried again.
    simulated.retain(|event| event.at < 60_000);
    let sites = |happened: Happened| simulated.iter().filter(move |event| event.happened == happened);
    let ordered: Vec<DnsName> = sites(Happened::Ordered).map(|event| name(event.site)).collect();
    assert_eq!(ordered.len(), scenario.sites as usize, "{simulated:?}");

    let limits = TwinLimits::of(&scenario).unwrap();
    let twin = TwinCa::start(Terms { limits, ..Terms::default() });
    for event in sites(Happened::Failed) {
        twin.break_dns(name(event.site).as_str(), true);
    }
    let directory = twin.directory();
    let authority = Authority::Acme { directory: &directory, roots: &twin.tls_root };
    let mut platform = Platform::start_with_http(authority, twin.http).await;
    platform.configure_certman("workers = 1");
    platform.edit_certman(|text| text.replace("retry_seconds = 1", "retry_seconds = 60"));
    platform.configure_authority(
        "limits = \"letsencrypt\"\noverrides = { new_orders = { burst = 10, count = 1, period_seconds = 1 } }",
    );
    let certman = platform.certman_as("platform");
    let began = Instant::now();
    for site in 0..scenario.sites {
        certman.put_site(&name(site), &platform.request(&name(site))).await.unwrap();
    }
    let counts = |events: &mut dyn Iterator<Item = &'static str>| {
        let mut counts = BTreeMap::<&str, usize>::new();
        events.for_each(|event| *counts.entry(event).or_default() += 1);
        counts
    };
    let expected = counts(&mut simulated.iter().map(|event| match event.happened {
        Happened::Ordered => "order",
        Happened::Issued => "issued",
        Happened::Failed => "failed",
    }));
    while counts(&mut twin.log().iter().map(|(_, _, happened)| *happened)) != expected {
        assert!(began.elapsed() < Duration::from_secs(50), "expected {expected:?}, came {:?}", twin.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = twin.log();
    let ran: Vec<DnsName> =
        log.iter().filter(|(.., it)| *it == "order").map(|(_, name, _)| name.parse().unwrap()).collect();
    assert_eq!(ran, ordered, "the order of orders");
    assert_eq!(twin.refused(), BTreeMap::new());
}

fn name(site: u32) -> DnsName {
    format!("www.shop-{site}.test").parse().unwrap()
}
