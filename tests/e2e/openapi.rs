//! The interfaces of certstore and certman against their own descriptions, by schemathesis, which nobody here wrote.
//!
//! The normal run takes a few examples of each operation; `CERTSEAL_API_EXAMPLES=200` takes as many as it says.

use std::process::Command;

use certseal_wire::DnsName;

use crate::platform::{Authority, Platform};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_interface_keeps_to_its_description_whatever_comes_and_whoever_calls() {
    let mut platform = Platform::start(Authority::Local).await;
    let name: DnsName = "shop.example.com".parse().unwrap();
    platform.add_site(&name).await;
    platform.wait_active(&name, 1).await;
    // Nobody else writes meanwhile.
    platform.certman.kill();
    platform.edge.kill();
    let url = format!("https://{}", platform.addresses["store"]);
    // Fuzzing leaves out the feed, where it finds out above all how long it can be made to wait.
    let (all, without_feed): (&[&str], &[&str]) = (&[], &["/v1/feed"]);
    for (identity, phases, excluded) in [
        ("admin", GIVEN, all),
        ("certman", GIVEN, all),
        ("admin", MADE_UP, without_feed),
        ("certman", MADE_UP, without_feed),
        ("edge-eu", MADE_UP, without_feed),
        ("platform", MADE_UP, without_feed),
    ] {
        keeps_to_its_description(&platform, &url, identity, phases, excluded);
    }
    // It is still there, and what it had is unharmed.
    assert!(platform.store_as("admin").bundle(&name).await.unwrap().is_some());
    assert!(!platform.certstore.log().contains("panicked"), "{}", platform.certstore.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certmans_interface_keeps_to_its_description_whatever_comes_and_whoever_calls() {
    let platform = Platform::start(Authority::Local).await;
    let name: DnsName = "shop.example.com".parse().unwrap();
    platform.add_site(&name).await;
    let before = platform.wait_active(&name, 1).await;
    let url = format!("https://{}", platform.addresses["man"]);
    // An edge has nothing to do here while there are no sites on demand, and changes nothing.
    keeps_to_its_description(&platform, &url, "edge-eu", MADE_UP, &[]);
    assert!(platform.certman_as("edge-eu").sites(None).await.is_err());
    assert_eq!(platform.certman_as("platform").sites(None).await.unwrap().sites, [before]);
    for (identity, phases) in [("platform", GIVEN), ("admin", GIVEN), ("platform", MADE_UP), ("admin", MADE_UP)] {
        keeps_to_its_description(&platform, &url, identity, phases, &[]);
    }
    // It is still there. What it has may be anything by now: both may remove sites.
    platform.certman_as("platform").sites(None).await.unwrap();
    assert!(!platform.certman.log().contains("panicked"), "{}", platform.certman.log());
}

/// Has schemathesis call all operations that are described at `url` but those with the `excluded` paths, as one of the
/// identities in the PKI.
fn keeps_to_its_description(platform: &Platform, url: &str, identity: &str, phases: &str, excluded: &[&str]) {
    let examples = std::env::var("CERTSEAL_API_EXAMPLES").unwrap_or_else(|_| "8".to_owned());
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/python/bin/schemathesis"))
        .args(["run", &format!("{url}/v1/openapi.json")])
        .args(["--checks", CHECKS, "--phases", phases, "--max-examples", &examples])
        .args(["--generation-deterministic", "--continue-on-failure", "--no-color", "--warnings", "off"])
        .args(excluded.iter().flat_map(|path| ["--exclude-path", *path]))
        .arg("--tls-verify")
        .arg(platform.pki("ca.pem"))
        .arg("--request-cert")
        .arg(platform.pki(&format!("{identity}.pem")))
        .arg("--request-cert-key")
        .arg(platform.pki(&format!("{identity}.key")))
        .current_dir(platform.dir.path())
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{identity}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(" generated"), "nothing was tested: {text}");
    if let Some(line) = text.lines().find(|line| line.contains(" generated")) {
        println!("{identity}: {}", line.trim());
    }
}

const GIVEN: &str = "examples,coverage";
const MADE_UP: &str = "fuzzing";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      unsupported_method";
