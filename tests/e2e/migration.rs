//! A platform that moves here, with keys as it sealed them: imported, served, migrated, and taken out again, while
//! visitors connect all the time.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PrivateDecryptingKey},
};
use certseal_seal::{KeyKind, LegacyKey, LegacySuite, SealRequest, Sealed, Suite, TlsPrivateKey, draft, spki_digest};
use certseal_unseal::UnsealKey;
use certseal_wire::{Base64, Digest, DnsName, Import, KeyId, Renewal, Reseal, SealedQuery};
use jiff::{SignedDuration, Timestamp};
use rcgen::{Certificate, CertificateParams, DistinguishedName, Issuer, KeyPair, PublicKeyData};
use serde_json::Value;

use crate::{
    edge::eventually,
    platform::{Authority, POOL, Platform},
    process::run,
    team::{Load, Team},
    tls_client::Connection,
};

/// With `CERTSEAL_MIGRATION_SITES=3000` it takes minutes, and its figures say something:
/// `cargo test --release --test e2e -- migration --nocapture`, after `cargo build --release --workspace --bins`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_moves_here_with_its_sealed_keys_while_no_handshake_fails() {
    let count = std::env::var("CERTSEAL_MIGRATION_SITES").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
    let mut world = World::new(count).await;
    let sites = world.sites.clone();
    let archived = (count / 10).max(3);

    // Imported: most from a directory with a bad entry in it, some from an archive, one sealed by another suite.
    let began = Instant::now();
    let (directory, archive, other) = world.write_sites(archived);
    fs::create_dir(directory.join("bad.customers.test")).unwrap();
    let rsa = ["--legacy-suite", "rsa-oaep-sha256", "--legacy-public", &world.path("rsa.pub")];
    let failed = world.import(&directory, &rsa);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let failed: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(failed["failed"], serde_json::json!([["bad.customers.test", "there is no chain.pem"]]));
    assert_eq!(failed["taken"], count - archived);
    fs::remove_dir(directory.join("bad.customers.test")).unwrap();
    world.imported(&archive, &rsa, archived);
    let ecies = ["--legacy-suite", "ecies-secp256k1", "--legacy-public", &world.path("ecies.pub")];
    world.imported(&other, &ecies, 1);
    world.await_suites(&[("rsa-oaep-sha256", count), ("ecies-secp256k1", 1)]).await;
    println!("{} sites imported in {:.1?}, with the time to write their files", count + 1, began.elapsed());
    // Again: no change.
    world.imported(&directory, &rsa, count - archived);
    world.imported(&archive, &rsa, archived);
    assert_eq!(world.team.platform.bundle(&sites[0]).await.sealed().suite_name(), "rsa-oaep-sha256");

    // Served side by side with a site of our own.
    let own: DnsName = "own.customers.test".parse().unwrap();
    world.team.platform.add_site(&own).await;
    world.team.platform.wait_active(&own, 1).await;
    world.served(&[sites.as_slice(), &[own]].concat()).await;
    world.restart_time("before the migration", &sites[0]).await;
    let load = world.load();
    let began = Instant::now();

    // Half of them by sealing the same keys anew.
    let half = (count / 2).to_string();
    let plan = world.path("rewrap.json");
    let planned = world.certctl(&["migrate", "plan", "--by", "rewrap", "--limit", &half, "--out", &plan]);
    assert_eq!(planned["sites"].as_array().unwrap().len(), count / 2);
    let before = world.team.platform.bundle(&first(&planned)).await;
    let (rsa_key, ecies_key) =
        (world.legacy_key("rsa-oaep-sha256", "rsa.key"), world.legacy_key("ecies-secp256k1", "ecies.key"));
    let run_rewrap = ["migrate", "run", "--plan", &plan, "--legacy-key", &rsa_key, "--legacy-key", &ecies_key];
    let resealed = world.certctl(&run_rewrap);
    assert_eq!(resealed["sealed"], count / 2, "{resealed}");
    println!("{} keys sealed anew in {} s", count / 2, resealed["seconds"]);
    world.await_left(count + 1 - count / 2).await;
    assert_eq!(world.certctl(&run_rewrap)["sealed"], 0, "again: nothing is left to do");
    let after = world.team.platform.bundle(&first(&planned)).await;
    assert!(matches!(after.sealed(), Sealed::Envelope(_)));
    assert_eq!((after.chain(), before.sealed().envelope()), (before.chain(), None), "the certificate stays");
    let by_rewrap = began.elapsed();
    let (handshakes, bad) = load.stop().await;
    assert_eq!(bad, 0, "{bad} of {handshakes} failed\n{}", world.team.platform.edge.log());
    println!(
        "half of them by rewrap, to the last envelope in certstore: {by_rewrap:.1?}; {handshakes} handshakes, {bad} failed"
    );
    world.restart_time("halfway", &sites[0]).await;
    let load = world.load();
    let began = Instant::now();

    // The rest by renewals that are brought forward.
    let plan = world.path("renewal.json");
    let over = format!("{}s", (count / 10).max(6));
    let by_renewal = ["migrate", "plan", "--by", "renewal", "--over", &over];
    let refused = world.team.refused("admin", &by_renewal);
    assert!(refused.contains("more than 300 within any 3 h") && refused.contains("give --over"), "{refused}");
    let planned = world.certctl(&[by_renewal.as_slice(), &["--orders-per-3h", "1000000", "--out", &plan]].concat());
    assert_eq!(planned["sites"].as_array().unwrap().len(), count + 1 - count / 2);
    let status = world.certctl(&["migrate", "status", "--measure", "0"]);
    assert_eq!((&status["left"], &status["next_24h"]), (&(count + 1 - count / 2).into(), &0.into()), "{status}");
    let appointed = world.certctl(&["migrate", "run", "--plan", &plan]);
    assert_eq!((&appointed["failed"], &appointed["passed_over"]), (&serde_json::json!([]), &0.into()), "{appointed}");
    world.certctl(&["migrate", "run", "--plan", &plan]);
    world.await_left(0).await;
    let by_renewal = began.elapsed();
    let status = world.certctl(&["migrate", "status"]);
    assert_eq!((&status["left"], &status["ends_at"]), (&0.into(), &Value::Null), "{status}");
    assert_eq!(status["suites"], serde_json::json!({ "p256": count + 2 }), "{status}");
    // The edge may be a moment behind certstore.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (handshakes, bad) = load.stop().await;
    assert_eq!(bad, 0, "{bad} of {handshakes} failed\n{}", world.team.platform.edge.log());
    println!("the rest by renewals within {over}: {by_renewal:.1?}; {handshakes} handshakes, {bad} failed");

    // Never back, and the legacy keys can go.
    let kept: Value = serde_json::from_slice(&world.import(&directory, &rsa).stdout).unwrap();
    assert_eq!(kept["failed"], serde_json::json!([]));
    assert!(kept["kept"].as_array().unwrap()[0][1].as_str().unwrap().contains("never takes its place"), "{kept}");
    world.forget_legacy_keys();
    world.restart_time("after the migration, without the legacy keys", &sites[0]).await;
    world.served(&sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_takes_everything_out_again() {
    let world = World::new(3).await;
    let (_, archive, other) = world.write_sites(3);
    world.imported(&archive, &["--legacy-suite", "rsa-oaep-sha256", "--legacy-public", &world.path("rsa.pub")], 3);
    world.imported(&other, &["--legacy-suite", "ecies-secp256k1", "--legacy-public", &world.path("ecies.pub")], 1);
    world.await_suites(&[("rsa-oaep-sha256", 3), ("ecies-secp256k1", 1)]).await;
    let own: DnsName = "own.customers.test".parse().unwrap();
    world.team.platform.add_site(&own).await;
    world.team.platform.wait_active(&own, 1).await;

    let out = world.path("export");
    let rsa = world.legacy_key("rsa-oaep-sha256", "rsa.key");
    let ecies = world.legacy_key("ecies-secp256k1", "ecies.key");
    let unseal = world.team.old_key();
    let keys = ["export", "--out", &out, "--unseal-key", &unseal, "--legacy-key", &rsa];
    let refused = world.team.certctl("admin", &keys).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "without the flag that says what it does: {refused:?}");
    let keys = [keys.as_slice(), &["--write-private-keys-in-the-clear"]].concat();
    let without_ecies = world.team.refused("admin", &keys);
    assert!(
        without_ecies.contains("1 sites could not be exported, among them ecies.customers.test"),
        "{without_ecies}"
    );
    let keys = [keys.as_slice(), &["--legacy-key", &ecies]].concat();
    let outcome = world.certctl(&keys);
    assert_eq!((&outcome["written"], &outcome["unchanged"]), (&1.into(), &4.into()), "it goes on where it was");
    for site in world.sites.iter().chain([&own]) {
        let folder = Path::new(&out).join(site.as_str());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("key.pem"))), (0o700, 0o600));
        let key = KeyPair::from_pem(&fs::read_to_string(folder.join("key.pem")).unwrap()).unwrap();
        let bundle = world.team.platform.bundle(site).await;
        assert_eq!(key.subject_public_key_info(), bundle.leaf_spki().unwrap(), "{site}");
        let chain = pem::parse_many(fs::read_to_string(folder.join("chain.pem")).unwrap()).unwrap();
        assert_eq!(chain[0].contents(), bundle.chain()[0]);
        let about: Value = serde_json::from_str(&fs::read_to_string(folder.join("site.json")).unwrap()).unwrap();
        assert_eq!(about["upstream"], format!("http://{}", world.team.platform.upstream), "{about}");
    }
    let sealed = world.path("sealed");
    assert_eq!(world.certctl(&["export", "--out", &sealed, "--sealed"])["written"], 5);
    let bytes = fs::read(Path::new(&sealed).join(own.as_str()).join("bundle.bin")).unwrap();
    assert_eq!(certseal_seal::Bundle::parse(&bytes).unwrap(), world.team.platform.bundle(&own).await);
}

