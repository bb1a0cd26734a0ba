//! The gate as a program: that it notices a slowdown, and that it does not pass what it could not measure.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

#[test]
#[ignore = "builds in release and needs valgrind: cargo test -p certseal-gate -- --ignored"]
fn an_operation_made_slower_on_purpose_fails_the_gate() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("gate.json");
    let quick = ["--quick", "--out", report.to_str().unwrap()];
    // The control: as it is, it passes.
    let output = gate(&quick, None);
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    for slow in ["open-p256", "resolve-warm"] {
        let output = gate(&quick, Some(slow));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let table = String::from_utf8(output.stdout).unwrap();
        let failed: Vec<_> = table.lines().filter(|line| line.contains("FAIL")).collect();
        assert!(matches!(failed[..], [line] if line.contains(&format!("instructions: {slow} "))), "{table}");
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        assert_eq!(report["passed"], false);
    }
}

#[test]
fn what_is_asked_wrongly_is_no_pass_and_no_miss() {
    for wrong in [&["--quik"][..], &["--quick", "--bless"], &["--out"]] {
        assert_eq!(gate(wrong, None).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn what_cannot_be_measured_is_no_pass_and_no_miss() {
    let output = Command::new(env!("CARGO_BIN_EXE_gate")).arg("--quick").env("CARGO", "false").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

fn gate(arguments: &[&str], slow: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gate"));
    command.args(arguments).env_remove("CERTSEAL_DELIBERATE_SLOWDOWN");
    command.envs(slow.map(|slow| ("CERTSEAL_DELIBERATE_SLOWDOWN", slow))).output().unwrap()
}
