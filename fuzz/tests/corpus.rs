//! Every fuzz target over the committed corpus, and over mutations of it: the work of cargo-fuzz, bounded, repeatable
//! and on the stable toolchain. `CERTSEAL_FUZZ_MUTATIONS` sets how many for each file (2,000 without).

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use certseal_fuzz::{bundle, documents, envelope, legacy, names, signer, unseal_key};

#[test]
fn envelopes() {
    run("envelope", envelope);
}

#[test]
fn bundles() {
    run("bundle", bundle);
}

#[test]
fn unseal_keys() {
    run("unseal_key", unseal_key);
}

#[test]
fn all_documents() {
    run("documents", documents);
}

#[test]
fn legacy_keys() {
    run("legacy", legacy);
}

#[test]
fn all_names() {
    run("names", names);
}

#[test]
fn what_a_signer_is_asked() {
    run("signer", signer);
}

fn run(target: &str, holds: fn(&[u8])) {
    let mutations = std::env::var("CERTSEAL_FUZZ_MUTATIONS").ok().map_or(2_000, |count| count.parse().unwrap());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 2, "the corpus of {target} is missing");
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in &seeds {
        holds(seed);
        for _ in 0..mutations {
            holds(&mutated(seed, &seeds, &mut random));
        }
    }
}

/// One to four changes: a bit, an octet, a length field, a cut, a repetition, a piece of another seed.
fn mutated(seed: &[u8], seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => bytes.truncate(at),
            4 => drop(bytes.splice(at..at, [random.below(256) as u8; 3])),
            5 => {
                let piece = bytes[at..].iter().copied().take(64).collect::<Vec<_>>();
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len().max(1));
                let piece = other.iter().copied().skip(from).take(64).collect::<Vec<_>>();
                let end = (at + piece.len()).min(bytes.len());
                bytes.splice(at..end, piece);
            }
        }
    }
    bytes
}

/// xorshift64*: repeatable, and good enough for choosing mutations.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}
