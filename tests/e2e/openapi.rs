//! certstore's interface against its own description, by schemathesis, which nobody here wrote.
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
    let examples = std::env::var("CERTSEAL_API_EXAMPLES").unwrap_or_else(|_| "8".to_owned());
    let url = format!("https://{}", platform.addresses["store"]);
    // Fuzzing leaves out the feed, where it finds out above all how long it can be made to wait.
    let (given, made_up) = ("examples,coverage", "fuzzing");
    for (identity, phases) in [
        ("admin", given),
        ("certman", given),
        ("admin", made_up),
        ("certman", made_up),
        ("edge-eu", made_up),
        ("platform", made_up),
    ] {
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/python/bin/schemathesis"))
            .args(["run", &format!("{url}/v1/openapi.json")])
            .args(["--checks", CHECKS, "--phases", phases, "--max-examples", &examples])
            .args(["--generation-deterministic", "--continue-on-failure", "--no-color", "--warnings", "off"])
            .args(if phases == made_up { ["--exclude-path", "/v1/feed"].as_slice() } else { &[] })
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
    // It is still there, and what it had is unharmed.
    assert!(platform.store_as("admin").bundle(&name).await.unwrap().is_some());
    assert!(!platform.certstore.log().contains("panicked"), "{}", platform.certstore.log());
}

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      unsupported_method";
