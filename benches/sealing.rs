//! Sealing and opening of one TLS key: envelopes of both suites, against RSA wrapping and the `ecies` crate.
//!
//! The ratios at the end come from rounds in which the cases take turns; see `benches/README.md`.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use certseal_seal::{
    Envelope, KeyKind, Recipient, SealRequest, SigningKey, Suite, TlsPrivateKey, VerifyingKeys, hpke::KeySchedule,
    seal, spki_digest, stanza_info,
};
use certseal_unseal::{Agreement, AwsLc, UnsealKey, UnsealKeys, decap, open_message};
use certseal_wire::{Epoch, NameSet};
use criterion::Criterion;
use rcgen::{KeyPair, PublicKeyData};
use support::{
    is_measuring,
    legacy::{RsaWrapping, Wrapped},
    rounds::{Case, alternate},
};

fn main() {
    let bench = Bench::new();
    let mut criterion = Criterion::default().configure_from_args();
    for (group, cases) in [("seal", bench.sealing()), ("open", bench.opening()), ("agree", bench.agreeing())] {
        let mut group = criterion.benchmark_group(group);
        for (name, mut run) in cases {
            group.bench_function(name, |bencher| bencher.iter(&mut run));
        }
    }
    criterion.final_summary();
    bench.print_ratios();
}

type Cases<'a> = Vec<(&'static str, Box<dyn FnMut() -> usize + 'a>)>;

/// The same TLS key under every scheme.
struct Bench {
    tls_key: Vec<u8>,
    p256: Suited,
    x25519: Suited,
    rsa: RsaWrapping,
    wrapped: Wrapped,
    ecies_secret: Vec<u8>,
    ecies_public: Vec<u8>,
    ecies_sealed: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let tls_key = KeyPair::generate().unwrap();
        let pkcs8 = tls_key.serialize_der();
        let rsa = RsaWrapping::generate();
        let (secret, public) = ecies::utils::generate_keypair();
        let public = public.serialize().to_vec();
        Self {
            p256: Suited::new(Suite::P256, &tls_key),
            x25519: Suited::new(Suite::X25519, &tls_key),
            wrapped: rsa.seal(&pkcs8),
            rsa,
            ecies_secret: secret.serialize().to_vec(),
            ecies_sealed: ecies::encrypt(&public, &pkcs8).unwrap(),
            ecies_public: public,
            tls_key: pkcs8,
        }
    }

    fn sealing(&self) -> Cases<'_> {
        vec![
            ("envelope P-256", Box::new(|| self.p256.seal(&self.tls_key).payload().len())),
            ("envelope X25519", Box::new(|| self.x25519.seal(&self.tls_key).payload().len())),
            ("RSA-2048 wrapping", Box::new(|| drop_after(self.rsa.seal(&self.tls_key)))),
            ("ecies crate", Box::new(|| ecies::encrypt(&self.ecies_public, &self.tls_key).unwrap().len())),
        ]
    }

    fn opening(&self) -> Cases<'_> {
        vec![
            ("envelope P-256", Box::new(|| self.p256.open())),
            ("envelope P-256, parsed and verified", Box::new(|| self.p256.parse_verify_open())),
            ("envelope X25519", Box::new(|| self.x25519.open())),
            ("RSA-2048 wrapping", Box::new(|| self.rsa.open(&self.wrapped).len())),
            ("RSA-2048 wrapping, rsa crate", Box::new(|| self.rsa.open_by_rsa_crate(&self.wrapped).len())),
            ("ecies crate", Box::new(|| ecies::decrypt(&self.ecies_secret, &self.ecies_sealed).unwrap().len())),
        ]
    }

    fn agreeing(&self) -> Cases<'_> {
        vec![
            ("raw ECDH P-256", Box::new(|| self.p256.raw_agree())),
            ("HPKE open P-256", Box::new(|| self.p256.hpke_open())),
            ("raw X25519", Box::new(|| self.x25519.raw_agree())),
            ("HPKE open X25519", Box::new(|| self.x25519.hpke_open())),
        ]
    }

    fn print_ratios(&self) {
        let cases = [
            Case::new("raw ECDH P-256", || self.p256.raw_agree()),
            Case::new("HPKE open P-256", || self.p256.hpke_open()),
            Case::new("raw X25519", || self.x25519.raw_agree()),
            Case::new("HPKE open X25519", || self.x25519.hpke_open()),
            Case::new("envelope open P-256", || self.p256.open()),
            Case::new("envelope open X25519", || self.x25519.open()),
            Case::new("RSA-2048 open", || self.rsa.open(&self.wrapped).len()),
            Case::new("rsa crate RSA-2048 open", || self.rsa.open_by_rsa_crate(&self.wrapped).len()),
            Case::new("ecies crate open", || ecies::decrypt(&self.ecies_secret, &self.ecies_sealed).unwrap().len()),
            Case::new("envelope seal P-256", || self.p256.seal(&self.tls_key)),
            Case::new("envelope seal X25519", || self.x25519.seal(&self.tls_key)),
            Case::new("RSA-2048 seal", || self.rsa.seal(&self.tls_key)),
            Case::new("ecies crate seal", || ecies::encrypt(&self.ecies_public, &self.tls_key).unwrap()),
        ];
        let medians = alternate(cases.into(), if is_measuring() { 100 } else { 1 });
        println!("\nmedians of alternating rounds");
        medians.print();
        println!("\nratios");
        medians.print_ratio("HPKE open P-256", "raw ECDH P-256");
        medians.print_ratio("HPKE open X25519", "raw X25519");
        medians.print_ratio("RSA-2048 open", "HPKE open P-256");
        medians.print_ratio("rsa crate RSA-2048 open", "HPKE open P-256");
        medians.print_ratio("RSA-2048 open", "envelope open P-256");
        medians.print_ratio("RSA-2048 open", "envelope open X25519");
        medians.print_ratio("ecies crate open", "envelope open P-256");
        medians.print_ratio("ecies crate open", "envelope open X25519");
        medians.print_ratio("envelope seal P-256", "RSA-2048 seal");
        medians.print_ratio("envelope seal P-256", "ecies crate seal");
    }
}

