//! The all-in-one program.

use std::{process::Command, time::Duration};

use serde_json::json;

use crate::process::{Process, free_address, program};

#[test]
fn once_verifies_every_site_and_prints_one_json_object() {
    let output = Command::new(program("certseal")).args(["--sites", "5", "--once", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for field in ["sites", "active", "verified"] {
        assert_eq!(report[field], 5, "{field}");
    }
    assert_eq!(report["failures"], json!([]));
    let finding = &report["not_ready"][0]["findings"][0];
    assert_eq!(report["not_ready"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!((&report["not_ready"][0]["name"], &finding["code"]), (&json!(BROKEN), &json!("wrong-address")));
    let edits: Vec<_> =
        finding["edits"].as_array().unwrap().iter().map(|it| [&it["edit"], &it["kind"], &it["value"]]).collect();
    assert_eq!(edits, [["remove", "A", "192.0.2.80"], ["add", "CNAME", "edge.platform.example."]]);
    for phase in ["start", "issue", "verify"] {
        assert!(report["seconds"][phase].is_f64(), "{phase}");
    }
}

#[test]
fn a_domain_whose_dns_is_wrong_is_shown_beside_the_sites_with_the_record_to_paste() {
    let output = Command::new(program("certseal")).args(["--sites", "2", "--once"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |site: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.contains('┆') && line.contains(site));
        let line = line.unwrap_or_else(|| panic!("no row of {site}: {text}"));
        line.trim_matches('│').split('┆').map(|cell| cell.trim().to_owned()).collect()
    };
    for site in ["site-001.demo.example.com", "site-002.demo.example.com"] {
        assert_eq!(row(site)[..3], [site, "active", "ready"], "{text}");
    }
    assert_eq!(row(BROKEN), [BROKEN, "waiting", "not ready", "", ""], "{text}");
    let diagnosis = "
broken.demo.example.com is not ready, so that no certificate is ordered for it:
  wrong-address: it leads to 192.0.2.80: expected a CNAME to edge.platform.example
    remove broken.demo.example.com. 3600 IN A 192.0.2.80
    add broken.demo.example.com. 3600 IN CNAME edge.platform.example.

2 of 2 sites are served over HTTPS";
    assert!(text.contains(diagnosis), "{text}");
}

#[test]
fn a_suffix_that_is_not_public_is_said_to_be_none_at_once() {
    let mut command = Command::new(program("certseal"));
    let output = command.args(["--sites", "1", "--suffix", "demo.test", "--once", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let failure = &report["failures"][0];
    assert_eq!(failure["site"], "site-001.demo.test");
    assert!(failure["error"].as_str().unwrap().contains("does not end in a public suffix"), "{report}");
}

#[test]
fn the_printed_curl_line_works_as_pasted_and_sigint_stops_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mut command = Command::new(program("certseal"));
    command.args(["--sites", "2"]).env("TMPDIR", &scratch);
    let mut certseal = Process::start(&mut command, &dir.path().join("log"));
    let line = loop {
        let log = certseal.log();
        if let Some(line) = log.lines().find(|line| line.trim_start().starts_with("curl ")) {
            break line.to_owned();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let output = Command::new("sh").args(["-c", &line]).env("NO_PROXY", "*").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "hello from site-001.demo.example.com over https\n",
        "{output:?}"
    );
    certseal.signal("INT");
    assert!(certseal.wait(Duration::from_secs(20)).success(), "{}", certseal.log());
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "the temporary directory was left behind");
}

#[test]
fn once_exits_1_when_a_site_is_not_served() {
    let nobody = free_address();
    let roots = tempfile::NamedTempFile::new().unwrap();
    let certificate = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap().cert.pem();
    std::fs::write(roots.path(), certificate).unwrap();
    let output = Command::new(program("certseal"))
        .args(["--sites", "1", "--once", "--json", "--patience", "2", "--acme", &format!("https://{nobody}/dir")])
        .args(["--acme-root", roots.path().to_str().unwrap(), "--site-root", roots.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = report["failures"][0]["error"].as_str().unwrap();
    assert!(error.contains("the CA"), "{error}");
}

/// The domain of the demo whose DNS is wrong.
const BROKEN: &str = "broken.demo.example.com";
