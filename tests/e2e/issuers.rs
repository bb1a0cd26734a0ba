//! certman's issuer key is changed, in peace and after somebody took it, against a real CA.

use std::{fs, process::Command, time::Duration};

use certseal_seal::{Bundle, KeyKind, SealRequest, SigningKey, TlsPrivateKey, VerifyingKey, ring_recipient, seal};
use certseal_wire::{
    AcmeAccounts, BundleInfo, Checkpoint, DnsName, HttpsMode, KeyRing, NameSet, PoolName, Route, Upstream,
};
use jiff::Timestamp;

use crate::{
    edge::{eventually, eventually_async},
    pebble::Pebble,
    platform::{Authority, POOL, Platform},
    team::{Load, Team},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routine_change_of_the_issuer_key_costs_no_handshake_and_no_order() {
    let pebble = Pebble::start(0);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let mut team = Team::over(platform, pebble.issuing_root()).with_sites(4).await;
    let load = Load::start(&team.platform, &team.sites, &team.root);
    let new = new_issuer(&team.platform);

    // The security team's command, which waits meanwhile. Killed once, it is run again.
    let command = |team: &Team| replace(&team.platform, &["--renew", "--timeout", "120"]);
    let mut killed = command(&team).spawn().unwrap();
    eventually_async("the ring lists both", async || ring(&team.platform).await.issuers.len() == 2).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let replacing = command(&team).spawn().unwrap();
    // Orders that are under way while certman gets its new key.
    let late: Vec<DnsName> = (0..3).map(|n| format!("late-{n}.customers.test").parse().unwrap()).collect();
    for name in &late {
        team.platform.add_site(name).await;
    }
    give_certman_the_new_key(&mut team.platform);
    let outcome = tokio::task::spawn_blocking(move || replacing.wait_with_output().unwrap()).await.unwrap();
    assert!(outcome.status.success(), "{outcome:?}\n{}", team.platform.certman.log());

    let listed = ring(&team.platform).await;
    assert_eq!(listed.issuers.iter().map(|issuer| issuer.id).collect::<Vec<_>>(), [new.id()]);
    for name in team.sites.iter().chain(&late) {
        team.platform.wait_active(name, 1).await;
        let bundle = team.platform.bundle(name).await;
        assert_eq!(bundle.statement().signer, new.id(), "{name}");
        eventually(Duration::from_secs(20), || team.platform.curl(&team.root, name).status.success());
    }
    let (handshakes, failed) = load.stop().await;
    assert_eq!(failed, 0, "{failed} of {handshakes} failed\n{}", team.platform.edge.log());
    assert_eq!(team.platform.edge_gauge("certedge_withheld_items"), 0.0);
    eventually(Duration::from_secs(20), || team.platform.edge_gauge("certedge_checkpoint_age_seconds") < 5.0);
    // Run once more, there is nothing to do.
    assert!(command(&team).output().unwrap().status.success());
}

/// A thief of the issuer key signs the highest version that there is of everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_whose_issuer_key_was_taken_comes_back_though_every_version_was_used_up() {
    let pebble = Pebble::start(0);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let mut team = Team::over(platform, pebble.issuing_root()).with_sites(2).await;
    let text = fs::read_to_string(team.platform.pki("issuer.key")).unwrap();
    use_up_versions(&team.platform, &SigningKey::from_pem(&text).unwrap(), &team.sites).await;
    eventually(Duration::from_secs(20), || !team.platform.curl(&team.root, &team.sites[0]).status.success());

    // The control: while the old issuer is listed, nothing honest gets through.
    let platform = &team.platform;
    let certman = platform.certman_as("platform");
    certman.renew(&team.sites[0], &Default::default()).await.unwrap();
    let is_stuck = || platform.certman.log().contains("the highest version is signed already");
    eventually(Duration::from_secs(30), is_stuck);

    let new = new_issuer(&team.platform);
    team.platform.certman.kill();
    let outcome = replace(&team.platform, &["--compromised"]).output().unwrap();
    assert!(outcome.status.success(), "{outcome:?}");
    give_certman_the_new_key(&mut team.platform);
    let late: DnsName = "late.customers.test".parse().unwrap();
    team.platform.add_site(&late).await;
    for name in team.sites.iter().chain([&late]) {
        eventually_async("the site is served again", async || {
            let served = team.platform.curl(&team.root, name);
            served.status.success() && served.stdout.starts_with(b"hello from")
        })
        .await;
        let bundle = team.platform.bundle(name).await;
        assert_eq!(bundle.statement().signer, new.id(), "{name}");
        let info: BundleInfo = serde_json::from_slice(&bundle.statement().payload.0).unwrap();
        assert!(info.version < 10, "{name} is at version {}", info.version);
    }
    eventually(Duration::from_secs(20), || team.platform.edge_gauge("certedge_checkpoint_age_seconds") < 5.0);
    assert_eq!(team.platform.edge_gauge("certedge_withheld_items"), 0.0, "{}", team.platform.edge.log());
}

