//! The state that is left after a crash: every acknowledged change, none by half, a feed without gap or repetition, and
//! an audit log that is a chain. Where that cannot be had, a refusal to open that says what to do.
//!
//! Kills of the process, power cuts, full disks, failing syncs and damaged files. The writer is this test binary, started
//! again; it notes each acknowledged change in a file outside of the store, which no crash takes back.
//!
//! `CERTSEAL_KILLS` and `CERTSEAL_POWER_CUTS` set how many there are; the normal run has few of them.
#![allow(clippy::unwrap_used)]

mod damage;
mod full_disk;
mod kill;
mod power_cut;
mod sync_failure;
mod workload;

/// How often, unless the variable says otherwise.
fn count(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}