/// The keys and the envelope that one suite is measured with.
struct Suited {
    suite: Suite,
    issuer: SigningKey,
    issuers: VerifyingKeys,
    names: NameSet,
    spki: Vec<u8>,
    recipient: Recipient,
    keys: UnsealKeys,
    envelope: Envelope,
    bytes: Vec<u8>,
    agreement: AwsLc,
    raw: PrivateKey,
}

impl Suited {
    fn new(suite: Suite, tls_key: &KeyPair) -> Self {
        let issuer = SigningKey::generate().unwrap();
        let names = NameSet::try_from(vec!["shop.example.com".parse().unwrap()]).unwrap();
        let spki = tls_key.subject_public_key_info();
        let unseal_key = UnsealKey::generate("eu".parse().unwrap(), Epoch(1), suite).unwrap();
        let recipient = unseal_key.recipient();
        let envelope = sealed(suite, &names, &spki, &recipient, &tls_key.serialize_der(), &issuer);
        let scalar = unseal_key_scalar(&unseal_key);
        Self {
            suite,
            issuers: VerifyingKeys::from_iter([issuer.verifying_key()]),
            issuer,
            names,
            spki,
            recipient,
            bytes: envelope.to_bytes(),
            envelope,
            agreement: AwsLc::new(suite.kem(), &certseal_seal::Secret::copy_of(&scalar)).unwrap(),
            raw: PrivateKey::from_private_key(algorithm(suite), &scalar).unwrap(),
            keys: UnsealKeys::from_iter([unseal_key]),
        }
    }

    fn seal(&self, tls_key: &[u8]) -> Envelope {
        sealed(self.suite, &self.names, &self.spki, &self.recipient, tls_key, &self.issuer)
    }

    fn open(&self) -> usize {
        self.keys.open(&self.envelope).unwrap().expose_pkcs8().len()
    }

    fn parse_verify_open(&self) -> usize {
        let envelope = Envelope::parse(&self.bytes).unwrap();
        envelope.verify(&self.issuers).unwrap();
        self.keys.open(&envelope).unwrap().expose_pkcs8().len()
    }

    /// The bare key agreement with the stanza's encapsulated key.
    fn raw_agree(&self) -> usize {
        let peer = UnparsedPublicKey::new(algorithm(self.suite), &self.envelope.stanzas()[0].enc);
        agreement::agree(&self.raw, peer, (), |dh| Ok(dh.len())).unwrap()
    }

    /// Decapsulation, key schedule, and opening of the content key.
    fn hpke_open(&self) -> usize {
        let stanza = &self.envelope.stanzas()[0];
        let info = stanza_info(&self.envelope.header().hash(), &stanza.pool, stanza.epoch, &stanza.key_id);
        let shared = decap(&self.agreement, &stanza.enc).unwrap();
        let schedule = KeySchedule::base(self.agreement.kem(), self.suite.aead(), &shared, &info);
        open_message(&schedule, 0, b"", &stanza.sealed_key).unwrap().len()
    }
}

fn sealed(
    suite: Suite,
    names: &NameSet,
    spki: &[u8],
    recipient: &Recipient,
    tls_key: &[u8],
    issuer: &SigningKey,
) -> Envelope {
    let recipients = std::slice::from_ref(recipient);
    let request = SealRequest { suite, names, spki: spki_digest(spki), key_version: 1, recipients };
    seal(&request, &TlsPrivateKey::new(KeyKind::EcdsaP256, tls_key.to_vec()), issuer).unwrap()
}

/// The last 32 octets of the key's file.
fn unseal_key_scalar(key: &UnsealKey) -> [u8; 32] {
    let block = pem::parse(key.expose_pem().unwrap().as_str()).unwrap();
    *block.contents().last_chunk().unwrap()
}

fn algorithm(suite: Suite) -> &'static agreement::Algorithm {
    match suite {
        Suite::P256 => &agreement::ECDH_P256,
        Suite::X25519 => &agreement::X25519,
    }
}

fn drop_after<T>(value: T) -> usize {
    drop(value);
    0
}