/// Signs and stores, as the issuer, the highest version of every kind of record.
async fn use_up_versions(platform: &Platform, taken: &SigningKey, sites: &[DnsName]) {
    let store = platform.store_as("certman");
    let pool: PoolName = POOL.parse().unwrap();
    let ring = ring(platform).await;
    for site in sites {
        let names = NameSet::try_from(vec![site.clone()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![site.to_string()]).unwrap().self_signed(&key).unwrap();
        let recipient = ring_recipient(&ring, &pool).unwrap();
        let request = SealRequest {
            suite: recipient.suite(),
            names: &names,
            spki: certseal_seal::spki_digest(&rcgen::PublicKeyData::subject_public_key_info(&key)),
            key_version: u64::MAX,
            recipients: &[recipient],
        };
        let private = TlsPrivateKey::new(KeyKind::EcdsaP256, key.serialize_der());
        let envelope = seal(&request, &private, taken).unwrap();
        let chain = vec![leaf.der().to_vec()];
        let info = BundleInfo {
            site: site.clone(),
            names: names.clone(),
            version: u64::MAX,
            pools: vec![pool.clone()],
            chain: Bundle::chain_digest(&chain),
            envelope: envelope.header().hash(),
            not_before: Timestamp::now(),
            not_after: Timestamp::MAX,
            authority: "nobody".into(),
        };
        let bundle = Bundle::new(taken.sign(&info), chain, envelope).to_bytes().unwrap();
        store.put_bundle(site, bundle).await.unwrap();
        let upstreams = vec!["http://127.0.0.1:9".parse::<Upstream>().unwrap().into()];
        let route = Route {
            site: site.clone(),
            names,
            version: u64::MAX,
            pools: vec![pool.clone()],
            upstreams,
            https: HttpsMode::Redirect,
        };
        store.put_route(site, &taken.sign(&route)).await.unwrap();
    }
    let accounts = AcmeAccounts { version: u64::MAX, thumbprints: vec!["the-thief-s-own".into()] };
    store.put_accounts(&taken.sign(&accounts)).await.unwrap();
    let now = Timestamp::now();
    let checkpoint =
        Checkpoint { pool: pool.clone(), version: u64::MAX, issued_at: now, complete_since: now, changes: vec![] };
    store.put_checkpoint(&pool, &taken.sign(&checkpoint)).await.unwrap();
}

fn new_issuer(platform: &Platform) -> VerifyingKey {
    let key = SigningKey::generate().unwrap();
    certseal_service::config::write_private(&platform.pki("issuer-2.key"), &key.expose_pem().unwrap()).unwrap();
    fs::write(platform.pki("issuer-2.pub"), key.verifying_key().to_pem()).unwrap();
    key.verifying_key()
}

fn give_certman_the_new_key(platform: &mut Platform) {
    platform.certman.kill();
    let config = platform.dir.path().join("certman.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("/issuer.key", "/issuer-2.key")).unwrap();
    platform.restart_certman();
}

fn replace(platform: &Platform, more: &[&str]) -> Command {
    let (public, security) = (platform.pki("issuer-2.pub"), platform.pki("security.key"));
    let mut command = platform.certctl_command(&["--json", "keys", "issuers", "replace"]);
    command.arg("--public").arg(public).arg("--security-key").arg(security).args(more);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

async fn ring(platform: &Platform) -> KeyRing {
    let signed = platform.store_as("admin").ring().await.unwrap().unwrap();
    serde_json::from_slice(&signed.payload.0).unwrap()
}
