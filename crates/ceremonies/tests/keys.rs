//! `keys generate` against a store that takes the ring, refuses it, or breaks.

#![allow(clippy::unwrap_used)]

mod fake;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use certseal_ceremonies::{
    keys::{self, KeyPlace, NewPool},
    pki::{self, PkiOptions},
    ring_client::RingClient,
};
use certseal_client::{Connection, StoreClient};
use certseal_seal::{RingMark, SigningKey, Suite, VerifyingKey, accept_ring};
use certseal_service::{ShutdownHandle, problem::Refusal};
use certseal_unseal::UnsealKey;
use certseal_wire::{KeyRing, ProblemKind, PutOutcome, Signed};

#[tokio::test(flavor = "multi_thread")]
async fn the_key_file_is_there_before_the_ring_names_it() {
    let world = World::start(Answer::Take).await;
    let first = world.generate("eu", "eu-1.pem").await.unwrap();
    let second = world.generate("us", "us-1.pem").await.unwrap();
    assert_eq!((first.version, second.version), (1, 2));
    let stored = world.stored().unwrap();
    assert_eq!(stored, second);
    for (entry, file) in stored.keys.iter().zip(["eu-1.pem", "us-1.pem"]) {
        let key = UnsealKey::from_pem(&std::fs::read_to_string(world.path(file)).unwrap()).unwrap();
        assert_eq!(key.key_id(), entry.key_id);
    }
    assert_eq!(stored.issuers.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_has_a_key_and_a_file_that_is_there_change_nothing() {
    let world = World::start(Answer::Take).await;
    let ring = world.generate("eu", "eu-1.pem").await.unwrap();
    world.generate("eu", "eu-2.pem").await.unwrap_err();
    assert!(!world.path("eu-2.pem").exists(), "a key file was left behind for nothing");
    let error = world.generate("us", "eu-1.pem").await.unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
    assert_eq!(world.stored().unwrap(), ring);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_says_that_the_file_can_go_and_an_unclear_one_that_it_must_stay() {
    for (answer, advice) in [
        (Answer::Refuse(ProblemKind::Conflict), "delete"),
        (Answer::Refuse(ProblemKind::Forbidden), "can be deleted"),
        (Answer::Refuse(ProblemKind::Internal), "keep"),
        (Answer::Break, "keep"),
    ] {
        let world = World::start(answer).await;
        let error = world.generate("eu", "eu-1.pem").await.unwrap_err().to_string();
        assert!(error.contains(advice), "{answer:?}: {error}");
        assert!(world.path("eu-1.pem").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_another_signer_or_older_than_one_seen_is_not_built_upon() {
    let world = World::start(Answer::Take).await;
    let ring = KeyRing { version: 7, ..KeyRing::default() };
    *world.ring.lock().unwrap() = Some(SigningKey::generate().unwrap().sign(&ring));
    let error = world.generate("eu", "eu-1.pem").await.unwrap_err().to_string();
    assert!(error.contains("does not count"), "{error}");

    *world.ring.lock().unwrap() = Some(world.security.sign(&ring));
    let error = world.generate_after(8, "eu", "eu-1.pem").await.unwrap_err().to_string();
    assert!(error.contains("rolled it back"), "{error}");
    assert!(!world.path("eu-1.pem").exists());
    assert_eq!(world.generate_after(7, "eu", "eu-1.pem").await.unwrap().version, 8);

    *world.ring.lock().unwrap() = None;
    assert!(world.generate_after(8, "us", "us-1.pem").await.is_err());
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Take,
    Refuse(ProblemKind),
    Break,
}

/// A store that keeps one ring, with a fresh PKI.
struct World {
    dir: tempfile::TempDir,
    store: StoreClient,
    security: SigningKey,
    issuer: VerifyingKey,
    ring: Ring,
    _shutdown: ShutdownHandle,
}

type Ring = Arc<Mutex<Option<Signed>>>;

impl World {
    async fn start(answer: Answer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        pki::init(dir.path(), &PkiOptions::default()).unwrap();
        let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
        let security = SigningKey::from_pem(&read("security.key")).unwrap();
        let issuer = VerifyingKey::from_pem(&read("issuer.pub")).unwrap();
        let ring = Ring::default();
        let path = dir.path().to_owned();
        let app = Router::new().route("/v1/ring", get(get_ring).put(put_ring)).with_state((
            ring.clone(),
            answer,
            Arc::new(security.verifying_key()),
            path,
        ));
        let (url, shutdown) = fake::serve(dir.path(), "certstore", app).await;
        let tls = pki::tls_files(dir.path(), "admin").client_config(&["certstore"]).unwrap();
        let store = StoreClient::new(Connection::new(url.parse().unwrap(), tls));
        Self { dir, store, security, issuer, ring, _shutdown: shutdown }
    }

    async fn generate(&self, pool: &str, out: &str) -> anyhow::Result<KeyRing> {
        self.generate_after(0, pool, out).await
    }

    async fn generate_after(&self, seen: u64, pool: &str, out: &str) -> anyhow::Result<KeyRing> {
        let new = NewPool {
            pool: pool.parse()?,
            suite: Suite::P256,
            out: KeyPlace::File(self.path(out)),
            issuers: std::slice::from_ref(&self.issuer),
            seen: RingMark::of_version(seen),
        };
        let rings = RingClient::new(&self.store, self.security.verifying_key(), &self.path("state"));
        Ok(keys::generate(&rings, &self.security, &new).await?)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn stored(&self) -> Option<KeyRing> {
        let signed = self.ring.lock().unwrap().clone()?;
        Some(accept_ring(&signed, &self.security.verifying_key(), RingMark::default()).unwrap())
    }
}

type Stored = (Ring, Answer, Arc<VerifyingKey>, PathBuf);

async fn get_ring(State((ring, ..)): State<Stored>) -> impl IntoResponse {
    let ring = ring.lock().unwrap().clone();
    ring.map(Json).ok_or_else(|| Refusal::new(ProblemKind::NotFound, "there is no ring"))
}

async fn put_ring(
    State((ring, answer, security, dir)): State<Stored>,
    Json(signed): Json<Signed>,
) -> axum::response::Response {
    let next = accept_ring(&signed, &security, RingMark::default()).unwrap();
    assert!(holds_key(&dir, &next), "the ring came before the key file");
    match answer {
        Answer::Take => {
            *ring.lock().unwrap() = Some(signed);
            Json(PutOutcome { version: next.version, changed: true }).into_response()
        }
        Answer::Refuse(kind) => Refusal::new(kind, "no").into_response(),
        Answer::Break => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// Whether some key file in `dir` is that of the ring's newest entry.
fn holds_key(dir: &Path, ring: &KeyRing) -> bool {
    let newest = ring.keys.last().unwrap().key_id;
    std::fs::read_dir(dir).unwrap().any(|file| {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
        UnsealKey::from_pem(&text).is_ok_and(|key| key.key_id() == newest)
    })
}
