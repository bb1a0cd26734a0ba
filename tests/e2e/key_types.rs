//! A site with certificates of both key types: each client gets the one that it can use.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use certseal_wire::{ChangeKind, DnsName, KeyType, SiteChange, SiteChanges, SiteRequest, Wanted};

use crate::{
    pebble::Pebble,
    platform::{Authority, Platform},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_today_get_ecdsa_and_clients_that_know_only_rsa_get_rsa() {
    let pebble = Pebble::start(0);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let certman = platform.certman_as("platform");
    let name: DnsName = "shop.customers.test".parse().unwrap();
    let companion = name.companion().unwrap();
    let both = SiteRequest { key_type: KeyType::Both, ..platform.request(&name) };
    certman.put_site(&name, &both).await.unwrap();
    platform.wait_active(&name, 1).await;
    let status = platform.wait_active(&companion, 1).await;
    assert_eq!((status.key_type, status.companion_of), (KeyType::Rsa2048, Some(name.clone())));

    let root = pebble.issuing_root();
    let signature = |arguments: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-brief", "-verify_return_error", "-connect"]);
        openssl.arg(platform.addresses["https"].to_string()).args(["-servername", name.as_str(), "-CAfile"]).arg(&root);
        let done = openssl.args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let found = said
            .lines()
            .find_map(|line| line.strip_prefix("Signature type: ").or(line.strip_prefix("Peer signature type: ")));
        found.unwrap_or(&said).to_owned()
    };
    let rsa = ["-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"];
    let until_served = async |expected: [&str; 2]| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while [signature(&[]), signature(&rsa)] != expected {
            assert!(Instant::now() < deadline, "{} and {}", signature(&[]), signature(&rsa));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    until_served(["ECDSA", "RSA-PSS"]).await;
    assert_eq!(signature(&["-tls1_2"]), "ECDSA");
    assert_eq!(signature(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]), "ECDSA");
    let suite = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"];
    assert!(signature(&suite).starts_with("RSA"), "{}", signature(&suite));

    // Either is renewed without the other.
    certman.renew(&companion, &Default::default()).await.unwrap();
    platform.wait_active(&companion, 2).await;
    assert_eq!(certman.site(&name).await.unwrap().unwrap().version, 1);

    // The companion is the site's, and nobody changes it alone.
    let refused = certman.put_site(&companion, &platform.request(&companion)).await.unwrap_err().to_string();
    assert!(refused.contains("follows it: change shop.customers.test"), "{refused}");
    let refused = certman.remove_site(&companion).await.unwrap_err().to_string();
    assert!(refused.contains("leaves with it"), "{refused}");
    let removal: SiteChanges = [SiteChange { site: companion.clone(), change: Wanted::Remove }].into_iter().collect();
    let report = certman.change_sites(&removal, "removal").await.unwrap();
    assert_eq!(report.results[0].result, ChangeKind::Refused);
    certman.put_site(&name, &platform.request(&name)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while signature(&rsa) == "RSA-PSS" {
        assert!(Instant::now() < deadline, "the RSA certificate is served after it left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(signature(&[]), "ECDSA");
    assert!(certman.site(&companion).await.unwrap().is_none());
}
