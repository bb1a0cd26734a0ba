//! cargo-fuzz target: see `certseal_fuzz::legacy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| certseal_fuzz::legacy(data));
