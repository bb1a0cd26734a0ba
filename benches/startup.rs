//! The cost of having 3,000 keys ready at start-up: all of them decrypted, or none.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{sync::Arc, time::Duration};

use certseal_resolver::SealedResolver;
use certseal_seal::{Envelope, KeyKind, SealRequest, SigningKey, Suite, TlsPrivateKey, VerifyingKeys, seal};
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{Digest, Epoch, NameSet};
use criterion::{Criterion, SamplingMode};
use rcgen::KeyPair;
use support::{
    bundles,
    fleet::{Fleet, site},
    is_measuring,
    legacy::{RsaWrapping, Wrapped},
    machine::cores,
    rounds::{Case, alternate},
};

fn main() {
    let bench = Bench::new(bundles(3000));
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group(format!("start-up with {} keys", bench.wrapped.len()));
    group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_millis(200));
    for (name, mut run) in bench.cases() {
        group.bench_function(name, |bencher| bencher.iter(&mut run));
    }
    group.finish();
    criterion.final_summary();
    bench.print_ratios();
}

/// The same number of sealed keys under each scheme.
struct Bench {
    rsa: RsaWrapping,
    wrapped: Vec<Wrapped>,
    p256: Sealed,
    x25519: Sealed,
    fleet: Fleet,
}

type Cases<'a> = Vec<(&'static str, Box<dyn FnMut() + 'a>)>;

impl Bench {
    fn new(count: usize) -> Self {
        let keys: Vec<_> = (0..count).map(|_| KeyPair::generate().unwrap().serialize_der()).collect();
        let rsa = RsaWrapping::generate();
        Self {
            wrapped: keys.iter().map(|key| rsa.seal(key)).collect(),
            rsa,
            p256: Sealed::new(Suite::P256, &keys),
            x25519: Sealed::new(Suite::X25519, &keys),
            fleet: Fleet::prepared(count),
        }
    }

    fn cases(&self) -> Cases<'_> {
        vec![
            (RSA, Box::new(|| self.open_rsa(1))),
            (RSA_ALL_CORES, Box::new(|| self.open_rsa(cores()))),
            (P256, Box::new(|| self.p256.open_all(1))),
            (P256_ALL_CORES, Box::new(|| self.p256.open_all(cores()))),
            (P256_VERIFIED, Box::new(|| self.p256.verify_and_open_all(1))),
            (X25519, Box::new(|| self.x25519.open_all(1))),
            (X25519_ALL_CORES, Box::new(|| self.x25519.open_all(cores()))),
            (LAZY, Box::new(|| self.open_lazily())),
        ]
    }

    fn open_rsa(&self, threads: usize) {
        on_threads(threads, &self.wrapped, |wrapped| assert!(!self.rsa.open(wrapped).is_empty()));
    }

    /// The mirror and the resolver over it: no key is opened.
    fn open_lazily(&self) {
        let mirror = Arc::new(self.fleet.open(&self.fleet.mirror()));
        let resolver = SealedResolver::new(mirror, self.fleet.unseal_keys(), 64 << 20).unwrap();
        assert!(resolver.certificate(&site(0).parse().unwrap()).is_some());
        assert_eq!(resolver.counts().unsealed, 0);
    }

    fn print_ratios(&self) {
        let cases = self.cases().into_iter().map(|(name, run)| Case::new(name, run)).collect();
        let medians = alternate(cases, if is_measuring() { 21 } else { 1 });
        println!("\nmedians of alternating rounds");
        medians.print();
        println!("\nratios");
        medians.print_ratio(RSA, P256);
        medians.print_ratio(RSA, P256_VERIFIED);
        medians.print_ratio(RSA, X25519);
        medians.print_ratio(RSA_ALL_CORES, P256_ALL_CORES);
        medians.print_ratio(P256, LAZY);
        medians.print_ratio(RSA, LAZY);
    }
}

/// Envelopes of one suite, as bytes.
struct Sealed {
    keys: UnsealKeys,
    issuers: VerifyingKeys,
    envelopes: Vec<Vec<u8>>,
}

impl Sealed {
    fn new(suite: Suite, tls_keys: &[Vec<u8>]) -> Self {
        let issuer = SigningKey::generate().unwrap();
        let unseal_key = UnsealKey::generate("eu".parse().unwrap(), Epoch(1), suite).unwrap();
        let names = NameSet::try_from(vec!["shop.example.com".parse().unwrap()]).unwrap();
        let recipients = [unseal_key.recipient()];
        let request =
            SealRequest { suite, names: &names, spki: Digest([7; 32]), key_version: 1, recipients: &recipients };
        let sealed = |key: &Vec<u8>| {
            seal(&request, &TlsPrivateKey::new(KeyKind::EcdsaP256, key.clone()), &issuer).unwrap().to_bytes()
        };
        Self {
            envelopes: tls_keys.iter().map(sealed).collect(),
            issuers: VerifyingKeys::from_iter([issuer.verifying_key()]),
            keys: UnsealKeys::from_iter([unseal_key]),
        }
    }

    fn open_all(&self, threads: usize) {
        on_threads(threads, &self.envelopes, |bytes| {
            let envelope = Envelope::parse(bytes).unwrap();
            assert!(!self.keys.open(&envelope).unwrap().expose_pkcs8().is_empty());
        });
    }

    fn verify_and_open_all(&self, threads: usize) {
        on_threads(threads, &self.envelopes, |bytes| {
            let envelope = Envelope::parse(bytes).unwrap();
            envelope.verify(&self.issuers).unwrap();
            assert!(!self.keys.open(&envelope).unwrap().expose_pkcs8().is_empty());
        });
    }
}

/// Does `work` for all items, on as many threads.
fn on_threads<T: Sync>(threads: usize, items: &[T], work: impl Fn(&T) + Sync) {
    if threads == 1 {
        return items.iter().for_each(work);
    }
    std::thread::scope(|scope| {
        for part in items.chunks(items.len().div_ceil(threads)) {
            scope.spawn(|| part.iter().for_each(&work));
        }
    });
}

const RSA: &str = "eager, RSA-2048 wrapping";
const RSA_ALL_CORES: &str = "eager, RSA-2048 wrapping, all cores";
const P256: &str = "eager, envelopes P-256";
const P256_ALL_CORES: &str = "eager, envelopes P-256, all cores";
const P256_VERIFIED: &str = "eager, envelopes P-256, verified";
const X25519: &str = "eager, envelopes X25519";
const X25519_ALL_CORES: &str = "eager, envelopes X25519, all cores";
const LAZY: &str = "lazy, mirror and resolver";
