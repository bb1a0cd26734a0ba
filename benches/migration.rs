//! Moving keys that are wrapped with RSA-2048 into envelopes: the cost of the move, and of a start that opens every key
//! before, halfway through, and after it.
//!
//! `CERTSEAL_BENCH_BUNDLES` says how many keys, in place of 3,000.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use certseal_seal::{
    KeyKind, LegacyKey, LegacySuite, SealRequest, Sealed, SigningKey, Suite, TlsPrivateKey, draft, spki_digest,
};
use certseal_unseal::{LegacyUnsealKey, UnsealKey, UnsealKeys};
use certseal_wire::{Epoch, NameSet};
use criterion::{Criterion, SamplingMode};
use rcgen::{KeyPair, PublicKeyData};
use support::{bundles, is_measuring, legacy::RsaWrapping, machine::cores, rounds::Medians};

fn main() {
    let bench = Bench::new(bundles(3000));
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("migration");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("one key moved", |bencher| bencher.iter(|| bench.moved(&bench.legacy[0])));
    group.finish();
    criterion.final_summary();
    bench.print();
}

struct Bench {
    keys: UnsealKeys,
    recipient: certseal_seal::Recipient,
    issuer: SigningKey,
    names: NameSet,
    legacy: Vec<Sealed>,
}

impl Bench {
    fn new(count: usize) -> Self {
        let rsa = RsaWrapping::generate();
        let rsa_key = LegacyUnsealKey::from_file(LegacySuite::RsaOaepSha256, rsa.pem().as_bytes()).unwrap();
        let unseal_key = UnsealKey::generate("eu".parse().unwrap(), Epoch(1), Suite::P256).unwrap();
        let tls_keys: Vec<_> = (0..count.min(1000)).map(|_| KeyPair::generate().unwrap().serialize_der()).collect();
        let wrapped = (0..count).map(|n| {
            let blob = rsa.seal(&tls_keys[n % tls_keys.len()]).blob();
            Sealed::from(LegacyKey::new(LegacySuite::RsaOaepSha256, rsa_key.id(), blob).unwrap())
        });
        Self {
            legacy: wrapped.collect(),
            recipient: unseal_key.recipient(),
            keys: UnsealKeys::from_iter([unseal_key]).with_legacy([rsa_key]),
            issuer: SigningKey::generate().unwrap(),
            names: NameSet::try_from(vec!["shop.example.com".parse().unwrap()]).unwrap(),
        }
    }

    /// Does the work of the ceremony host and certman for one key: opens it, looks at it, seals it, signs the envelope.
    fn moved(&self, legacy: &Sealed) -> Sealed {
        let private = self.keys.open_sealed(legacy).unwrap();
        let pair = KeyPair::try_from(private.expose_pkcs8()).unwrap();
        let request = SealRequest {
            suite: Suite::P256,
            names: &self.names,
            spki: spki_digest(&pair.subject_public_key_info()),
            key_version: 2,
            recipients: std::slice::from_ref(&self.recipient),
        };
        let key = TlsPrivateKey::new(KeyKind::EcdsaP256, private.expose_pkcs8().to_vec());
        draft(&request, &key, self.issuer.verifying_key().id()).unwrap().sign(&self.issuer).into()
    }

    fn print(&self) {
        let rounds = if is_measuring() { 5 } else { 1 };
        let begun = Instant::now();
        let moved = on_all_cores(&self.legacy, |legacy| self.moved(legacy));
        let elapsed = begun.elapsed();
        let half: Vec<Sealed> =
            (0..moved.len()).map(|n| if n % 2 == 0 { moved[n].clone() } else { self.legacy[n].clone() }).collect();
        let mut times: [Vec<Duration>; 3] = Default::default();
        for _ in 0..rounds {
            for (times, fleet) in times.iter_mut().zip([&self.legacy, &half, &moved]) {
                let begun = Instant::now();
                on_all_cores(fleet, |sealed| self.keys.open_sealed(sealed).unwrap().expose_pkcs8().len());
                times.push(begun.elapsed());
            }
        }
        let [before, during, after] = times;
        let medians = Medians::of([(BEFORE, before), (DURING, during), (AFTER, after)]);
        println!(
            "\n{} keys moved on {} cores in {:.2} s, {:.0} a second, without the network",
            moved.len(),
            cores(),
            elapsed.as_secs_f64(),
            moved.len() as f64 / elapsed.as_secs_f64()
        );
        println!("\nmedians of alternating rounds");
        medians.print();
        println!("\nratios");
        medians.print_ratio(BEFORE, AFTER);
        medians.print_ratio(BEFORE, DURING);
    }
}

fn on_all_cores<R: Send>(items: &[Sealed], work: impl Fn(&Sealed) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let work = &work;
        let parts = items.chunks(items.len().div_ceil(cores()));
        let threads: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

const BEFORE: &str = "eager start, all wrapped with RSA-2048";
const DURING: &str = "eager start, half of them moved";
const AFTER: &str = "eager start, all in envelopes";
