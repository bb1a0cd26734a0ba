//! A platform's material on disk, and an edge's mirror of many sites: distinct names, keys, certificates and envelopes,
//! all of them genuine.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use certseal_ceremonies::pki::{self, PkiOptions};
use certseal_resolver::{Mirror, SealedResolver};
use certseal_seal::{
    Bundle, KeyKind, Recipient, SealRequest, SigningKey, Suite, TlsPrivateKey, VerifyingKey, seal, sha256, spki_digest,
};
use certseal_service::config;
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{
    Base64, BundleInfo, Cursor, DnsName, Document, Epoch, Event, FeedPage, HttpsMode, IssuerEntry, KeyRing, KeyState,
    Kind, NameSet, PoolName, Route, UnsealEntry, Upstream,
};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;

use super::machine::role;

/// A prepared directory.
pub(crate) struct Fleet {
    dir: PathBuf,
    count: usize,
}

impl Fleet {
    /// The fleet with `count` sites. The first call for a count makes it, later ones find it in cargo's directory for
    /// temporary files.
    pub(crate) fn prepared(count: usize) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fleet-{FORMAT}-{count}"));
        let fleet = Self { dir, count };
        // A process in another role shares the mirror with the benchmark that has looked already.
        if role().is_none() && !fleet.is_usable() {
            eprintln!("making a mirror of {count} sites, once");
            let _ = fs::remove_dir_all(&fleet.dir);
            fleet.make();
            fs::write(fleet.dir.join(COMPLETE), "").unwrap();
        }
        fleet
    }

    /// Whether it was made to its end, and by code with the same formats.
    fn is_usable(&self) -> bool {
        let security = || VerifyingKey::from_pem(&config::read(&self.pki().join("security.pub")).ok()?).ok();
        let mirror = || Mirror::open(&self.mirror(), pool(), security()?).ok();
        let serves = |mirror| {
            let resolver = SealedResolver::new(Arc::new(mirror), self.unseal_keys(), 1 << 20).unwrap();
            resolver.certificate(&site(self.count - 1).parse().unwrap()).is_some()
        };
        self.dir.join(COMPLETE).exists() && mirror().is_some_and(serves)
    }

    /// The number of sites.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The mirror's directory.
    pub(crate) fn mirror(&self) -> PathBuf {
        self.dir.join("mirror")
    }

    /// A mirror's one file.
    pub(crate) fn mirror_file(mirror: &Path) -> PathBuf {
        mirror.join("mirror.redb")
    }

    /// The directory of the private PKI.
    pub(crate) fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// The file of the pool's unseal key.
    pub(crate) fn unseal_key_file(&self) -> PathBuf {
        self.dir.join("unseal.pem")
    }

    /// Reads the pool's unseal key.
    pub(crate) fn unseal_keys(&self) -> UnsealKeys {
        UnsealKeys::from_iter([UnsealKey::from_pem(&config::read_private(&self.unseal_key_file()).unwrap()).unwrap()])
    }

    /// Opens the mirror in `dir`: the fleet's own, or a copy.
    pub(crate) fn open(&self, dir: &Path) -> Mirror {
        let security = VerifyingKey::from_pem(&config::read(&self.pki().join("security.pub")).unwrap()).unwrap();
        Mirror::open(dir, pool(), security).unwrap()
    }

    /// Copies the mirror into the directory `to`.
    pub(crate) fn copy_mirror(&self, to: &Path) {
        fs::create_dir_all(to).unwrap();
        fs::copy(Self::mirror_file(&self.mirror()), Self::mirror_file(to)).unwrap();
    }

    /// The root that all certificates lead to.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        fs::read(self.dir.join("root.der")).unwrap().into()
    }

    /// The press that makes more bundles of the same platform.
    pub(crate) fn press(&self) -> Press {
        Press::load(&self.dir)
    }

    /// The signed key ring, as certstore takes it.
    pub(crate) fn ring(&self) -> Vec<u8> {
        let unseal_key = UnsealKey::from_pem(&config::read_private(&self.unseal_key_file()).unwrap()).unwrap();
        ring(&self.dir, &unseal_key).body.unwrap().0
    }

    fn make(&self) {
        let dir = self.dir.as_path();
        let pki_options = PkiOptions { pools: vec![pool()], ..PkiOptions::default() };
        fs::create_dir_all(dir).unwrap();
        pki::init(&self.pki(), &pki_options).unwrap();
        make_authorities(dir);
        let unseal_key = UnsealKey::generate(pool(), Epoch(1), Suite::P256).unwrap();
        config::write_private(&self.unseal_key_file(), &unseal_key.expose_pem().unwrap()).unwrap();

        let mirror = self.open(&self.mirror());
        apply(&mirror, &feed_page(vec![ring(dir, &unseal_key)]), 1);
        // One page in the making while another is taken.
        let (sender, pages) = mpsc::sync_channel(2);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let press = self.press();
                for first in (0..self.count).step_by(PAGE) {
                    sender.send(press.page(first..self.count.min(first + PAGE), 1)).unwrap();
                }
            });
            for page in pages {
                apply(&mirror, &page, page.events.len());
            }
        });
    }
}

