//! cargo-fuzz target: see `certseal_fuzz::signer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| certseal_fuzz::signer(data));
