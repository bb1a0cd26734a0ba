//! dns-persist-01: names with one record in the DNS get and renew certificates, and nobody writes into the DNS again.
//!
//! The normal run has 10 sites with a wildcard; `CERTSEAL_PERSIST_SITES=1000` has as many as it says.

use std::time::{Duration, Instant};

use certseal_wire::{DnsName, NameSet, Renewal, SiteChange, SiteChanges, Wanted};
use serde_json::Value;

use crate::{
    pebble::Pebble,
    platform::{Authority, Platform},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wildcards_with_a_record_that_stays_are_renewed_with_no_further_write() {
    let count: usize = std::env::var("CERTSEAL_PERSIST_SITES").map_or(10, |count| count.parse().unwrap());
    let names: Vec<DnsName> =
        (0..count).map(|number| format!("shop-{number}.customers.test").parse().unwrap()).collect();
    let pebble = Pebble::start(0);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    // Nothing can write into the DNS: there is no [dns.challenges]. And nobody answers over HTTP.
    let mut platform = Platform::start(authority).await;
    platform.configure_authority("challenges = [\"dns-persist-01\"]");
    // Pebble 2.10 stops answering for good when an authorization is read while two orders are made: it holds the authorization
    // while it asks its store who reads, and its store while it looks at all authorizations.
    platform.edit_certman(|config| format!("workers = 1\n{config}"));
    let certman = platform.certman_as("platform");
    let put = |name: &DnsName| {
        let mut request = platform.request(name);
        let wildcard = format!("*.{name}").parse().unwrap();
        request.names = NameSet::try_from(vec![name.clone(), wildcard]).unwrap();
        SiteChange { site: name.clone(), change: Wanted::Put(request) }
    };

    // Without the record the CA refuses, and says why.
    let first: SiteChanges = names[..1].iter().map(put).collect();
    certman.change_sites(&first, "first").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = certman.site(&names[0]).await.unwrap().unwrap();
        match status.order.filter(|order| order.rejections > 0) {
            Some(order) => break assert!(order.diagnosis.unwrap().contains(names[0].as_str())),
            None => assert!(Instant::now() < deadline, "the CA does not refuse"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let account = account(&platform);
    for name in &names {
        let value = format!("pebble.letsencrypt.org; accounturi={account}; policy=wildcard");
        pebble.set_text(&format!("_validation-persist.{name}"), &value);
    }
    let began = Instant::now();
    let all: SiteChanges = names.iter().map(put).collect();
    certman.change_sites(&all, "all").await.unwrap();
    certman.retry_order(&names[0]).await.unwrap();
    for version in 1..=3 {
        for name in &names {
            platform.wait_active(name, version).await;
        }
        println!("{count} wildcards, round {version}, after {:.1?}", began.elapsed());
        if version < 3 {
            // Certificates of the same second are the same in the eyes of who counts by validity.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            for name in &names {
                certman.renew(name, &Renewal::default()).await.unwrap();
            }
        }
    }
    let certificate = platform.bundle(&names[0]).await;
    assert!(!certificate.chain().is_empty());
    // Neither was anything put where edges look for answers.
    let asked = platform.store_as("admin").challenge(&names[0], "tls-alpn-01").await;
    assert!(matches!(asked, Ok(None)), "{asked:?}");
}

/// The URL of the account, as certman logs it.
fn account(platform: &Platform) -> String {
    let log = platform.certman.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut accounts = lines.filter_map(|line| Some(line["fields"]["account"].as_str()?.to_owned()));
    accounts.next_back().expect("certman has no account")
}