/// The pool that all sites are in.
pub(crate) fn pool() -> PoolName {
    "local".parse().unwrap()
}

/// The name of site `number`, at no particular place in the order of names.
pub(crate) fn site(number: usize) -> String {
    // Multiplication with an odd number is one-to-one.
    let scattered = u32::try_from(number).unwrap().wrapping_mul(0x9e37_79b1);
    format!("site-{scattered:08x}.customer.example")
}

/// Makes bundles and routes as certman does.
pub(crate) struct Press {
    issuer: SigningKey,
    recipient: Recipient,
    intermediate: Issuer<'static, KeyPair>,
    intermediate_der: Vec<u8>,
}

impl Press {
    fn load(dir: &Path) -> Self {
        let key = KeyPair::from_pem(&fs::read_to_string(dir.join("intermediate.key")).unwrap()).unwrap();
        let certificate = CertificateDer::from(fs::read(dir.join("intermediate.der")).unwrap());
        let unseal_key = UnsealKey::from_pem(&config::read_private(&dir.join("unseal.pem")).unwrap()).unwrap();
        Self {
            issuer: SigningKey::from_pem(&config::read_private(&dir.join("pki/issuer.key")).unwrap()).unwrap(),
            recipient: unseal_key.recipient(),
            intermediate: Issuer::from_ca_cert_der(&certificate, key).unwrap(),
            intermediate_der: certificate.to_vec(),
        }
    }

    /// A new key for `name` with its chain, the leaf first.
    pub(crate) fn certificate(&self, name: &str) -> (Vec<Vec<u8>>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let leaf = params.signed_by(&key, &self.intermediate).unwrap();
        (vec![leaf.der().to_vec(), self.intermediate_der.clone()], key)
    }

    /// The name and the bundle of site `number`, as certstore takes it.
    pub(crate) fn sealed(&self, number: usize, version: u64) -> (String, Vec<u8>) {
        let name: DnsName = site(number).parse().unwrap();
        let bundle = self.bundle(&name, version).body.unwrap().0;
        (name.to_string(), bundle)
    }

    /// A page of the feed with the bundle and the route of each site.
    pub(crate) fn page(&self, sites: impl IntoIterator<Item = usize>, version: u64) -> FeedPage {
        let events = sites.into_iter().flat_map(|number| {
            let name: DnsName = site(number).parse().unwrap();
            [self.bundle(&name, version), self.route(&name, version)]
        });
        feed_page(events.collect())
    }

