//! Checks that are taken out one at a time: the adversaries that play certstore, against edges (`certseal-resolver`) and
//! against certman, notice each; and so does the simulation of a whole certman that dies all the time.
//!
//! Every run looks that each fault can still be planted. `CERTSEAL_PLANTED_FAULTS=1` builds the crates with one after the
//! other, in a copy under `target/planted`, and expects the adversary to fail with a seed.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The text that is taken out, its place, and the text that stands there then.
struct Fault {
    what: &'static str,
    file: &'static str,
    /// Texts that each occur once, and what stands there then.
    edits: &'static [(&'static str, &'static str)],
}

const FAULTS: &[Fault] = &[
    Fault {
        what: "a lower version than the mark's is refused",
        file: "crates/resolver/src/mirror/batch.rs",
        edits: &[("Some(seen) if version < seen.version => {", "Some(seen) if version < seen.version && false => {")],
    },
    Fault {
        what: "a bundle counts for its own site only",
        file: "crates/resolver/src/mirror/batch.rs",
        edits: &[("if info.site != site {", "if false && info.site != site {")],
    },
    Fault {
        what: "a route counts for its own site only",
        file: "crates/resolver/src/mirror/batch.rs",
        edits: &[("if route.site != site {", "if false && route.site != site {")],
    },
    Fault {
        what: "a stanza with another epoch than the ring's is refused",
        file: "crates/resolver/src/mirror/batch.rs",
        // Either of the two keeps a forged epoch from counting.
        edits: &[
            (".filter(|listed| *listed != stanza.epoch)", ".filter(|listed| *listed != stanza.epoch && false)"),
            ("self.listed_epoch(stanza.key_id) == Some(stanza.epoch)", "self.listed_epoch(stanza.key_id).is_some()"),
        ],
    },
    Fault {
        what: "a new bundle whose key does not open is refused",
        file: "crates/resolver/src/mirror/batch.rs",
        edits: &[(
            "Some(holder) => check_bundle(&**holder, bundle).map_err(Failure::unopened),",
            "Some(holder) => Ok(drop(check_bundle(&**holder, bundle).map_err(Failure::unopened))),",
        )],
    },
    Fault {
        what: "the same bundle sealed to older epochs only is refused",
        file: "crates/resolver/src/mirror/batch.rs",
        edits: &[("Some(seen) if found < Some(seen) => {", "Some(seen) if found < Some(seen) && false => {")],
    },
    Fault {
        what: "a good bundle does not go because certstore deleted it",
        file: "crates/resolver/src/mirror/batch.rs",
        edits: &[("if info.not_after > Timestamp::now() {", "if info.not_after > Timestamp::now() && false {")],
    },
    Fault {
        what: "a bundle for other pools is refused",
        file: "crates/resolver/src/mirror/batch.rs",
        edits: &[("if !info.pools.contains(pool) {", "if false && !info.pools.contains(pool) {")],
    },
    Fault {
        what: "another pool's checkpoint is refused",
        file: "crates/resolver/src/mirror/batch.rs",
        edits: &[(
            "if checkpoint.pool != self.terms.pool || checkpoint.pool != pool {",
            "if false && (checkpoint.pool != self.terms.pool || checkpoint.pool != pool) {",
        )],
    },
    Fault {
        what: "what an issuer signed who is gone counts up to the floor only",
        file: "crates/resolver/src/mirror/batch.rs",
        edits: &[(
            "Ok(match ring.standing(signer, mark.version) {",
            "Ok(match ring.standing(signer, mark.version).max(mark.version) {",
        )],
    },
    Fault {
        what: "what a checkpoint lists is looked at again under another ring",
        file: "crates/resolver/src/mirror/batch.rs",
        edits: &[(
            "self.expect_again()?;\n        self.applied.ring_changed = true;",
            "self.applied.ring_changed = true;",
        )],
    },
    Fault {
        what: "a store that gives errors withholds nothing unseen",
        file: "crates/resolver/src/follower.rs",
        edits: &[(
            "self.report(error);\n            // A store that gives errors only would withhold without being seen.\n            self.note_withheld();",
            "self.report(error);",
        )],
    },
    Fault {
        what: "certman takes nothing but the floor from a document of an issuer that is gone",
        file: "crates/certman/src/certstore.rs",
        edits: &[("standing: ring.standing(signer, claimed)", "standing: claimed")],
    },
    Fault {
        what: "certman takes no other site's bundle for a site's",
        file: "crates/certman/src/certstore.rs",
        edits: &[("if info.site != *site {", "if false && info.site != *site {")],
    },
    Fault {
        what: "certman goes by no older ring",
        file: "crates/certman/src/certstore.rs",
        edits: &[(
            "let seen = self.journaled(Journal::ring_seen).await?;",
            "let seen = certseal_seal::RingMark::default();",
        )],
    },
    Fault {
        what: "certman orders no more again than a day allows",
        file: "crates/certman/src/journal.rs",
        edits: &[("Err(until) => return Ok(Some(until.duration_since(now))),", "Err(until) => until.as_second(),")],
    },
    Fault {
        what: "a store that came back has no certificates ordered beyond that",
        file: "crates/certman/src/certstore.rs",
        edits: &[("journal.change_all(Site::unconfirmed)", "journal.change_all(Site::after_issuer_left)")],
    },
    Fault {
        what: "certman asks the stored checkpoint for its version",
        file: "crates/certman/src/certstore.rs",
        edits: &[("None => self.stored_checkpoint(pool).await?,", "None => 0,")],
    },
    Fault {
        what: "certman signs no audit log whose end was cut off",
        file: "crates/certman/src/certstore.rs",
        edits: &[(
            "if let Err(detail) = witness::still_has(&page, &seen) {",
            "if let Err(detail) = witness::still_has(&page, &seen) && false {",
        )],
    },
];

