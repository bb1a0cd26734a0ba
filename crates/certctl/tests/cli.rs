//! The program as people and scripts meet it: exit codes, JSON, and what goes to which stream.

#![allow(clippy::unwrap_used)]

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

#[test]
fn init_lists_what_it_made() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("pki");
    let ran = certctl(&["pki", "init", "--pool", "eu", "--json", "--dir"], Some(&dir));
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let made: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert!(made.as_array().unwrap().iter().any(|file| file["path"] == dir.join("edge-eu.key").to_str().unwrap()));

    let ran = certctl(&["pki", "issue", "--role", "edge/eu", "--name", "edge-2", "--dir"], Some(&dir));
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let table = String::from_utf8(ran.stdout).unwrap();
    assert!(table.contains("spiffe://certseal.internal/edge/eu/edge-2") && table.contains("secret"), "{table}");

    let ran = certctl(&["pki", "init", "--json", "--dir"], Some(&dir));
    assert_eq!((ran.status.code(), ran.stdout.len()), (Some(1), 0), "{ran:?}");
    assert!(error(&ran)["message"].as_str().unwrap().contains("choose another directory"));
}

#[test]
fn an_incomplete_command_line_is_a_usage_error() {
    for args in [["site", "status"].as_slice(), &["site", "list"], &["site", "status", "not a name"], &["nonsense"]] {
        assert_eq!(certctl(args, None).status.code(), Some(2), "{args:?}");
        let ran = certctl(&[args, &["--json"]].concat(), None);
        assert_eq!(ran.status.code(), Some(2), "{args:?}");
        assert!(error(&ran)["message"].is_string());
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let ran = certctl(&["--help"], None);
    assert_eq!(ran.status.code(), Some(0));
    assert!(String::from_utf8(ran.stdout).unwrap().contains("Exit codes:"));
}

#[test]
fn a_daemon_that_is_not_there_is_worth_another_try() {
    let dir = tempfile::tempdir().unwrap();
    certseal_ceremonies::pki::init(dir.path(), &Default::default()).unwrap();
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = format!(
        "store = \"https://127.0.0.1:{port}\"\ncertman = \"https://127.0.0.1:{port}\"\nca = \"ca.pem\"\n\
         cert = \"admin.pem\"\nkey = \"admin.key\"\n"
    );
    let config = dir.path().join("certctl.toml");
    std::fs::write(&config, settings).unwrap();
    for args in [["keys", "list"].as_slice(), &["site", "list"], &["bundle", "show", "a.example"]] {
        let ran = certctl(&[args, &["--json", "--config"]].concat(), Some(&config));
        assert_eq!(ran.status.code(), Some(3), "{ran:?}");
        assert!(error(&ran)["message"].as_str().unwrap().contains("cannot reach"), "{ran:?}");
    }
}

fn certctl(args: &[&str], last: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_certctl"));
    // The person who runs the tests may have set these.
    for name in ["STORE", "CERTMAN", "CA", "CERT", "KEY", "SECURITY_PUBLIC", "CONFIG"] {
        command.env_remove(format!("CERTCTL_{name}"));
    }
    command.args(args).args(last).output().unwrap()
}

fn error(ran: &Output) -> Value {
    serde_json::from_slice::<Value>(&ran.stderr).unwrap()["error"].clone()
}
