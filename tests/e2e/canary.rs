//! Promise 2: no private key at rest, in any form, anywhere in certstore.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use aws_lc_rs::{
    encoding::AsBigEndian,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use certseal_seal::{
    Bundle, KeyKind, SealRequest, SigningKey, Suite, TlsPrivateKey, ring_recipient, seal, spki_digest,
};
use certseal_wire::{AuditQuery, BundleInfo, DnsName, HttpsMode, KeyRing, NameSet, Route, Upstream};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData};

use crate::{
    platform::{Authority, POOL, Platform},
    tls_client::Connection,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_key_leaves_no_form_of_itself_in_certstore() {
    let platform = Platform::start(Authority::Local).await;
    let name: DnsName = "canary.customers.test".parse().unwrap();
    let canary = Canary::generate();
    canary.put_through(&platform, &name).await;

    // Every answer that certstore gives of it, and an edge that serves with it.
    let admin = platform.store_as("admin");
    let mut answers = admin.bundle(&name).await.unwrap().unwrap().to_vec();
    let events = platform.snapshot_as("admin").await;
    assert!(events.iter().any(|event| event.name == name.as_str() && event.body.is_some()));
    answers.extend(serde_json::to_vec(&events).unwrap());
    answers.extend(events.iter().filter_map(|event| event.body.as_ref()).flat_map(|body| body.0.clone()));
    let audit = admin.audit(&AuditQuery::default()).await.unwrap();
    assert!(audit.entries.iter().any(|line| line.entry.contains("put-bundle")));
    answers.extend(serde_json::to_vec(&audit).unwrap());
    answers.extend(platform.metrics("store-telemetry").into_bytes());
    let mut connection =
        Connection::open(platform.addresses["https"], &name, &platform.pki("local-ca.pem")).await.unwrap();
    connection.get().await.unwrap();

    assert_eq!(canary.found_in(&answers), None, "an API answer");
    assert_eq!(canary.found_in(platform.certstore.log().as_bytes()), None, "the log");
    for file in files(&platform.dir.path().join("certstore")) {
        assert_eq!(canary.found_in(&fs::read(&file).unwrap()), None, "{}", file.display());
    }
    let mut searched = 0;
    for region in memory(platform.certstore.pid()) {
        assert_eq!(canary.found_in(&region), None, "the memory of certstore");
        searched += region.len();
    }
    assert!(searched > 1 << 20, "only {searched} octets of memory could be read");

    // The control for memory: the edge that holds the key is found out by the same search.
    let found = memory(platform.edge.pid()).any(|region| canary.found_in(&region).is_some());
    assert!(found, "the search does not find the key where it is known to be");
}

#[test]
fn the_search_finds_every_form_in_a_leaky_file() {
    let canary = Canary::generate();
    let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", canary.pkcs8.clone()));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let leaks = [
        ("DER", canary.pkcs8.clone()),
        ("PEM", pem.into_bytes()),
        ("raw", canary.scalar.to_vec()),
        ("reversed", canary.scalar.iter().rev().copied().collect()),
        ("hex", hex(&canary.scalar).into_bytes()),
        ("hex of DER", hex(&canary.pkcs8).to_uppercase().into_bytes()),
        ("base64 of raw", STANDARD.encode(canary.scalar).into_bytes()),
        ("base64 of a record", URL_SAFE.encode([b"x".as_slice(), &canary.pkcs8].concat()).into_bytes()),
        ("base64 of another record", URL_SAFE.encode([b"xy".as_slice(), &canary.pkcs8].concat()).into_bytes()),
        ("JSON array", format!("{:?}", canary.scalar).into_bytes()),
    ];
    for (form, leak) in leaks {
        let file = [vec![7; 1000], leak, vec![9; 1000]].concat();
        assert!(canary.found_in(&file).is_some(), "{form} went unseen");
    }
    let other = Canary::generate();
    assert_eq!(canary.found_in(&other.pkcs8), None);
}

pub struct Canary {
    key: EcdsaKeyPair,
    scalar: [u8; 32],
    pkcs8: Vec<u8>,
    pub needles: Vec<(&'static str, Vec<u8>)>,
}

impl Canary {
    pub fn generate() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let scalar: [u8; 32] = key.private_key().as_be_bytes().unwrap().as_ref().try_into().unwrap();
        let pkcs8 = key.to_pkcs8v1().unwrap().as_ref().to_vec();
        Self { needles: needles(&scalar), key, scalar, pkcs8 }
    }

