//! Does one operation a number of times, for its instructions to be counted: `instructions OPERATION COUNT`.
//!
//! The gate runs it under valgrind, which counts only inside [`measured_repeatedly`]. With
//! CERTSEAL_DELIBERATE_SLOWDOWN=OPERATION it does that operation twice each time, which the gate has to notice.

use std::{env, hint::black_box, path::Path, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use certseal_resolver::{Mirror, SealedResolver};
use certseal_seal::{
    Bundle, Envelope, KeyKind, Recipient, SealRequest, SigningKey, Suite, TlsPrivateKey, VerifyingKey, VerifyingKeys,
    seal, sha256, spki_digest,
};
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{
    Base64, BundleInfo, Cursor, DnsName, Document, Epoch, Event, FeedPage, IssuerEntry, KeyRing, KeyState, Kind,
    NameSet, UnsealEntry,
};
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use serde::Deserialize;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, count] = arguments.as_slice() else { bail!("usage: instructions OPERATION COUNT") };
    let count = count.parse().context("expected a COUNT")?;
    let directory = tempfile::tempdir()?;
    let mut operation = operation(name, directory.path())?;
    // The work that only the first calls do: choose implementations, seed generators, fill caches.
    for _ in 0..10 {
        operation();
    }
    if env::var("CERTSEAL_DELIBERATE_SLOWDOWN").is_ok_and(|slow| slow == *name) {
        return measured_repeatedly(count, &mut || {
            operation();
            operation();
        });
    }
    measured_repeatedly(count, &mut operation)
}

/// The gate's valgrind collects while this function runs, which it finds by its name.
#[inline(never)]
fn measured_repeatedly(count: u64, operation: &mut dyn FnMut()) -> Result<()> {
    for _ in 0..count {
        operation();
    }
    Ok(())
}

type Operation = Box<dyn FnMut()>;

// The operations work on genuine data only, on which none of the steps below fails: a failure is a mistake in this file.
fn operation(name: &str, directory: &Path) -> Result<Operation> {
    Ok(match name {
        "open-p256" => open(P256)?,
        "open-x25519" => open(X25519)?,
        "seal-p256" => {
            let platform = Platform::new()?;
            let (names, key) = (platform.names.clone(), platform.tls_key.serialize_der());
            Box::new(move || drop(black_box(platform.sealed(&names, &key, 1).expect("a good request"))))
        }
        "verify-envelope" => {
            let golden = Golden::read(P256)?;
            let issuers = VerifyingKeys::from_iter([VerifyingKey::from_bytes(&hex(&golden.issuer)?)?]);
            let bytes = hex(&golden.envelope)?;
            Box::new(move || {
                let envelope = Envelope::parse(black_box(&bytes)).expect("a golden envelope");
                envelope.verify(&issuers).expect("a genuine envelope");
                black_box(envelope);
            })
        }
        "verify-bundle" => {
            let platform = Platform::new()?;
            let issuers = VerifyingKeys::from_iter([platform.issuer.verifying_key()]);
            // Several, since what a signature costs depends a little on its octets.
            let bundles = (1..=16).map(|version| platform.bundle(version)).collect::<Result<Vec<_>>>()?;
            let mut turn = 0;
            Box::new(move || {
                turn = (turn + 1) % bundles.len();
                let bundle = Bundle::parse(black_box(&bundles[turn])).expect("a bundle of this platform");
                black_box(bundle.verify(&issuers).expect("a genuine bundle"));
            })
        }
        "resolve-warm" => {
            let platform = Platform::new()?;
            let name = platform.site.clone();
            let resolver = platform.resolver(directory)?;
            Box::new(move || assert!(black_box(resolver.certificate(black_box(&name))).is_some()))
        }
        _ => bail!("there is no operation {name:?}"),
    })
}

fn open(golden: &str) -> Result<Operation> {
    let golden = Golden::read(golden)?;
    let keys = UnsealKeys::from_iter([UnsealKey::from_pem(&golden.unseal_key)?]);
    let envelope = Envelope::parse(&hex(&golden.envelope)?)?;
    Ok(Box::new(move || drop(black_box(keys.open(black_box(&envelope)).expect("a golden envelope opens")))))
}

/// The needed fields of a golden envelope: the same octets in every run.
#[derive(Deserialize)]
struct Golden {
    issuer: String,
    unseal_key: String,
    envelope: String,
}