/// Those that the simulation notices.
const FAULTS_OF_A_PROCESS: &[Fault] = &[
    Fault {
        what: "a sealed key is durable before the CA has the request for it",
        file: "crates/certman/src/drive.rs",
        edits: &[(
            "if action.needs_durable_state() && site != written =>",
            "if false && action.needs_durable_state() =>",
        )],
    },
    Fault {
        what: "the books are a little stricter than the CA, which hears of orders later",
        file: "crates/issuance/src/budget/limit.rs",
        edits: &[("MOST_BEHIND.min(self.span() / 10)", "SignedDuration::ZERO")],
    },
    Fault {
        what: "room is not used twice after a process died, which may have placed its order",
        file: "crates/issuance/src/site.rs",
        edits: &[(
            "if let Some(reserved) = self.reserved.as_mut().filter(|reserved| reserved.ready) {",
            "if let Some(reserved) = self.reserved.as_mut().filter(|reserved| reserved.ready && false) {",
        )],
    },
    Fault {
        what: "room is written into the books together with the site that has it",
        file: "crates/certman/src/ledger.rs",
        edits: &[("    writes.extend(page.into_writes());\n", "    drop(page);\n")],
    },
    Fault {
        what: "a request that comes while a site is worked on counts",
        file: "crates/certman/src/journal.rs",
        edits: &[("next = site.clone().outrun_by(found.site.clone());", "next = site.clone();")],
    },
];

#[test]
fn every_check_that_is_taken_out_is_missed() {
    for fault in FAULTS.iter().chain(FAULTS_OF_A_PROCESS) {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(fault.file)).unwrap();
        for (check, _) in fault.edits {
            assert_eq!(text.matches(check).count(), 1, "{}: look where the check is now", fault.what);
        }
    }
    if std::env::var_os("CERTSEAL_PLANTED_FAULTS").is_none() {
        return;
    }
    let copy = copy_of_the_workspace();
    for (package, game) in [("certseal-resolver", ADVERSARY), ("certman", ADVERSARY), ("certman", SIMULATION)] {
        let (passed, said) = play(&copy, package, game);
        assert!(passed, "the control, with all checks: {said}");
    }
    let mut unnoticed = Vec::new();
    let of_process = FAULTS_OF_A_PROCESS.iter().map(|fault| (fault, SIMULATION));
    for (fault, game) in FAULTS.iter().map(|fault| (fault, ADVERSARY)).chain(of_process) {
        let path = copy.join(fault.file);
        let package = if fault.file.contains("/resolver/") { "certseal-resolver" } else { "certman" };
        let genuine = fs::read_to_string(&path).unwrap();
        let planted = |text: String, (check, without): &(&str, &str)| text.replacen(check, without, 1);
        fs::write(&path, fault.edits.iter().fold(genuine.clone(), planted)).unwrap();
        let (passed, said) = play(&copy, package, game);
        fs::write(&path, genuine).unwrap();
        let cause = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1).unwrap_or_default().to_owned();
        let seed = said.lines().find(|line| line.contains("run it again with CERTSEAL_"));
        if passed || seed.is_none() {
            println!("NOBODY MISSES THAT {}: {said}", fault.what);
            unnoticed.push(fault.what);
            continue;
        }
        println!("{}: {cause}", fault.what);
    }
    assert!(unnoticed.is_empty(), "nobody misses that {unnoticed:?}");
}

/// The tests that play.
const ADVERSARY: &str = "adversary";
const SIMULATION: &str = "drive::tests";

/// Whether a game finds nothing, and what it says.
fn play(workspace: &Path, package: &str, game: &str) -> (bool, String) {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--locked", "-p", package, "--lib", "--", game])
        .current_dir(workspace)
        .env("CARGO_TARGET_DIR", workspace.join("target"))
        .env("CERTSEAL_ADVERSARY_SEQUENCES", "20000")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A copy of what Git tracks. Files that did not change keep their times, so that little is built again.
fn copy_of_the_workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = root.join("target/planted");
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    for file in String::from_utf8(listed.stdout).unwrap().split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (root.join(file), copy.join(file));
        let Ok(text) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|there| there == text) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, text).unwrap();
    }
    copy
}