/// certman refuses imports that do not fit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certman_takes_from_elsewhere_only_what_fits() {
    let world = World::new(1).await;
    let (directory, _, other) = world.write_sites(0);
    let site = &world.sites[0];
    let platform = &world.team.platform;
    let certman = platform.certman_as("platform");
    let admin = platform.certman_as("admin");
    let pem = |path: &Path| {
        let blocks = pem::parse_many(fs::read(path).unwrap()).unwrap();
        blocks.iter().map(|block| Base64(block.contents().to_vec())).collect::<Vec<_>>()
    };
    let chain = pem(&directory.join(site.as_str()).join("chain.pem"));
    let blob = fs::read(directory.join(site.as_str()).join("key.sealed")).unwrap();
    let sealed = LegacyKey::new(LegacySuite::RsaOaepSha256, KeyId([7; 16]), blob).unwrap();
    let good = Import { site: platform.request(site), chain, sealed: Base64(sealed.to_bytes()) };
    let refused = async |import: &Import| certman.import(site, import).await.unwrap_err().to_string();

    let foreign = pem(&other.join("ecies.customers.test/chain.pem"));
    assert!(refused(&Import { chain: foreign, ..good.clone() }).await.contains("is not for site-0"));
    assert!(refused(&Import { chain: Vec::new(), ..good.clone() }).await.contains("the leaf first, got none"));
    let expired = vec![Base64(world.certificate(site, -1).0.der().to_vec())];
    assert!(refused(&Import { chain: expired, ..good.clone() }).await.contains("that expired at"));
    let no_key = Base64(b"CSLG".to_vec());
    assert!(refused(&Import { sealed: no_key, ..good.clone() }).await.contains("the sealed key: "));

    // Sealed anew: only what fits the stored certificate, from an administrator. certman cannot see whether the key does.
    let rsa = ["--legacy-suite", "rsa-oaep-sha256", "--legacy-public", &world.path("rsa.pub")];
    world.imported(&directory, &rsa, 1);
    platform.wait_active(site, 1).await;
    world.served(std::slice::from_ref(site)).await;
    // Legacy keys name no pool, and every edge has their key pair: no edge gets those of other pools by asking.
    let query = SealedQuery { pool: Some("us".parse().unwrap()), legacy: true, ..SealedQuery::default() };
    let listed = platform.store_as("edge-us").sealed(&query).await.unwrap_err().to_string();
    assert!(listed.contains("this needs role admin"), "{listed}");
    let bundle = platform.bundle(site).await;
    let recipient = |pool: &str| {
        let text = fs::read_to_string(platform.pki(&format!("{pool}-1.unseal.pem"))).unwrap();
        UnsealKey::from_pem(&text).unwrap().recipient()
    };
    let names = platform.request(site).names;
    let spki = spki_digest(bundle.leaf_spki().unwrap());
    let other_key = TlsPrivateKey::new(KeyKind::EcdsaP256, KeyPair::generate().unwrap().serialize_der());
    let drafted = |key_version: u64, spki: Digest, pools: &[&str]| {
        let recipients: Vec<_> = pools.iter().map(|pool| recipient(pool)).collect();
        let request = SealRequest { suite: Suite::P256, names: &names, spki, key_version, recipients: &recipients };
        let draft = draft(&request, &other_key, bundle.statement().signer).unwrap();
        Reseal { draft: Base64(draft.to_bytes()) }
    };
    for (reseal, why) in [
        (drafted(3, spki, &["eu"]), "expected a draft for version 2, got version 3"),
        (drafted(2, Digest([1; 32]), &["eu"]), "with the key of the stored certificate"),
        (drafted(2, spki, &["us"]), "sealed to the active unseal keys of the site's pools and to nothing else"),
        (drafted(2, spki, &["eu", "us"]), "sealed to the active unseal keys of the site's pools and to nothing else"),
    ] {
        let error = admin.reseal(site, &reseal).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let false_key = drafted(2, spki, &["eu"]);
    assert!(certman.reseal(site, &false_key).await.unwrap_err().to_string().contains("needs role admin"));
    let before = platform.certman_as("admin").site(site).await.unwrap().unwrap();
    admin.reseal(site, &false_key).await.unwrap();
    let after = platform.wait_active(site, 2).await;
    assert_eq!((after.renew_at, after.not_after), (before.renew_at, before.not_after));
    // Edges compare: they refuse it, and go on with what they have.
    eventually(Duration::from_secs(10), || platform.edge_gauge("certedge_refused_items") == 1.0);
    world.served(std::slice::from_ref(site)).await;
    certman.renew(site, &Renewal::default()).await.unwrap();
    platform.wait_active(site, 3).await;
    world.served(std::slice::from_ref(site)).await;

    // Never back to what was imported, under whatever certificate.
    let (certificate, _) = world.certificate(site, 50);
    let back = Import { chain: vec![Base64(certificate.der().to_vec())], ..good };
    assert!(refused(&back).await.contains("an imported key never takes its place"));
}

