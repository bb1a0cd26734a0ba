//! The all-in-one program.

use std::{process::Command, time::Duration};

use crate::process::{Process, free_address, program};

#[test]
fn once_verifies_every_site_and_prints_one_json_object() {
    let output = Command::new(program("certseal")).args(["--sites", "5", "--once", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for field in ["sites", "active", "verified"] {
        assert_eq!(report[field], 5, "{field}");
    }
    assert_eq!(report["failures"], serde_json::json!([]));
    for phase in ["start", "issue", "verify"] {
        assert!(report["seconds"][phase].is_f64(), "{phase}");
    }
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
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello from site-001.demo.test over https\n", "{output:?}");
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
