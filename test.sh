#!/usr/bin/env bash
#
# Everything that must hold before a change is merged. Stops at the first stage that fails, and names it.
# CERTSEAL_ADVISORIES=1 adds the stage that needs the advisory database.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

main() {
    # A first build has nothing to go on from, and what the compiler would keep for the next one costs time and gigabytes.
    [[ -d target/debug ]] || export CARGO_INCREMENTAL=0
    stage 'tools' ./tests/tools.sh
    stage 'format' cargo fmt --all --check
    stage 'clippy' cargo clippy --workspace --all-targets --locked -- -D warnings
    stage 'dependencies' dependencies bans licenses sources
    # Known vulnerabilities are looked up in a Git repository on the network, which a build without network access
    # cannot fetch, and which can turn red without any change here. No package that carries a copy of it was found either,
    # only its readers. So this stage has to be asked for, and where nobody asks, advisories are not looked up.
    if [[ ${CERTSEAL_ADVISORIES:-} == 1 ]]; then
        stage 'advisories' dependencies advisories
    fi
    # Always the whole workspace, and never one target by its name: with fewer packages libraries lose features, and are built
    # once more. The end-to-end tests start the binaries and the example; each bench runs once, with small numbers, so that
    # none rots.
    stage 'build' cargo build --workspace --all-targets --locked
    # Tests against servers wait for a good part of their time. What needs nothing but a processor goes on meanwhile: neither
    # instruction counts nor pages depend on other work, and unit tests take the time that they get.
    in_background units_gate_and_doc
    stage 'test' cargo test --workspace --test '*' --bench '*' --examples --locked
    stage 'unit tests, gate, doc and doc tests' awaited
    # One after the other: clients wait for 15 s for a certstore that hangs, and should not wait for other tests besides; and
    # the gate notices a slowdown.
    stage 'alone' cargo test --workspace --tests --locked -- --ignored
    printf '\nall stages passed in %d s\n' "$SECONDS"
}

# Without --workspace cargo-deny would look only at what the root package depends on, and leave out certctl.
# unused-wrapper is silenced because deny.toml guards some crates before anything depends on them.
dependencies() {
    target/tools/bin/cargo-deny --workspace --locked check --hide-inclusion-graph --allow unused-wrapper "$@" &&
        # What a crate may not have that others do, in its own graph.
        target/tools/bin/cargo-deny --manifest-path crates/issuance/Cargo.toml --config crates/issuance/deny.toml --locked \
            check bans
}

# Unit tests, instruction counts against the baseline, and the documentation with its examples. Ratios need a quiet machine:
# they are left to `cargo gate` before a release.
units_gate_and_doc() {
    cargo test --workspace --lib --bins --locked && cargo gate --quick && RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked &&
        cargo test --workspace --doc --locked
}

# Starts one command that takes only what others leave of the processors.
in_background() {
    set -m
    (renice -n 19 -p "$BASHPID" && "$@") >target/background.log 2>&1 </dev/null &
    set +m
    background=$!
    trap 'kill -- "-$background" 2>/dev/null || true' EXIT
}

# Waits for the command in the background, and shows what it said.
awaited() {
    local status=0
    wait "$background" || status=$?
    trap - EXIT
    cat target/background.log
    return "$status"
}

# Runs one command under a heading. `set -e` does not reach into a function called like this, so a stage is a single
# command, whose status decides.
stage() {
    local name=$1 started=$SECONDS status=0
    shift
    printf '\n== %s\n' "$name"
    "$@" || status=$?
    if ((status != 0)); then
        printf '== %s: FAILED with status %d after %d s\n' "$name" "$status" "$((SECONDS - started))" >&2
        exit "$status"
    fi
    printf '== %s: %d s\n' "$name" "$((SECONDS - started))"
}

main