    fn found_in(&self, haystack: &[u8]) -> Option<&'static str> {
        let found = |(_, needle): &&(&str, Vec<u8>)| memchr::memmem::find(haystack, needle).is_some();
        self.needles.iter().find(found).map(|(form, _)| *form)
    }

    /// Seals the canary as certman does, and stores it as certman does.
    pub async fn put_through(&self, platform: &Platform, name: &DnsName) {
        let issuer_key = SigningKey::from_pem(&fs::read_to_string(platform.pki("issuer.key")).unwrap()).unwrap();
        let store = platform.store_as("certman");
        let ring: KeyRing = serde_json::from_slice(&store.ring().await.unwrap().unwrap().payload.0).unwrap();
        let names = NameSet::try_from(vec![name.clone()]).unwrap();
        let leaf = self.certificate(platform, name);
        let envelope = seal(
            &SealRequest {
                suite: Suite::P256,
                names: &names,
                spki: spki_digest(&NewKey(&self.key).subject_public_key_info()),
                key_version: 1,
                recipients: &[ring_recipient(&ring, &POOL.parse().unwrap()).unwrap()],
            },
            &TlsPrivateKey::new(KeyKind::EcdsaP256, self.pkcs8.clone()),
            &issuer_key,
        )
        .unwrap();
        let chain = vec![leaf];
        let info = BundleInfo {
            site: name.clone(),
            names: names.clone(),
            version: 1,
            pools: vec![POOL.parse().unwrap()],
            chain: Bundle::chain_digest(&chain),
            envelope: envelope.header().hash(),
            not_before: Timestamp::now(),
            not_after: Timestamp::now() + SignedDuration::from_hours(24),
            authority: "canary".into(),
        };
        let bundle = Bundle::new(issuer_key.sign(&info), chain, envelope).to_bytes().unwrap();
        let upstreams = vec![format!("http://{}", platform.upstream).parse::<Upstream>().unwrap().into()];
        let route =
            Route { site: name.clone(), names, version: 1, pools: info.pools, upstreams, https: HttpsMode::Redirect };
        store.put_route(name, &issuer_key.sign(&route)).await.unwrap();
        store.put_bundle(name, bundle).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }

    fn certificate(&self, platform: &Platform, name: &DnsName) -> Vec<u8> {
        let read = |file: &str| fs::read_to_string(platform.pki(file)).unwrap();
        let ca_key = KeyPair::from_pem(&read("local-ca.key")).unwrap();
        let ca = Issuer::from_ca_cert_pem(&read("local-ca.pem"), ca_key).unwrap();
        let params = CertificateParams::new(vec![name.to_string()]).unwrap();
        params.signed_by(&NewKey(&self.key), &ca).unwrap().der().to_vec()
    }
}

struct NewKey<'a>(&'a EcdsaKeyPair);

impl PublicKeyData for NewKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        aws_lc_rs::signature::KeyPair::public_key(self.0).as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// The octets to look for: 12 octets from either end of the scalar, in every encoding. A chance hit has a probability
/// of 2^-96 for each place.
pub fn needles(scalar: &[u8; 32]) -> Vec<(&'static str, Vec<u8>)> {
    let mut needles = Vec::new();
    for part in [&scalar[..12], &scalar[20..]] {
        needles.push(("raw", part.to_vec()));
        needles.push(("reversed", part.iter().rev().copied().collect()));
        let lower: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        needles.push(("upper-case hex", lower.to_uppercase().into_bytes()));
        needles.push(("hex", lower.into_bytes()));
        needles.push(("decimal", part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes()));
        needles.push(("dense decimal", part.iter().map(u8::to_string).collect::<Vec<_>>().join(",").into_bytes()));
        for shift in 0..3 {
            // Base64 of the part where it begins `shift` octets into a group: without the characters that depend on
            // its neighbours.
            let shifted = [vec![0; shift], part.to_vec()].concat();
            let whole = shifted.len() / 3 * 4;
            let first = [0, 2, 3][shift];
            for encoded in [STANDARD.encode(&shifted), URL_SAFE.encode(&shifted)] {
                needles.push(("base64", encoded.as_bytes()[first..whole].to_vec()));
            }
        }
    }
    needles
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The writable memory of a process, region by region.
pub fn memory(pid: u32) -> impl Iterator<Item = Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let regions: Vec<(u64, u64)> = maps
        .lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
        .filter_map(|line| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
        })
        .collect();
    regions.into_iter().filter_map(move |(start, end)| {
        let mut region = vec![0; usize::try_from(end - start).ok()?];
        memory.seek(SeekFrom::Start(start)).ok()?;
        memory.read_exact(&mut region).ok()?;
        Some(region)
    })
}