    fn bundle(&self, site: &DnsName, version: u64) -> Event {
        let names = NameSet::try_from(vec![site.clone()]).unwrap();
        let (chain, key) = self.certificate(site.as_str());
        let request = SealRequest {
            suite: Suite::P256,
            names: &names,
            spki: spki_digest(&key.subject_public_key_info()),
            key_version: version,
            recipients: std::slice::from_ref(&self.recipient),
        };
        let tls_key = TlsPrivateKey::new(KeyKind::EcdsaP256, key.serialize_der());
        let envelope = seal(&request, &tls_key, &self.issuer).unwrap();
        let info = BundleInfo {
            site: site.clone(),
            names,
            version,
            pools: vec![pool()],
            chain: Bundle::chain_digest(&chain),
            envelope: envelope.header().hash(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::MAX,
            authority: "benchmark CA".to_owned(),
        };
        let bundle = Bundle::new(self.issuer.sign(&info), chain, envelope);
        event(Kind::Bundle, site.as_str(), version, bundle.to_bytes().unwrap())
    }

    fn route(&self, site: &DnsName, version: u64) -> Event {
        let route = Route {
            site: site.clone(),
            names: NameSet::try_from(vec![site.clone()]).unwrap(),
            version,
            pools: vec![pool()],
            upstreams: vec!["http://127.0.0.1:9".parse::<Upstream>().unwrap().into()],
            https: HttpsMode::Redirect,
        };
        signed(Kind::Route, site.as_str(), version, &self.issuer, &route)
    }
}

fn apply(mirror: &Mirror, page: &FeedPage, expected: usize) {
    let applied = mirror.apply(page).unwrap();
    assert_eq!(applied.accepted, expected, "{:?}", applied.refused.first());
}

/// A root and an intermediate below it, as public CAs have them.
fn make_authorities(dir: &Path) {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let root_key = KeyPair::generate().unwrap();
    let root = CertifiedIssuer::self_signed(authority("benchmark root"), root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let intermediate = authority("benchmark intermediate").signed_by(&key, &root).unwrap();
    fs::write(dir.join("root.der"), root.der()).unwrap();
    fs::write(dir.join("intermediate.der"), intermediate.der()).unwrap();
    config::write_private(&dir.join("intermediate.key"), &key.serialize_pem()).unwrap();
}

fn ring(dir: &Path, unseal_key: &UnsealKey) -> Event {
    let security = SigningKey::from_pem(&config::read_private(&dir.join("pki/security.key")).unwrap()).unwrap();
    let issuer = VerifyingKey::from_pem(&config::read(&dir.join("pki/issuer.pub")).unwrap()).unwrap();
    let ring = KeyRing {
        version_floor: 0,
        version: 1,
        keys: vec![UnsealEntry {
            pool: pool(),
            epoch: unseal_key.epoch(),
            state: KeyState::Active,
            suite: unseal_key.suite() as u16,
            key_id: unseal_key.key_id(),
            public_key: Base64(unseal_key.public_key().to_vec()),
        }],
        issuers: vec![IssuerEntry { id: issuer.id(), public_key: Base64(issuer.as_bytes().to_vec()) }],
    };
    signed(Kind::Ring, "", 1, &security, &ring)
}

fn signed<D: Document>(kind: Kind, name: &str, version: u64, key: &SigningKey, document: &D) -> Event {
    event(kind, name, version, serde_json::to_vec(&key.sign(document)).unwrap())
}

fn event(kind: Kind, name: &str, version: u64, body: Vec<u8>) -> Event {
    Event {
        kind,
        name: name.to_owned(),
        version,
        digest: sha256(&body),
        pools: Vec::new(),
        body: Some(Base64(body)),
        deleted: false,
    }
}

fn feed_page(events: Vec<Event>) -> FeedPage {
    FeedPage { cursor: Cursor { epoch: [7; 16], seq: 1 }, events, end: true }
}

/// Names the formats of bundles and mirror: a fleet of other formats is another.
const FORMAT: &str = "bundle1-mirror1";

/// Stands in the directory of a fleet that was made to its end.
const COMPLETE: &str = "complete";

/// Sites in one transaction.
const PAGE: usize = 1000;
