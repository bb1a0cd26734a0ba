//! Promise 1: certstore and certman contain no code that opens envelopes. Nor does what makes and checks backups.

use std::{fs, path::Path, process::Command};

use crate::process::run;

const OPENING: &str = "certseal-unseal";

/// The packages that must not contain it, each with its folder.
const SEALED_OFF: [(&str, &str); 3] =
    [("certstore", "crates/certstore"), ("certman", "crates/certman"), ("certseal-archive", "crates/archive")];

#[test]
fn certstore_certman_and_the_archive_do_not_contain_the_code_that_opens_envelopes() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (package, _) in SEALED_OFF {
        assert!(!tree(workspace, package).contains(OPENING), "{package} depends on {OPENING}");
    }
    // The edge does: the check finds what it looks for.
    assert!(tree(workspace, "certedge").contains(OPENING));
}

#[test]
fn the_check_fails_when_the_dependency_is_added() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (package, folder) in SEALED_OFF {
        let copy = tempfile::tempdir().unwrap();
        copy_workspace(workspace, copy.path());
        assert!(!tree(copy.path(), package).contains(OPENING), "the copy differs from the original");
        plant(copy.path(), folder, OPENING);
        assert!(tree(copy.path(), package).contains(OPENING), "the added dependency went unseen");
    }
}

/// Every dependency that brings the code along is refused like the code itself.
#[test]
fn deny_toml_refuses_the_dependency_on_every_way() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = tempfile::tempdir().unwrap();
    copy_workspace(workspace, copy.path());
    assert_eq!(refused(workspace, copy.path()), "", "the control: nothing is refused as it is");
    for (package, folder) in SEALED_OFF {
        for dependency in [OPENING, "certseal-ceremonies", "certseal-resolver", "certseal-signer"] {
            let manifest = copy.path().join(folder).join("Cargo.toml");
            let before = fs::read_to_string(&manifest).unwrap();
            plant(copy.path(), folder, dependency);
            let said = refused(workspace, copy.path());
            assert!(
                said.contains(dependency) && said.contains(package),
                "{package} may depend on {dependency}: {said}"
            );
            fs::write(&manifest, before).unwrap();
        }
    }
}

/// Adds a dependency of the workspace to the package in `folder`.
fn plant(workspace: &Path, folder: &str, dependency: &str) {
    let manifest = workspace.join(folder).join("Cargo.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let planted = text.replacen("[dependencies]\n", &format!("[dependencies]\n{dependency}.workspace = true\n"), 1);
    assert_ne!(planted, text, "nothing was planted");
    fs::write(&manifest, planted).unwrap();
}

/// The complaints of cargo-deny about the edges between the packages in `copy`; nothing when it takes them.
fn refused(workspace: &Path, copy: &Path) -> String {
    let output = Command::new(workspace.join("target/tools/bin/cargo-deny"))
        .args(["--workspace", "--offline", "check", "--allow", "unused-wrapper", "bans"])
        .current_dir(copy)
        .output()
        .unwrap();
    if output.status.success() { String::new() } else { String::from_utf8(output.stderr).unwrap() }
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
