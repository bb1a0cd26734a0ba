//! An edge says so when its secrets may be swapped out. Run as root: the superuser is not bound by the limit, so the edge
//! runs as another user.

#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command};

const WARNING: &str = "memory for secrets could not be locked";

#[test]
fn an_edge_that_may_not_lock_memory_warns_once() {
    assert_eq!(log_with_limit("0").matches(WARNING).count(), 1);
    assert_eq!(log_with_limit("1024").matches(WARNING).count(), 0);
}

/// The log of an edge that may lock so many kibibytes. The configuration is complete, but its files are not there.
fn log_with_limit(kibibytes: &str) -> String {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/certedge.toml");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "sh", "-c"])
        .args(["ulimit -l \"$0\" && exec \"$@\"", kibibytes, env!("CARGO_BIN_EXE_certedge"), "--config"])
        .arg(config)
        .output()
        .unwrap();
    let log = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(log.contains("unseal-keys"), "{log}");
    log
}
