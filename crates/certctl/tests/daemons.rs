//! `site` and `bundle` against daemons that answer as certman and certstore do.

#![allow(clippy::unwrap_used)]

#[path = "../../ceremonies/tests/fake/mod.rs"]
mod fake;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::{get, post, put},
};
use certseal_ceremonies::{
    keys::{self, KeyPlace},
    pki,
};
use certseal_seal::{
    Bundle, KeyKind, Recipient, SealRequest, SigningKey, Suite, TlsPrivateKey, VerifyingKey, seal, sha256, spki_digest,
};
use certseal_service::{ShutdownHandle, problem::Refusal};
use certseal_wire::{BundleInfo, DnsName, Epoch, KeyRing, NameSet, ProblemKind, SiteList, SiteState, SiteStatus};
use rcgen::PublicKeyData;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn adding_waits_until_the_site_is_active() {
    let daemon = certman([PENDING, WAITING, ACTIVE]).await;
    let add = ["site", "add", "a.example", "--name", "b.example", "--upstream", "http://h:1", "--pool", "eu"];
    let ran = daemon.certctl(&[&add[..], &["--json", "--wait"]].concat()).await;
    assert_eq!((ran.status.code(), &json(&ran.stdout)["state"]), (Some(0), &"active".into()), "{ran:?}");
    assert_eq!(daemon.asked.load(Ordering::Relaxed), 3);
    // A changed site is active with its old certificate first.
    let daemon = certman([REPLACING, ACTIVE]).await;
    let ran = daemon.certctl(&[&add[..], &["--json", "--wait"]].concat()).await;
    assert_eq!((ran.status.code(), &json(&ran.stdout)["order"]), (Some(0), &Value::Null), "{ran:?}");
    // Without --wait the first answer is enough.
    let daemon = certman([PENDING]).await;
    let ran = daemon.certctl(&[&add[..], &["--json"]].concat()).await;
    assert_eq!((ran.status.code(), &json(&ran.stdout)["state"]), (Some(0), &"pending".into()), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_tells_a_failed_site_from_one_that_takes_longer() {
    let add = ["site", "add", "a.example", "--upstream", "http://h:1", "--pool", "eu", "--wait", "--timeout", "1"];
    let ran = certman([FAILED]).await.certctl(&add).await;
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(text(&ran.stderr).contains("point its A record"), "{ran:?}");
    let ran = certman([WAITING]).await.certctl(&add).await;
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    assert!(text(&ran.stderr).contains("waiting (authorizing) after 1 s"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_follows_all_pages_and_keeps_control_characters_off_the_terminal() {
    let daemon = certman([FAILED]).await;
    let ran = daemon.certctl(&["site", "list"]).await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let table = text(&ran.stdout);
    assert_eq!(table.lines().filter(|line| line.contains(".example ")).count(), 5, "{table}");
    assert!(!table.contains('\u{1b}'), "{table:?}");
    let ran = daemon.certctl(&["site", "list", "--json"]).await;
    assert_eq!(json(&ran.stdout).as_array().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_not_there_is_told_apart() {
    let daemon = certman([]).await;
    for command in ["status", "renew"] {
        let ran = daemon.certctl(&["site", command, "a.example", "--json"]).await;
        assert_eq!(ran.status.code(), Some(4), "{ran:?}");
    }
    let ran = daemon.certctl(&["site", "remove", "a.example"]).await;
    assert_eq!(ran.status.code(), Some(0), "removing twice is done, too: {ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genuine_bundle_is_shown_as_verified_and_a_swapped_one_is_not() {
    let daemon = certstore("a.example").await;
    let ran = daemon.certctl(&["bundle", "show", "a.example", "--json"]).await;
    assert_eq!((ran.status.code(), &json(&ran.stdout)["verified"]), (Some(0), &Value::Null), "{ran:?}");

    let security = daemon.path("security.pub");
    let show = |name| ["bundle", "show", name, "--json", "--security-public", security.to_str().unwrap()];
    let ran = daemon.certctl(&show("a.example")).await;
    let view = json(&ran.stdout);
    assert_eq!((ran.status.code(), &view["verified"]), (Some(0), &true.into()), "{ran:?}");
    assert_eq!(view["certificate"]["names"], serde_json::json!(["a.example"]));
    assert_eq!(view["envelope"]["stanzas"][0]["pool"], "eu");

    // The same bytes under another name.
    let ran = daemon.certctl(&show("b.example")).await;
    assert_eq!((ran.status.code(), &json(&ran.stdout)["verified"]), (Some(1), &false.into()), "{ran:?}");
    assert!(text(&ran.stderr).contains("bundle of a.example"), "{ran:?}");

    // A key of another security team.
    let other = daemon.path("other.pub");
    std::fs::write(&other, SigningKey::generate().unwrap().verifying_key().to_pem()).unwrap();
    let ran = daemon.certctl(&["bundle", "show", "a.example", "--security-public", other.to_str().unwrap()]).await;
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(text(&ran.stdout).contains("NOT GENUINE"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ring_is_listed_only_if_its_signature_counts() {
    let daemon = certstore("a.example").await;
    let list = |key: &Path| ["keys", "list", "--json", "--security-public", key.to_str().unwrap()].map(str::to_owned);
    let ran = daemon.certctl(&list(&daemon.path("security.pub")).each_ref().map(String::as_str)).await;
    assert_eq!((ran.status.code(), &json(&ran.stdout)["verified"]), (Some(0), &true.into()), "{ran:?}");
    let ran = daemon.certctl(&list(&daemon.path("issuer.pub")).each_ref().map(String::as_str)).await;
    assert_eq!((ran.status.code(), ran.stdout.len()), (Some(1), 0), "{ran:?}");
}

/// A daemon with a PKI of its own.
struct Daemon {
    dir: tempfile::TempDir,
    url: String,
    asked: Arc<AtomicUsize>,
    _shutdown: ShutdownHandle,
}

impl Daemon {
    async fn start(dir: tempfile::TempDir, identity: &str, app: Router) -> Self {
        let (url, shutdown) = fake::serve(dir.path(), identity, app).await;
        Self { dir, url, asked: Arc::default(), _shutdown: shutdown }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Runs the program with the identity `admin`.
    async fn certctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_certctl"));
        command.args(args).env_remove("CERTCTL_CONFIG").env_remove("CERTCTL_SECURITY_PUBLIC");
        command.env("CERTCTL_STORE", &self.url).env("CERTCTL_CERTMAN", &self.url);
        for (variable, file) in [("CA", "ca.pem"), ("CERT", "admin.pem"), ("KEY", "admin.key")] {
            command.env(format!("CERTCTL_{variable}"), self.path(file));
        }
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
}

fn fresh_pki() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    pki::init(dir.path(), &Default::default()).unwrap();
    dir
}

/// A certman whose site is in one state after the other, and stays in the last; without states it knows no site.
async fn certman<const N: usize>(states: [Stage; N]) -> Daemon {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let next = move || {
        let last = states.len().checked_sub(1)?;
        states.get(counter.fetch_add(1, Ordering::Relaxed).min(last)).map(|stage| status("a.example", *stage))
    };
    let answer = move || {
        let next = next.clone();
        async move { next().map(Json).ok_or_else(|| Refusal::new(ProblemKind::NotFound, "no such site")) }
    };
    let gone = || async { Refusal::new(ProblemKind::NotFound, "no such site") };
    let app = Router::new()
        .route("/v1/sites/{site}", put(answer.clone()).get(answer).delete(gone))
        .route("/v1/sites/{site}/renew", post(gone))
        .route("/v1/sites", get(page));
    Daemon { asked, ..Daemon::start(fresh_pki(), "certman-server", app).await }
}

/// Five sites in pages of two.
async fn page(Query(query): Query<std::collections::HashMap<String, String>>) -> Json<SiteList> {
    let names = ["a.example", "b.example", "c.example", "d.example", "e.example"];
    let after = query.get("after").map_or("", String::as_str);
    let rest: Vec<_> = names.into_iter().filter(|name| *name > after).collect();
    let sites: Vec<_> = rest.iter().take(2).map(|name| status(name, REPLACING)).collect();
    let next = (rest.len() > 2).then(|| sites[1].site.clone());
    Json(SiteList { sites, next })
}

/// A state, and whether an order is under way.
type Stage = (SiteState, bool);

const PENDING: Stage = (SiteState::Pending, true);
const WAITING: Stage = (SiteState::Waiting, true);
const REPLACING: Stage = (SiteState::Active, true);
const ACTIVE: Stage = (SiteState::Active, false);
const FAILED: Stage = (SiteState::Failed, true);

fn status(site: &str, (state, under_way): Stage) -> SiteStatus {
    let diagnosis = "\u{1b}[2Jpoint its A record here";
    let order = serde_json::json!({"step": "authorizing", "failures": 1, "retry_at": null, "diagnosis": diagnosis});
    serde_json::from_value(serde_json::json!({
        "site": site, "names": [site], "upstream": "http://h:1", "pools": ["eu"], "state": state, "version": 0,
        "authority": null, "not_after": null, "renew_at": null,
        "order": under_way.then_some(order),
    }))
    .unwrap()
}

/// A certstore that answers with the bundle of `site`, whatever the name in question.
async fn certstore(site: &str) -> Daemon {
    let dir = fresh_pki();
    let key = |file: &str| SigningKey::from_pem(&std::fs::read_to_string(dir.path().join(file)).unwrap()).unwrap();
    let (security, issuer) = (key("security.key"), key("issuer.key"));
    let unseal =
        KeyPlace::File(dir.path().join("eu.unseal")).make_key(&"eu".parse().unwrap(), Epoch(1), Suite::P256).unwrap();
    let issuers: [VerifyingKey; 1] = [issuer.verifying_key()];
    let ring = security.sign(&keys::add_pool(KeyRing::default(), &unseal, &issuers).unwrap());
    let bundle = bundle(&site.parse().unwrap(), unseal.recipient(), &issuer).to_bytes().unwrap();
    let app = Router::new()
        .route("/v1/ring", get(move || async move { Json(ring) }))
        .route("/v1/bundles/{site}", get(|State(bundle): State<Vec<u8>>| async move { bundle }))
        .with_state(bundle);
    Daemon::start(dir, "certstore", app).await
}

fn bundle(site: &DnsName, recipient: Recipient, issuer: &SigningKey) -> Bundle {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new([site.to_string()]).unwrap().self_signed(&key).unwrap();
    let chain = vec![certificate.der().to_vec()];
    let names = NameSet::try_from(vec![site.clone()]).unwrap();
    let request = SealRequest {
        suite: Suite::P256,
        names: &names,
        spki: spki_digest(&key.subject_public_key_info()),
        key_version: 1,
        recipients: std::slice::from_ref(&recipient),
    };
    let envelope = seal(&request, &TlsPrivateKey::new(KeyKind::EcdsaP256, key.serialize_der()), issuer).unwrap();
    let info = BundleInfo {
        site: site.clone(),
        names,
        version: 1,
        pools: vec![recipient.pool().clone()],
        chain: Bundle::chain_digest(&chain),
        envelope: sha256(&envelope.header().to_bytes()),
        not_before: "2026-01-01T00:00:00Z".parse().unwrap(),
        not_after: "2026-04-01T00:00:00Z".parse().unwrap(),
        authority: "test".to_owned(),
    };
    Bundle::new(issuer.sign(&info), chain, envelope)
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