fn first(plan: &Value) -> DnsName {
    plan["sites"][0].as_str().unwrap().parse().unwrap()
}

/// A certificate that ends in so many days.
fn signed(site: &DnsName, issuer: &Issuer<'_, KeyPair>, days: i64) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![site.to_string()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    let day = |days: i64| SystemTime::from(Timestamp::now() + SignedDuration::from_hours(days * 24));
    params.not_before = day(-2).into();
    params.not_after = day(days).into();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate, key)
}

/// certseal with nothing in it, and a platform with keys of its own.
struct World {
    team: Team,
    /// The platform's sites; the last one is sealed by `ecies`.
    sites: Vec<DnsName>,
    rsa: OaepPublicEncryptingKey,
    ecies: ecies::PublicKey,
}

impl World {
    async fn new(count: usize) -> Self {
        let platform = Platform::start(Authority::Local).await;
        let root = platform.pki("local-ca.pem");
        let path = |name: &str| platform.dir.path().join(name);
        let rsa = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(&rsa.public_key()).unwrap();
        let (secret, point) = ecies::utils::generate_keypair();
        let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        fs::write(path("rsa.pub"), pem::encode(&pem::Pem::new("PUBLIC KEY", public.as_ref()))).unwrap();
        fs::write(path("ecies.pub"), hex(&point.serialize_compressed())).unwrap();
        let private = pem::encode(&pem::Pem::new("PRIVATE KEY", private.as_ref()));
        certseal_service::config::write_private(&path("rsa.key"), &private).unwrap();
        certseal_service::config::write_private(&path("ecies.key"), &hex(&secret.serialize())).unwrap();
        let config = path("certedge.toml");
        let mut text = fs::read_to_string(&config).unwrap();
        for (suite, file) in [("rsa-oaep-sha256", "rsa.key"), ("ecies-secp256k1", "ecies.key")] {
            text += &format!("[[legacy_keys]]\nsuite = \"{suite}\"\nfile = \"{}\"\n", path(file).display());
        }
        fs::write(&config, text).unwrap();
        let sites = (0..count).map(|n| format!("site-{n}.customers.test")).chain(["ecies.customers.test".to_owned()]);
        let sites = sites.map(|name| name.parse().unwrap()).collect();
        let mut team = Team::over(platform, root);
        team.platform.edge.kill();
        team.platform.restart_edge();
        Self { team, sites, rsa: OaepPublicEncryptingKey::new(rsa.public_key()).unwrap(), ecies: point }
    }

