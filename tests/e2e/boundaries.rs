//! Promise 1: certstore and certman contain no code that opens envelopes.

use std::{fs, path::Path, process::Command};

use crate::process::run;

const OPENING: &str = "certseal-unseal";

#[test]
fn certstore_and_certman_do_not_contain_the_code_that_opens_envelopes() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    for package in ["certstore", "certman"] {
        assert!(!tree(workspace, package).contains(OPENING), "{package} depends on {OPENING}");
    }
    // The edge does: the check finds what it looks for.
    assert!(tree(workspace, "certedge").contains(OPENING));
}

#[test]
fn the_check_fails_when_the_dependency_is_added() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    for package in ["certstore", "certman"] {
        let copy = tempfile::tempdir().unwrap();
        copy_workspace(workspace, copy.path());
        assert!(!tree(copy.path(), package).contains(OPENING), "the copy differs from the original");
        let manifest = copy.path().join("crates").join(package).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let line = format!("[dependencies]\n{OPENING}.workspace = true\n");
        fs::write(&manifest, text.replacen("[dependencies]\n", &line, 1)).unwrap();
        assert!(tree(copy.path(), package).contains(OPENING), "the added dependency went unseen");
    }
}

fn tree(workspace: &Path, package: &str) -> String {
    let output = run(Command::new(env!("CARGO"))
        .args([
            "tree", "--offline", "--edges", "normal,build", "--all-features", "--prefix", "none", "--package", package,
        ])
        .current_dir(workspace));
    String::from_utf8(output.stdout).unwrap()
}

fn copy_workspace(from: &Path, to: &Path) {
    let files =
        run(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(from));
    for file in String::from_utf8(files.stdout).unwrap().lines().filter(|file| from.join(file).is_file()) {
        let target = to.join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(file), target).unwrap();
    }
}
