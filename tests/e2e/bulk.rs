//! Many sites in one call: a report for each, nothing done twice.
//!
//! The normal run has 1,000 sites; `CERTSEAL_BULK_SITES=10000` has as many as it says.

use std::{collections::BTreeMap, fmt::Write, time::Instant};

use certseal_client::ClientError;
use certseal_wire::{ChangeKind, ChangesReport, DnsName, ProblemKind, SiteChange, SiteChanges, Upstream, Wanted};
use serde_json::Value;

use crate::platform::{Authority, POOL, Platform};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sites_come_in_one_call_and_the_same_call_again_changes_nothing() {
    let count = std::env::var("CERTSEAL_BULK_SITES").map_or(1000, |count| count.parse().unwrap());
    let platform = Platform::start(Authority::Local).await;
    let certman = platform.certman_as("platform");
    let names: Vec<DnsName> = (0..count).map(|number| format!("shop-{number}.example.com").parse().unwrap()).collect();
    let put = |site: &DnsName| SiteChange { site: site.clone(), change: Wanted::Put(platform.request(site)) };
    let all: SiteChanges = names.iter().map(put).collect();

    let began = Instant::now();
    let report = certman.change_sites(&all, "first").await.unwrap();
    let first = began.elapsed();
    assert_eq!(counts(&report), [(ChangeKind::Created, count)].into());
    assert!(report.results.iter().zip(&names).all(|(result, name)| result.site.as_ref() == Some(name)));
    let began = Instant::now();
    let again = certman.change_sites(&all, "second").await.unwrap();
    println!("{count} sites in one call: {first:.2?}, the same again {:.2?}", began.elapsed());
    assert_eq!(counts(&again), [(ChangeKind::Unchanged, count)].into());

    // A call that is repeated with its key has its answer, and puts nothing back.
    let elsewhere: Upstream = "http://127.0.0.1:9".parse().unwrap();
    let mut moved = platform.request(&names[7]);
    moved.upstream = elsewhere.clone();
    certman.put_site(&names[7], &moved).await.unwrap();
    assert_eq!(certman.change_sites(&all, "first").await.unwrap(), report);
    assert_eq!(certman.site(&names[7]).await.unwrap().unwrap().upstream, elsewhere);
    let one: SiteChanges = [put(&names[7])].into_iter().collect();
    match certman.change_sites(&one, "first").await {
        Err(ClientError::Refused(problem)) => assert_eq!(problem.kind, ProblemKind::Conflict),
        other => panic!("another call with the same key: {other:?}"),
    }
    // Another caller's key is another one.
    let by_admin = platform.certman_as("admin").change_sites(&one, "first").await.unwrap();
    assert_eq!(counts(&by_admin), [(ChangeKind::Changed, 1)].into());

    // What is wrong with one holds up no other.
    let unknown: DnsName = "unknown.example.com".parse().unwrap();
    let mut taken = platform.request(&unknown);
    taken.names = vec![unknown.clone(), names[1].clone()].try_into().unwrap();
    let mixed: SiteChanges = [
        SiteChange { site: names[0].clone(), change: Wanted::Remove },
        SiteChange { site: unknown.clone(), change: Wanted::Put(taken) },
        SiteChange { site: names[0].clone(), change: Wanted::Remove },
        put(&names[0]),
        put(&names[2]),
    ]
    .into_iter()
    .collect();
    let report = certman.change_sites(&mixed, "mixed").await.unwrap();
    let kinds: Vec<ChangeKind> = report.results.iter().map(|result| result.result).collect();
    use ChangeKind::{Absent, Created, Refused, Removed, Unchanged};
    assert_eq!(kinds, [Removed, Refused, Absent, Created, Unchanged]);
    let problem = report.results[1].problem.as_ref().unwrap();
    assert!(problem.detail.contains("leads to site shop-1.example.com already"), "{problem}");

    // The same by the command line.
    let mut list = "# of the new shop\n".to_owned();
    for number in 0..20 {
        writeln!(list, "{{\"site\":\"new-{number}.example.com\",\"names\":[\"www.new-{number}.example.com\"]}}")
            .unwrap();
    }
    writeln!(list, "{{\"site\":\"odd.example.com\",\"names\":[\"shop-3.example.com\"]}}").unwrap();
    let path = platform.pki("list.txt");
    std::fs::write(&path, list).unwrap();
    let import = || {
        let upstream = format!("http://{}", platform.upstream);
        let args = ["--json", "site", "import", path.to_str().unwrap(), "--upstream", &upstream, "--pool", POOL];
        let output = platform.certctl(&args);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let imported = import();
    assert_eq!(imported["counts"], serde_json::json!({ "created": 20, "refused": 1 }));
    assert!(imported["refused"]["odd.example.com"].as_str().unwrap().contains("shop-3.example.com"), "{imported}");
    assert_eq!(import()["counts"], serde_json::json!({ "unchanged": 20, "refused": 1 }));
}

fn counts(report: &ChangesReport) -> BTreeMap<ChangeKind, usize> {
    let mut counts = BTreeMap::new();
    report.results.iter().for_each(|result| *counts.entry(result.result).or_default() += 1);
    counts
}