    fn path(&self, name: &str) -> String {
        self.team.platform.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn legacy_key(&self, suite: &str, file: &str) -> String {
        format!("{suite}={}", self.path(file))
    }

    /// Writes the sites as a platform would: the first `archived` into an archive, then a directory, and that of the
    /// `ecies` site.
    fn write_sites(&self, archived: usize) -> (PathBuf, PathBuf, PathBuf) {
        let [directory, folder, other] = ["sites", "archived", "other"].map(|name| PathBuf::from(self.path(name)));
        let (ca, issuer) = self.issuer();
        let (ecies_site, rsa_sites) = self.sites.split_last().unwrap();
        for (place, site) in rsa_sites.iter().enumerate() {
            let parent = if place < archived { &folder } else { &directory };
            self.write_site(parent, site, &issuer, &ca, |plain| self.wrap(plain));
        }
        fs::create_dir_all(&directory).unwrap();
        fs::create_dir_all(&folder).unwrap();
        let seal = |plain: &[u8]| ecies::encrypt(&self.ecies.serialize(), plain).unwrap();
        self.write_site(&other, ecies_site, &issuer, &ca, seal);
        let upstream = self.team.platform.upstream;
        let own = format!("names = [\"{ecies_site}\"]\nupstream = \"http://{upstream}\"\npools = [\"{POOL}\"]\n");
        fs::write(other.join(ecies_site.as_str()).join("site.toml"), own).unwrap();
        let archive = PathBuf::from(self.path("sites.tar"));
        run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&folder).arg("."));
        (directory, archive, other)
    }

    /// The CA's certificate, and the CA.
    fn issuer(&self) -> (String, Issuer<'static, KeyPair>) {
        let ca = fs::read_to_string(self.team.platform.pki("local-ca.pem")).unwrap();
        let key = fs::read_to_string(self.team.platform.pki("local-ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&key).unwrap()).unwrap();
        (ca, issuer)
    }

    fn certificate(&self, site: &DnsName, days: i64) -> (Certificate, KeyPair) {
        signed(site, &self.issuer().1, days)
    }

    fn write_site(
        &self,
        parent: &Path,
        site: &DnsName,
        issuer: &Issuer<'_, KeyPair>,
        ca: &str,
        seal: impl Fn(&[u8]) -> Vec<u8>,
    ) {
        let folder = parent.join(site.as_str());
        fs::create_dir_all(&folder).unwrap();
        let (leaf, key) = signed(site, issuer, 89);
        fs::write(folder.join("chain.pem"), leaf.pem() + ca).unwrap();
        fs::write(folder.join("key.sealed"), seal(key.serialize_pem().as_bytes())).unwrap();
    }

    fn wrap(&self, plain: &[u8]) -> Vec<u8> {
        let mut aes_key = [0; 32];
        aws_lc_rs::rand::fill(&mut aes_key).unwrap();
        let mut blob = vec![0; self.rsa.ciphertext_size()];
        self.rsa.encrypt(&OAEP_SHA256_MGF1SHA256, &aes_key, &mut blob, None).unwrap();
        let (mut payload, nonce) = (plain.to_vec(), [3; 12]);
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &aes_key).unwrap())
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut payload)
            .unwrap();
        [blob.as_slice(), &nonce, &payload].concat()
    }

    fn import(&self, path: &Path, how: &[&str]) -> std::process::Output {
        let upstream = format!("http://{}", self.team.platform.upstream);
        let args = ["import", path.to_str().unwrap(), "--pool", POOL, "--upstream", &upstream, "--json"];
        self.team.platform.certctl_as("platform", &[args.as_slice(), how].concat()).output().unwrap()
    }

    fn imported(&self, path: &Path, how: &[&str], count: usize) {
        let output = self.import(path, how);
        assert!(output.status.success(), "{output:?}\n{}", self.team.platform.certman.log());
        let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&outcome["taken"], &outcome["sites"]), (&count.into(), &count.into()), "{outcome}");
    }

    fn certctl(&self, args: &[&str]) -> Value {
        self.team.json("admin", args)
    }

    async fn await_suites(&self, expected: &[(&str, usize)]) {
        let expected = expected.iter().map(|(name, count)| ((*name).to_owned(), *count as u64)).collect();
        self.await_store(|suites| *suites == expected).await;
    }

    async fn await_left(&self, count: usize) {
        let legacy = |suites: &std::collections::BTreeMap<String, u64>| {
            suites.iter().filter(|(name, _)| *name != "p256").map(|(_, count)| *count).sum::<u64>()
        };
        self.await_store(|suites| legacy(suites) == count as u64).await;
    }

    async fn await_store(&self, is_it: impl Fn(&std::collections::BTreeMap<String, u64>) -> bool) {
        let store = self.team.platform.store_as("admin");
        let deadline = Instant::now() + Duration::from_secs(60 + self.sites.len() as u64);
        loop {
            let suites = store.inventory().await.unwrap().suites;
            if is_it(&suites) {
                return;
            }
            assert!(Instant::now() < deadline, "{suites:?}\n{}", self.team.platform.certman.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the edge serves each of them.
    async fn served(&self, sites: &[DnsName]) {
        let deadline = Instant::now() + Duration::from_secs(30 + sites.len() as u64 / 10);
        for site in sites {
            while let Err(error) = self.connect(site).await {
                assert!(Instant::now() < deadline, "{site}: {error:#}\n{}", self.team.platform.edge.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn connect(&self, site: &DnsName) -> anyhow::Result<Connection> {
        Connection::open(self.team.platform.addresses["https"], site, &self.team.root).await
    }

    fn load(&self) -> Load {
        Load::start(&self.team.platform, &self.sites, &self.team.root)
    }

    /// From the start of the edge's process to its first handshake.
    async fn restart_time(&mut self, when: &str, site: &DnsName) {
        self.team.platform.edge.kill();
        let began = Instant::now();
        self.team.platform.restart_edge();
        self.served(std::slice::from_ref(site)).await;
        println!("the edge's start to its first handshake, {when}: {:.0?}", began.elapsed());
    }

    fn forget_legacy_keys(&self) {
        let config = self.path("certedge.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.split("[[legacy_keys]]").next().unwrap()).unwrap();
        fs::remove_file(self.path("rsa.key")).unwrap();
        fs::remove_file(self.path("ecies.key")).unwrap();
    }
}