impl Golden {
    fn read(json: &str) -> Result<Self> {
        Ok(serde_json::from_str(json)?)
    }
}

const P256: &str = include_str!("../../../keys/vectors/envelope-p256.json");
const X25519: &str = include_str!("../../../keys/vectors/envelope-x25519.json");

fn hex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2), "expected an even number of digits");
    Ok((0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16)).collect::<Result<_, _>>()?)
}

/// A platform with one site in one pool, in memory.
struct Platform {
    security: SigningKey,
    issuer: SigningKey,
    unseal_key: UnsealKey,
    recipient: Recipient,
    site: DnsName,
    names: NameSet,
    tls_key: KeyPair,
}

impl Platform {
    fn new() -> Result<Self> {
        let unseal_key = UnsealKey::generate("eu".parse()?, Epoch(1), Suite::P256)?;
        let site: DnsName = "shop.example.com".parse()?;
        Ok(Self {
            security: SigningKey::generate()?,
            issuer: SigningKey::generate()?,
            recipient: unseal_key.recipient(),
            unseal_key,
            names: NameSet::try_from(vec![site.clone()])?,
            site,
            tls_key: KeyPair::generate()?,
        })
    }

    fn sealed(&self, names: &NameSet, tls_key: &[u8], key_version: u64) -> Result<Envelope> {
        let spki = spki_digest(&self.tls_key.subject_public_key_info());
        let recipients = std::slice::from_ref(&self.recipient);
        let request = SealRequest { suite: Suite::P256, names, spki, key_version, recipients };
        Ok(seal(&request, &TlsPrivateKey::new(KeyKind::EcdsaP256, tls_key.to_vec()), &self.issuer)?)
    }

    fn bundle(&self, version: u64) -> Result<Vec<u8>> {
        let leaf = CertificateParams::new(vec![self.site.to_string()])?.self_signed(&self.tls_key)?;
        let chain = vec![leaf.der().to_vec()];
        let envelope = self.sealed(&self.names, &self.tls_key.serialize_der(), version)?;
        let info = BundleInfo {
            site: self.site.clone(),
            names: self.names.clone(),
            version,
            pools: vec![self.unseal_key.pool().clone()],
            chain: Bundle::chain_digest(&chain),
            envelope: envelope.header().hash(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::MAX,
            authority: "a CA".to_owned(),
        };
        Ok(Bundle::new(self.issuer.sign(&info), chain, envelope).to_bytes()?)
    }

    fn ring(&self) -> KeyRing {
        let issuer = self.issuer.verifying_key();
        KeyRing {
            version_floor: 0,
            version: 1,
            keys: vec![UnsealEntry {
                pool: self.unseal_key.pool().clone(),
                epoch: self.unseal_key.epoch(),
                state: KeyState::Active,
                suite: self.unseal_key.suite() as u16,
                key_id: self.unseal_key.key_id(),
                public_key: Base64(self.unseal_key.public_key().to_vec()),
            }],
            issuers: vec![IssuerEntry { id: issuer.id(), public_key: Base64(issuer.as_bytes().to_vec()) }],
        }
    }

    /// A resolver over a mirror that holds the ring and the site's bundle.
    fn resolver(self, directory: &Path) -> Result<Arc<SealedResolver>> {
        let mirror = Mirror::open(directory, self.unseal_key.pool().clone(), self.security.verifying_key())?;
        let events = vec![
            event(Kind::Ring, "", signed(&self.security, &self.ring())?),
            event(Kind::Bundle, self.site.as_str(), self.bundle(1)?),
        ];
        let applied = mirror.apply(&FeedPage { cursor: Cursor { epoch: [7; 16], seq: 1 }, events, end: true })?;
        ensure!(applied.accepted == 2, "the mirror refused {:?}", applied.refused);
        Ok(SealedResolver::new(Arc::new(mirror), UnsealKeys::from_iter([self.unseal_key]), 1 << 20)?)
    }
}

fn signed<D: Document>(key: &SigningKey, document: &D) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&key.sign(document))?)
}

fn event(kind: Kind, name: &str, body: Vec<u8>) -> Event {
    let digest = sha256(&body);
    Event {
        kind,
        name: name.to_owned(),
        version: 1,
        digest,
        pools: Vec::new(),
        body: Some(Base64(body)),
        deleted: false,
    }
}
