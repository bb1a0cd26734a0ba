//! cargo-fuzz target: see `certseal_fuzz::unseal_key`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| certseal_fuzz::unseal_key(data));
