//! The code that the benchmarks share. Each of them uses a part of it.

#![allow(dead_code)]

pub(crate) mod caller;
pub(crate) mod fleet;
pub(crate) mod legacy;
pub(crate) mod machine;
pub(crate) mod rounds;
pub(crate) mod tls;

use std::env;

/// Whether to measure: cargo passes `--bench` for that. Without it, and with `--test`, everything runs once and small.
pub(crate) fn is_measuring() -> bool {
    let has = |flag| env::args().any(|argument| argument == flag);
    has("--bench") && !has("--test")
}

/// A number from the environment, or `default`.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number")))
}

/// How many bundles the mirror holds: `CERTSEAL_BENCH_BUNDLES`, else `full` when measuring, else a few.
pub(crate) fn bundles(full: usize) -> usize {
    setting("CERTSEAL_BENCH_BUNDLES", if is_measuring() { full } else { 50 })
}
