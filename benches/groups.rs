//! The gain of groups that share a content key when every key is opened at the start: groups of 1, 64 and 1024.
//!
//! `CERTSEAL_BENCH_BUNDLES` says how many envelopes, in place of 20,000; above 200,000 groups of 1, which take minutes,
//! are left out. The last line shows all of them in groups of 1024, opened on all cores by keys that know no group yet.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{sync::Mutex, time::Instant};

use certseal_seal::{Envelope, Group, KeyKind, SealRequest, SigningKey, Suite, TlsPrivateKey, seal};
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{Digest, Epoch, NameSet};
use criterion::{Criterion, SamplingMode};
use rcgen::KeyPair;
use support::{
    bundles, is_measuring,
    machine::cores,
    rounds::{Case, alternate, median},
};

fn main() {
    let count = bundles(20_000);
    let sizes = [("groups of 1", 1), ("groups of 64", 64), ("groups of 1024", 1024)];
    let sizes = &sizes[usize::from(count > 200_000)..];
    let fleets: Vec<_> = sizes.iter().map(|(name, size)| (*name, Fleet::new(count, *size))).collect();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group(format!("eager start with {count} keys"));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for (name, fleet) in &fleets {
        group.bench_function(*name, |bencher| bencher.iter(|| fleet.open_all(cores())));
    }
    group.finish();
    criterion.final_summary();

    let rounds = if is_measuring() { 7 } else { 1 };
    let cases = fleets.iter().map(|(name, fleet)| Case::new(name, || fleet.open_all(cores()))).collect();
    let medians = alternate(cases, rounds);
    println!("\nmedians of alternating rounds, {count} keys on {} cores", cores());
    medians.print();
    println!("\nratios");
    if fleets.len() == 3 {
        medians.print_ratio("groups of 1", "groups of 64");
        medians.print_ratio("groups of 1", "groups of 1024");
    }
    let (_, largest) = fleets.last().unwrap();
    let times: Vec<f64> = (0..rounds).map(|_| largest.open_all_cold().as_secs_f64()).collect();
    println!("\n{count} keys in groups of 1024, opened on {} cores: {:.3} s", cores(), median(&times));
}

/// Envelopes as they stand in bundles.
struct Fleet {
    key: String,
    keys: UnsealKeys,
    envelopes: Vec<Vec<u8>>,
}

impl Fleet {
    fn new(count: usize, group: u32) -> Self {
        let unseal_key = UnsealKey::generate("eu".parse().unwrap(), Epoch(1), Suite::P256).unwrap();
        let tls_keys: Vec<_> = (0..count.min(1000)).map(|_| KeyPair::generate().unwrap().serialize_der()).collect();
        let recipients = [unseal_key.recipient()];
        let names = NameSet::try_from(vec!["shop.example.com".parse().unwrap()]).unwrap();
        let issuer = SigningKey::generate().unwrap();
        let sealed = Mutex::new(Vec::with_capacity(count));
        std::thread::scope(|scope| {
            let share = count.div_ceil(cores());
            for first in (0..count).step_by(share) {
                let (sealed, recipients, names, issuer, tls_keys) = (&sealed, &recipients, &names, &issuer, &tls_keys);
                scope.spawn(move || {
                    let mut open: Option<Group> = None;
                    let mut made = Vec::with_capacity(share);
                    for n in first..count.min(first + share) {
                        let key = TlsPrivateKey::new(KeyKind::EcdsaP256, tls_keys[n % tls_keys.len()].clone());
                        let (suite, spki) = (Suite::P256, Digest([7; 32]));
                        let request = SealRequest { suite, names, spki, key_version: n as u64, recipients };
                        let envelope = if group == 1 {
                            seal(&request, &key, issuer).unwrap()
                        } else {
                            if open.as_ref().is_none_or(|open| open.sealed() >= group) {
                                open = Some(Group::begin(suite, recipients).unwrap());
                            }
                            open.as_mut().unwrap().seal(&request, &key, issuer).unwrap()
                        };
                        made.push(envelope.to_bytes());
                    }
                    sealed.lock().unwrap().append(&mut made);
                });
            }
        });
        let key = unseal_key.expose_pem().unwrap().to_string();
        Self { key, keys: UnsealKeys::from_iter([unseal_key]), envelopes: sealed.into_inner().unwrap() }
    }

    fn open_all(&self, threads: usize) {
        self.open_with(&self.keys, threads);
    }

    /// With keys that have opened nothing yet: every group costs its key agreement.
    fn open_all_cold(&self) -> std::time::Duration {
        let keys = UnsealKeys::from_iter([UnsealKey::from_pem(&self.key).unwrap()]);
        let begun = Instant::now();
        self.open_with(&keys, cores());
        begun.elapsed()
    }

    fn open_with(&self, keys: &UnsealKeys, threads: usize) {
        std::thread::scope(|scope| {
            for part in self.envelopes.chunks(self.envelopes.len().div_ceil(threads)) {
                scope.spawn(move || {
                    for bytes in part {
                        let envelope = Envelope::parse(bytes).unwrap();
                        assert!(!keys.open(&envelope).unwrap().expose_pkcs8().is_empty());
                    }
                });
            }
        });
    }
}
