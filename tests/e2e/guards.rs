//! The guards of certstore's door: revocation without a restart, renewed certificates, bounded callers.

use std::{
    fs,
    time::{Duration, Instant},
};

use certseal_ceremonies::pki;
use certseal_wire::ProblemKind;

use crate::{
    bad_input::refused,
    platform::{Authority, Platform},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_identity_is_shut_out_without_a_restart_on_open_connections_too() {
    let mut platform = Platform::start(Authority::Local).await;
    let pki_dir = platform.pki("");
    pki::issue(&pki_dir, "edge/eu".parse().unwrap(), "edge-9", &[]).unwrap();
    pki::revoke(&pki_dir, &[]).unwrap();
    let config = platform.dir.path().join("certstore.toml");
    let text = fs::read_to_string(&config).unwrap();
    platform.certstore.kill();
    fs::write(&config, format!("{text}crl = \"{}\"\n", platform.pki("crl.pem").display())).unwrap();
    platform.restart_certstore();

    // One client for all calls: its connection is open all the time.
    let (thief, other) = (platform.store_as("edge-9"), platform.store_as("admin"));
    thief.ring().await.unwrap();
    pki::revoke(&pki_dir, &["edge-9".into()]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while thief.ring().await.is_ok() {
        assert!(Instant::now() < deadline, "{}", platform.certstore.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(platform.store_as("edge-9").ring().await.is_err(), "a new connection");
    other.ring().await.unwrap();

    // A list that cannot be read changes nothing.
    fs::write(platform.pki("crl.pem"), "no list").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(platform.store_as("edge-9").ring().await.is_err());
    other.ring().await.unwrap();
    assert!(platform.certstore.log().contains("the last good ones count"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let platform = Platform::start(Authority::Local).await;
    let served = || {
        let output = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &platform.addresses["store"].to_string()])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.split("-----").nth(2).map(str::to_owned)
    };
    let before = served().unwrap();
    let pki_dir = platform.pki("");
    // The same name: clients go by it.
    for kind in ["key", "pem"] {
        fs::rename(platform.pki(&format!("certstore.{kind}")), platform.pki(&format!("certstore-old.{kind}"))).unwrap();
    }
    pki::issue(&pki_dir, certseal_wire::Role::Service, "certstore", &[]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while served().unwrap() == before {
        assert!(Instant::now() < deadline, "{}", platform.certstore.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    platform.store_as("admin").ring().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_asks_too_often_is_told_to_slow_down_and_others_are_not() {
    let mut platform = Platform::start(Authority::Local).await;
    platform.configure_certstore("requests_per_second = 5\n");
    platform.configure_certman("requests_per_second = 5\n");
    let ask = |url: &str, identity: &str, times: &str| {
        let output = std::process::Command::new("curl")
            .args(["-s", "-i", "--noproxy", "*", "--cacert"])
            .arg(platform.pki("ca.pem"))
            .arg("--cert")
            .arg(platform.pki(&format!("{identity}.pem")))
            .arg("--key")
            .arg(platform.pki(&format!("{identity}.key")))
            .arg(format!("{url}[1-{times}].example"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).to_lowercase()
    };
    let ring = format!("https://{}/v1/ring?a=", platform.addresses["store"]);
    let sites = format!("https://{}/v1/sites?after=a", platform.addresses["man"]);
    for (url, identity) in [(ring, "edge-us"), (sites, "platform")] {
        let answers = ask(&url, identity, "40");
        assert!(answers.contains(" 200") && answers.contains(" 429"), "{answers}");
        assert!(answers.contains("retry-after: "), "{answers}");
        assert!(answers.contains("urn:certseal:busy"), "{answers}");
        assert!(!ask(&url, "admin", "3").contains(" 429"), "another caller has a rate of its own");
    }

    // A request that it may not make is refused as before.
    let admin = platform.store_as("admin");
    let ring = admin.ring().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    refused(platform.store_as("edge-us").put_ring(&ring).await, ProblemKind::Forbidden, "needs role admin");
}
