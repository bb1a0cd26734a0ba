//! A store that shows older key rings, or another one of the same version, never has them signed anew.

#![allow(clippy::unwrap_used)]

mod fake;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::IntoResponse,
    routing::{get, post},
};
use certseal_ceremonies::{
    keys::list_issuer,
    pki::{self, PkiOptions},
    ring_client::RingClient,
    rotation::{self, Run},
};
use certseal_client::{Connection, StoreClient};
use certseal_seal::{RingMark, SigningKey, Suite, sha256};
use certseal_service::ShutdownHandle;
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{
    Base64, EdgeList, Epoch, Inventory, KeyRing, KeyState, PutOutcome, Rotation, RotationId, RotationPlan,
    RotationReason, RotationState, Signed, UnsealEntry,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_or_seen_is_never_less_again_and_never_another() {
    let world = World::start().await;
    let (old, newest) = (world.ring(3), world.ring(4));
    world.show(&newest);
    world.rings("ours").current(RingMark::default()).await.unwrap();
    world.show(&old);
    let error = world.rings("ours").current(RingMark::default()).await.unwrap_err().to_string();
    assert!(error.contains("rolled it back"), "{error}");
    // The control: an operator who never saw the newer one takes it.
    assert_eq!(world.rings("a colleague's").current(RingMark::default()).await.unwrap().version, 3);

    let mut other = world.ring(4);
    list_issuer(&mut other, &SigningKey::generate().unwrap().verifying_key());
    world.show(&other);
    let error = world.rings("ours").current(RingMark::default()).await.unwrap_err().to_string();
    assert!(error.contains("two were signed"), "{error}");
    *world.shown.lock().unwrap() = Shown::default();
    assert!(world.rings("ours").current(RingMark::default()).await.unwrap_err().to_string().contains("hides it"));

    // A ring that is signed here counts from then on, though certstore never shows it.
    world.show(&newest);
    let ours = world.rings("ours");
    assert_eq!(ours.change(&world.security, RingMark::default(), |_| Ok(())).await.unwrap().version, 5);
    world.show(&newest);
    assert!(ours.change(&world.security, RingMark::default(), |_| Ok(())).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_that_cannot_be_kept_or_read_stops_everything() {
    let world = World::start().await;
    world.show(&world.ring(4));
    std::fs::write(world.dir.path().join("a file"), "").unwrap();
    let error = world.rings("a file").current(RingMark::default()).await.unwrap_err().to_string();
    assert!(error.contains("--state"), "{error}");
    world.rings("ours").current(RingMark::default()).await.unwrap();
    let memory = world.dir.path().join(format!("ours/ring-{}.json", world.security.verifying_key().id()));
    std::fs::write(&memory, "{").unwrap();
    let error = world.rings("ours").current(RingMark::default()).await.unwrap_err().to_string();
    assert!(error.contains("does not say which key ring"), "{error}");
}

/// A ring with one issuer that was removed since, for every step of a rotation that signs one.
#[tokio::test(flavor = "multi_thread")]
async fn no_step_of_a_rotation_signs_an_older_ring_anew() {
    // Each with an operator who remembers nothing: the signed plan protects them.
    for (state, whats_wrong) in [
        (RotationState::Approved, "rolled it back"),
        (RotationState::Announced, "rolled it back"),
        (RotationState::Active, "rolled it back"),
        (RotationState::Verified, "rolled it back"),
    ] {
        let world = World::start().await;
        let plan = world.plan(8, state);
        // The ring before the plan's: it lists what was removed.
        world.show(&world.ring(7));
        let outcome = world.take_step(&plan, state).await;
        let error = format!("{:#}", outcome.unwrap_err());
        assert!(error.contains(whats_wrong), "{state}: {error}");
        assert_eq!(world.signed(), None, "{state}: an old ring was signed anew");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_starts_from_exactly_the_plans_ring() {
    let world = World::start().await;
    let plan = world.plan(8, RotationState::Approved);
    world.show(&world.ring(9));
    let error = format!("{:#}", world.take_step(&plan, RotationState::Approved).await.unwrap_err());
    assert!(error.contains("make a new plan"), "{error}");
    let mut other = world.ring(8);
    list_issuer(&mut other, &SigningKey::generate().unwrap().verifying_key());
    world.show(&other);
    let error = format!("{:#}", world.take_step(&plan, RotationState::Approved).await.unwrap_err());
    assert!(error.contains("two were signed"), "{error}");
    assert_eq!(world.signed(), None);
    // The control: with the plan's ring the step is taken.
    world.show(&world.ring(8));
    drop(world.take_step(&plan, RotationState::Approved).await);
    assert_eq!(world.signed().unwrap().keys.last(), Some(&plan.to));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_active_only_in_a_ring_that_lists_it_as_the_step_before_left_it() {
    let world = World::start().await;
    let plan = world.plan(8, RotationState::Announced);
    // Genuine and new enough, but of another line: it never had the new key.
    world.show(&world.ring(9));
    let error = format!("{:#}", world.take_step(&plan, RotationState::Announced).await.unwrap_err());
    assert!(error.contains("as this rotation left it"), "{error}");
    assert_eq!(world.signed(), None);
}

/// The ring and the rotation that certstore shows, and the ring that was put into it.
#[derive(Default)]
struct Shown {
    ring: Option<Signed>,
    rotation: Option<Rotation>,
    put: Option<KeyRing>,
}

struct World {
    dir: tempfile::TempDir,
    store: StoreClient,
    security: SigningKey,
    shown: Arc<Mutex<Shown>>,
    keys: (UnsealEntry, UnsealEntry),
    _shutdown: ShutdownHandle,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        pki::init(&dir.path().join("pki"), &PkiOptions::default()).unwrap();
        let pki_dir: PathBuf = dir.path().join("pki");
        let text = std::fs::read_to_string(pki_dir.join("security.key")).unwrap();
        let security = SigningKey::from_pem(&text).unwrap();
        let shown = Arc::<Mutex<Shown>>::default();
        let app = Router::new()
            .route("/v1/ring", get(ring).put(put_ring))
            .route("/v1/rotations/{id}", get(rotation))
            .route("/v1/inventory", get(|| async { Json(Inventory::default()) }))
            .route(
                "/v1/rotations/{id}/retirements",
                post(|| async { Json(json!({ "changed": 0, "unchanged": 0, "next": null })) }),
            )
            .route("/v1/edges", get(|| async { Json(EdgeList { edges: Vec::new() }) }))
            .with_state(shown.clone());
        let (url, shutdown) = fake::serve(&pki_dir, "certstore", app).await;
        let tls = pki::tls_files(&pki_dir, "admin").client_config(&["certstore"]).unwrap();
        let store = StoreClient::new(Connection::new(url.parse().unwrap(), tls));
        let keys = (entry(1, KeyState::Active), entry(2, KeyState::Pending));
        Self { dir, store, security, shown, keys, _shutdown: shutdown }
    }

    /// The pool's ring before its rotation.
    fn ring(&self, version: u64) -> KeyRing {
        KeyRing { version, keys: vec![self.keys.0.clone()], ..KeyRing::default() }
    }

    fn show(&self, ring: &KeyRing) {
        self.shown.lock().unwrap().ring = Some(self.security.sign(ring));
    }

    fn signed(&self) -> Option<KeyRing> {
        self.shown.lock().unwrap().put.clone()
    }

    fn rings(&self, memory: &str) -> RingClient<'_> {
        RingClient::new(&self.store, self.security.verifying_key(), &self.dir.path().join(memory))
    }

    /// A rotation from the ring of `version`, which certstore says is in `state`.
    fn plan(&self, version: u64, state: RotationState) -> RotationPlan {
        let created_at = Timestamp::now();
        let plan = RotationPlan {
            id: RotationId([7; 16]),
            pool: "eu".parse().unwrap(),
            reason: RotationReason::Routine,
            ring_version: version,
            ring_digest: Some(sha256(&self.security.sign(&self.ring(version)).payload.0)),
            from: vec![Epoch(1)],
            to: self.keys.1.clone(),
            verify_one_in: 1,
            created_at,
            expires_at: created_at + SignedDuration::from_hours(1),
            note: String::new(),
        };
        let signed = self.security.sign(&plan);
        self.shown.lock().unwrap().rotation = Some(Rotation {
            digest: sha256(&signed.payload.0),
            plan: signed,
            state,
            proposed_by: String::new(),
            approved_by: None,
            verified_at: None,
            steps: Vec::new(),
        });
        plan
    }

    async fn take_step(&self, plan: &RotationPlan, state: RotationState) -> anyhow::Result<()> {
        let nothing = tempfile::tempdir_in(self.dir.path()).unwrap();
        let rings = RingClient::new(&self.store, self.security.verifying_key(), nothing.path());
        let patience = Duration::ZERO;
        let keys = UnsealKeys::default();
        if state == RotationState::Verified {
            rotation::retire(&rings, plan.id, &self.security, patience, &()).await?;
            return Ok(());
        }
        let run = Run { security: &self.security, keys: &keys, certman: None, patience };
        // It goes on from step to step until certstore does not.
        let all = rotation::run(&rings, plan.id, &run, &());
        tokio::time::timeout(Duration::from_secs(5), all).await??;
        Ok(())
    }
}

fn entry(epoch: u32, state: KeyState) -> UnsealEntry {
    let key = UnsealKey::generate("eu".parse().unwrap(), Epoch(epoch), Suite::P256).unwrap();
    UnsealEntry {
        pool: key.pool().clone(),
        epoch: Epoch(epoch),
        state,
        suite: Suite::P256 as u16,
        key_id: key.key_id(),
        public_key: Base64(key.public_key().to_vec()),
    }
}

async fn ring(State(shown): State<Arc<Mutex<Shown>>>) -> axum::response::Response {
    use certseal_service::problem::Refusal;
    let ring = shown.lock().unwrap().ring.clone();
    let missing = || Refusal::new(certseal_wire::ProblemKind::NotFound, "there is no ring");
    ring.map(Json).ok_or_else(missing).into_response()
}

async fn put_ring(State(shown): State<Arc<Mutex<Shown>>>, Json(signed): Json<Signed>) -> Json<PutOutcome> {
    let ring: KeyRing = serde_json::from_slice(&signed.payload.0).unwrap();
    let version = ring.version;
    shown.lock().unwrap().put.get_or_insert(ring);
    Json(PutOutcome { version, changed: true })
}

async fn rotation(State(shown): State<Arc<Mutex<Shown>>>, Path(_): Path<String>) -> Json<Rotation> {
    Json(shown.lock().unwrap().rotation.clone().unwrap())
}
