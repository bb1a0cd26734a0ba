use std::sync::Arc;

use certseal_seal::{
    Bundle, Envelope, KeyKind, Recipient, SealRequest, Secret, SigningKey, Suite, TlsPrivateKey, seal, seal_stanza,
    spki_digest,
};
use certseal_service::problem::Refusal;
use certseal_wire::{
    Approval, Base64, BundleInfo, Caller, Digest, DnsName, EdgeReport, Epoch, IssuerEntry, KeyRing, KeyState, Kind,
    NameSet, PoolName, ProblemKind, Rewrap, RewrapOutcome, RewrapRequest, RewrapTarget, Role, Rotation, RotationId,
    RotationPlan, RotationReason, RotationState, SealedQuery, UnsealEntry, Verification,
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};

use super::*;
use crate::{
    actor::Actor,
    documents::Checked,
    domain::{edges, inventory, ring},
    tests::{
        faulty::{At, Faulty, vault_of},
        put_waiting,
    },
    vault::{Trusted, Vault},
};

#[test]
fn a_rotation_goes_from_its_plan_to_the_retired_key_and_every_step_is_noted() {
    let world = World::new(&["a.example", "b.example"]);
    let plan = world.plan(|_| ());
    let id = plan.id;
    assert_eq!(world.propose(&plan).unwrap().state, RotationState::Proposed);
    assert_eq!(world.propose(&plan).unwrap().steps.len(), 1, "the same plan again is the same rotation");
    assert_eq!(world.approve(BOB, id).unwrap().state, RotationState::Approved);

    world.put_ring(|ring| ring.keys.push(plan.to.clone())).unwrap();
    world.edge_has(&plan);
    world.put_ring(|ring| move_to(ring, &[(1, KeyState::Retiring), (2, KeyState::Active)])).unwrap();

    let verification = Verification { opened: 2, bundles: 2 };
    let early = verify(&world.vault, &admin(ALICE), id, &verification).unwrap_err();
    assert!(early.0.detail.contains("a.example is not sealed to epoch 2"), "{}", early.0.detail);
    let outcome = world.rewrap_all(&plan);
    assert_eq!((outcome.changed, outcome.unchanged), (2, 0));
    assert_eq!(inventory::count(&world.vault).unwrap().epochs.len(), 2);
    verify(&world.vault, &admin(ALICE), id, &verification).unwrap();

    let early = world.put_ring(|ring| move_to(ring, &[(1, KeyState::Retired)])).unwrap_err();
    assert!(early.0.detail.contains("is sealed to epoch 1"), "{}", early.0.detail);
    let behind = retire(&world.vault, &admin(ALICE), id, None).unwrap_err();
    assert!(behind.0.detail.contains("eu/edge-1 have not read yet"), "{}", behind.0.detail);
    let verified_at = world.rotation(id).verified_at;
    world.report_of("edge-1", |report| {
        (report.cursor, report.keys, report.refused) = (verified_at, vec![plan.to.key_id], 1)
    });
    assert!(retire(&world.vault, &admin(ALICE), id, None).is_err(), "it refuses something");
    world.report_of("edge-1", |report| (report.cursor, report.keys) = (verified_at, vec![plan.to.key_id]));
    assert_eq!(retire(&world.vault, &admin(ALICE), id, None).unwrap().changed, 2);
    world.put_ring(|ring| move_to(ring, &[(1, KeyState::Retired)])).unwrap();
    let rotation = world.rotation(id);
    assert_eq!(rotation.state, RotationState::Retired);
    let steps: Vec<_> = rotation.steps.iter().map(|step| (step.by.as_str(), step.what.as_str())).collect();
    assert_eq!(steps.len(), 6, "{steps:?}");
    assert_eq!(steps[1].0, "admin/bob");
    let late = world.put_bundle("c.example", &world.recipients[..1]).unwrap_err();
    assert!(late.0.detail.contains("epoch 1 of pool eu"), "nothing is sealed to a retired key: {}", late.0.detail);
}

#[test]
fn a_single_admin_cannot_rotate_alone() {
    let world = World::new(&[]);
    let plan = world.plan(|_| ());
    world.propose(&plan).unwrap();
    let own = world.approve(ALICE, plan.id).unwrap_err();
    assert_eq!(own.0.kind, ProblemKind::Forbidden);
    let unapproved = world.put_ring(|ring| ring.keys.push(plan.to.clone())).unwrap_err();
    assert_eq!(unapproved.0.kind, ProblemKind::Forbidden, "{}", unapproved.0.detail);
    // The control: with another admin's word it goes.
    world.approve(BOB, plan.id).unwrap();
    world.put_ring(|ring| ring.keys.push(plan.to.clone())).unwrap();
}

#[test]
fn an_approval_is_for_one_plan_and_counts_once() {
    let world = World::new(&[]);
    let (first, second) = (world.plan(|_| ()), world.plan(|_| ()));
    let approval = Approval { plan: world.propose(&first).unwrap().digest };
    abort(&world.vault, &admin(ALICE), first.id).unwrap();
    let replayed = approve(&world.vault, &admin(BOB), first.id, &approval).unwrap_err();
    assert_eq!(replayed.0.kind, ProblemKind::Conflict, "an aborted plan is approved: {}", replayed.0.detail);

    world.propose(&second).unwrap();
    let replayed = approve(&world.vault, &admin(BOB), second.id, &approval).unwrap_err();
    assert!(replayed.0.detail.contains("the approval is for plan"), "{}", replayed.0.detail);
    world.approve(BOB, second.id).unwrap();
    assert!(world.approve("carol", second.id).unwrap_err().0.detail.contains("counts once"));
}

#[test]
fn an_old_plan_is_refused_whenever_it_comes() {
    let world = World::new(&[]);
    let stale = world.plan(|_| ());
    world.propose(&stale).unwrap();
    world.put_ring(|_| ()).unwrap();
    let late = world.approve(BOB, stale.id).unwrap_err();
    assert!(late.0.detail.contains("it is an old plan"), "{}", late.0.detail);
    abort(&world.vault, &admin(ALICE), stale.id).unwrap();
    let again = world.plan(|plan| plan.ring_version -= 1);
    assert!(world.propose(&again).unwrap_err().0.detail.contains("it is an old plan"));
    let expired = world.plan(|plan| plan.expires_at = Timestamp::now() - SignedDuration::from_secs(1));
    assert!(world.propose(&expired).unwrap_err().0.detail.contains("expired"));
}

#[test]
fn a_plan_that_is_forged_altered_or_does_not_fit_is_refused() {
    let world = World::new(&[]);
    let plan = world.plan(|_| ());
    let forged = SigningKey::generate().unwrap().sign(&plan);
    assert_eq!(propose(&world.vault, &admin(ALICE), plan.id, forged).unwrap_err().0.kind, ProblemKind::Unverified);
    world.propose(&plan).unwrap();
    let altered = world.security.sign(&RotationPlan { note: "another".into(), ..plan.clone() });
    assert!(propose(&world.vault, &admin(ALICE), plan.id, altered).unwrap_err().0.detail.contains("never changes"));
    assert!(world.propose(&world.plan(|_| ())).unwrap_err().0.detail.contains("abort it first"));
    abort(&world.vault, &admin(ALICE), plan.id).unwrap();
    for (what, plan) in [
        ("another pool's key", world.plan(|plan| plan.to.pool = "us".parse().unwrap())),
        ("an active key", world.plan(|plan| plan.to.state = KeyState::Active)),
        ("an epoch that was there", world.plan(|plan| plan.to.epoch = Epoch(1))),
        ("another suite", world.plan(|plan| plan.to = entry(2, Suite::X25519, KeyState::Pending).0)),
        ("an id that is not the key's", world.plan(|plan| plan.to.key_id.0[0] ^= 1)),
        ("epochs that are none", world.plan(|plan| plan.from = vec![Epoch(7)])),
        ("valid for ever", world.plan(|plan| plan.expires_at = Timestamp::MAX)),
    ] {
        assert_eq!(world.propose(&plan).unwrap_err().0.kind, ProblemKind::Unverified, "{what}");
    }
}

#[test]
fn a_forged_ring_is_refused_and_so_is_one_that_no_rotation_provides_for() {
    let world = World::new(&[]);
    let mut ring = world.vault.trusted().ring.clone();
    ring.version += 1;
    let forged = serde_json::to_vec(&SigningKey::generate().unwrap().sign(&ring)).unwrap();
    assert_eq!(ring::put(&world.vault, &admin(ALICE), forged).unwrap_err().0.kind, ProblemKind::Unverified);
    let (other, _) = entry(2, Suite::P256, KeyState::Pending);
    let plan = world.plan(|_| ());
    world.propose(&plan).unwrap();
    world.approve(BOB, plan.id).unwrap();
    let another = world.put_ring(|ring| ring.keys.push(other.clone())).unwrap_err();
    assert_eq!(another.0.kind, ProblemKind::Forbidden, "another key than the approved one: {}", another.0.detail);
    for (what, states) in [
        ("active without an announcement", [(1, KeyState::Retiring), (2, KeyState::Active)]),
        ("backwards", [(1, KeyState::Pending), (2, KeyState::Pending)]),
    ] {
        let changed = world.put_ring(|ring| {
            ring.keys.push(plan.to.clone());
            move_to(ring, &states);
        });
        assert!(changed.is_err(), "{what}");
    }
}

#[test]
fn a_key_is_not_made_active_before_every_edge_has_it() {
    let world = World::new(&[]);
    let plan = world.approved();
    world.put_ring(|ring| ring.keys.push(plan.to.clone())).unwrap();
    world.report("edge-2", world.vault.trusted().ring.version, Vec::new());
    world.edge_has(&plan);
    let activate = || world.put_ring(|ring| move_to(ring, &[(1, KeyState::Retiring), (2, KeyState::Active)]));
    let early = activate().unwrap_err();
    assert!(early.0.detail.contains("eu/edge-2 have not acknowledged"), "{}", early.0.detail);
    let pool: PoolName = "eu".parse().unwrap();
    edges::forget(&world.vault, &admin(ALICE), &pool, "edge-2").unwrap();
    // Somebody who has its identity cannot hold the rotation up by reporting on.
    let report = EdgeReport { name: "edge-2".into(), ..edges::list(&world.vault).unwrap().edges[0].report.clone() };
    let thief = actor(Role::Edge(pool.clone()), "edge-2");
    let refused = edges::report(&world.vault, &thief, &pool, "edge-2", report.clone()).unwrap_err();
    assert!(refused.0.detail.contains("was forgotten"), "{}", refused.0.detail);
    activate().unwrap();
    edges::admit(&world.vault, &admin(ALICE), &pool, "edge-2").unwrap();
    edges::report(&world.vault, &thief, &pool, "edge-2", report).unwrap();
}

#[test]
fn a_rotation_whose_key_was_announced_is_given_up_by_retiring_it() {
    let world = World::new(&[]);
    let plan = world.approved();
    world.put_ring(|ring| ring.keys.push(plan.to.clone())).unwrap();
    assert!(abort(&world.vault, &admin(ALICE), plan.id).is_err());
    world.put_ring(|ring| move_to(ring, &[(2, KeyState::Retired)])).unwrap();
    assert_eq!(world.rotation(plan.id).state, RotationState::Aborted);
    // The next one goes past the epoch that was used up.
    let next = world.plan(|plan| plan.to = entry(3, Suite::P256, KeyState::Pending).0);
    world.propose(&next).unwrap();
}

#[test]
fn stanzas_change_for_the_bundle_and_pool_that_were_meant_and_by_the_pools_own_people_only() {
    let world = World::new(&["a.example"]);
    let plan = world.active();
    let bundle = world.bundle("a.example");
    let header = bundle.sealed().envelope().unwrap().header().hash();
    let request = |envelope: Digest, sealed_key: usize| RewrapRequest {
        rewraps: vec![Rewrap {
            enc: Base64(vec![4; 65]),
            sealed_key: Base64(vec![0; sealed_key]),
            sites: vec![RewrapTarget { site: "a.example".parse().unwrap(), envelope }],
        }],
    };
    for role in [Role::Edge("us".parse().unwrap()), Role::Issuer, Role::Platform] {
        let caller = actor(role, "x");
        let refused = rewrap(&world.vault, &caller, plan.id, &request(header, 48)).unwrap_err();
        assert_eq!(refused.0.kind, ProblemKind::Forbidden);
    }
    let edge = actor(Role::Edge("eu".parse().unwrap()), "edge-1");
    assert_eq!(
        rewrap(&world.vault, &edge, plan.id, &request(Digest([0; 32]), 48)).unwrap().changed,
        0,
        "renewed meanwhile"
    );
    assert!(rewrap(&world.vault, &edge, plan.id, &request(header, 47)).is_err());
    assert_eq!(rewrap(&world.vault, &edge, plan.id, &request(header, 48)).unwrap().changed, 1);
    assert!(world.bundle("a.example").is_rewrap_of(&bundle), "nothing but stanzas changed");
    let other =
        RewrapRequest { rewraps: vec![Rewrap { enc: Base64(vec![5; 65]), ..request(header, 48).rewraps.remove(0) }] };
    assert_eq!(rewrap(&world.vault, &edge, plan.id, &other).unwrap().changed, 0, "an edge replaces nothing");
    assert_eq!(rewrap(&world.vault, &admin(ALICE), plan.id, &other).unwrap().changed, 1, "an admin repairs");
}

#[test]
fn what_is_sealed_after_the_verification_has_to_be_verified_before_old_stanzas_go() {
    let world = World::new(&["a.example"]);
    let plan = world.active();
    world.rewrap_all(&plan);
    let none = verify(&world.vault, &admin(ALICE), plan.id, &Verification { opened: 0, bundles: 0 }).unwrap_err();
    assert!(none.0.detail.contains("has 1 bundles, 0 were looked at"), "{}", none.0.detail);
    let verification = Verification { opened: 1, bundles: 1 };
    for _ in 0..300 {
        verify(&world.vault, &admin(ALICE), plan.id, &verification).unwrap();
    }
    assert!(world.rotation(plan.id).steps.len() <= 200, "and nothing is refused for their number");
    // An edge that was taken over puts stanzas of its own in the place of those that were verified.
    world.rewrap_all(&plan);
    assert_eq!(world.rotation(plan.id).state, RotationState::Active);
    let refused = retire(&world.vault, &admin(ALICE), plan.id, None).unwrap_err();
    assert!(refused.0.detail.contains("verify it first"), "{}", refused.0.detail);
}

#[test]
fn a_verification_does_not_count_for_what_is_sealed_while_bundles_are_counted() {
    let world = World::new(&["a.example"]);
    let plan = world.active();
    world.rewrap_all(&plan);
    let (vault, id, request) = (world.vault.clone(), plan.id, world.rewraps(&plan));
    world.faulty.meanwhile(At::BeforeCommit, move || {
        assert_eq!(rewrap(&vault, &admin(BOB), id, &request).unwrap().changed, 1);
    });
    let late = verify(&world.vault, &admin(ALICE), plan.id, &VERIFICATION).unwrap_err();
    assert_eq!(late.0.kind, ProblemKind::Conflict);
    assert_eq!(world.rotation(plan.id).state, RotationState::Active);
    // The control.
    verify(&world.vault, &admin(ALICE), plan.id, &VERIFICATION).unwrap();
}

#[test]
fn what_is_sealed_while_somebody_verifies_does_not_slip_in_behind_the_verification() {
    let world = World::new(&["a.example"]);
    let plan = world.active();
    world.rewrap_all(&plan);
    let stored = || world.bundle("a.example").to_bytes().unwrap();
    let before = stored();
    let rewrap = || rewrap(&world.vault, &admin(ALICE), plan.id, &world.rewraps(&plan));
    // Looked at while the rotation was active, and verified before it is stored.
    world.verified_meanwhile(At::BeforeCommit, &plan);
    assert_eq!(rewrap().unwrap().changed, 0);
    assert!(world.faulty.is_done() && stored() == before);
    assert_eq!(world.rotation(plan.id).state, RotationState::Verified);
    // The verification is taken back for the stanzas to be added, and comes again before they are stored.
    world.verified_meanwhile(At::AfterCommit, &plan);
    let late = rewrap().unwrap_err();
    assert!(late.0.detail.contains("verified in between"), "{}", late.0.detail);
    assert!(world.faulty.is_done() && stored() == before);
    assert_eq!(world.rotation(plan.id).state, RotationState::Verified);
    // The control: with nobody in between it is stored, and has to be verified.
    assert_eq!(rewrap().unwrap().changed, 1);
    assert_ne!(stored(), before);
    assert_eq!(world.rotation(plan.id).state, RotationState::Active);
}

#[test]
fn of_two_rotations_of_one_pool_that_are_proposed_at_one_time_one_is_refused() {
    let world = World::new(&[]);
    let (first, second) = (world.plan(|_| ()), world.plan(|_| ()));
    let (vault, id, signed) = (world.vault.clone(), second.id, world.security.sign(&second));
    world.faulty.meanwhile(At::BeforeCommit, move || drop(propose(&vault, &admin(BOB), id, signed).unwrap()));
    assert_eq!(world.propose(&first).unwrap_err().0.kind, ProblemKind::Conflict);
    assert!(world.faulty.is_done());
    assert_eq!(list(&world.vault).unwrap().rotations.len(), 1);
    assert!(world.propose(&first).unwrap_err().0.detail.contains("abort it first"));
}

#[test]
fn an_edge_that_is_forgotten_while_it_reports_stays_forgotten() {
    let world = World::new(&[]);
    world.report("edge-1", 1, Vec::new());
    let report = edges::list(&world.vault).unwrap().edges[0].report.clone();
    let (edge, pool) = (actor(Role::Edge(report.pool.clone()), "edge-1"), report.pool.clone());
    let again = || edges::report(&world.vault, &edge, &pool, "edge-1", report.clone());
    let (vault, of) = (world.vault.clone(), pool.clone());
    world.faulty.meanwhile(At::BeforeCommit, move || edges::forget(&vault, &admin(ALICE), &of, "edge-1").unwrap());
    assert!(again().is_err() && world.faulty.is_done());
    assert!(edges::list(&world.vault).unwrap().edges.is_empty(), "it came back by itself");
    assert_eq!(again().unwrap_err().0.kind, ProblemKind::Forbidden);
    assert!(edges::list(&world.vault).unwrap().edges.is_empty());
    // The control.
    edges::admit(&world.vault, &admin(ALICE), &pool, "edge-1").unwrap();
    again().unwrap();
    assert_eq!(edges::list(&world.vault).unwrap().edges.len(), 1);
}

#[test]
fn an_envelope_is_listed_for_its_own_pools_and_never_as_a_legacy_key() {
    let world = World::new(&["a.example"]);
    let query = SealedQuery { pool: Some("us".parse().unwrap()), ..Default::default() };
    assert!(inventory::sealed_keys(&world.vault, &query).unwrap().keys.is_empty());
    let legacy = SealedQuery { legacy: true, ..Default::default() };
    assert!(inventory::sealed_keys(&world.vault, &legacy).unwrap().keys.is_empty(), "an envelope is none");
}

#[test]
fn what_lacks_the_new_key_is_listed_until_it_has_it() {
    let world = World::new(&["a.example", "b.example", "c.example"]);
    let plan = world.active();
    let lacking = || {
        let query = SealedQuery { pool: Some(plan.pool.clone()), lacking: Some(plan.to.epoch), ..Default::default() };
        inventory::sealed_keys(&world.vault, &query).unwrap().keys.len()
    };
    assert_eq!(lacking(), 3);
    world.rewrap_all(&plan);
    assert_eq!(lacking(), 0);
    let page = inventory::sealed_keys(&world.vault, &SealedQuery { limit: Some(2), ..Default::default() }).unwrap();
    assert_eq!((page.keys.len(), page.next.unwrap().as_str()), (2, "b.example"));
}

const ALICE: &str = "alice";
const BOB: &str = "bob";

/// Of a pool with one bundle.
const VERIFICATION: Verification = Verification { opened: 1, bundles: 1 };

/// A store with a ring of one pool, whose rotations alice proposes.
struct World {
    vault: Arc<Vault>,
    faulty: Arc<Faulty>,
    security: SigningKey,
    issuer: SigningKey,
    recipients: Vec<Recipient>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(sites: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (security, issuer) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let (vault, faulty) = vault_of(dir.path(), &security);
        let (first, recipient) = entry(1, Suite::P256, KeyState::Active);
        let world = Self { vault, faulty, security, issuer, recipients: vec![recipient], _dir: dir };
        world
            .put_ring(|ring| {
                let key = world.issuer.verifying_key();
                ring.keys.push(first.clone());
                ring.issuers.push(IssuerEntry { id: key.id(), public_key: Base64(key.as_bytes().to_vec()) });
            })
            .unwrap();
        for site in sites {
            world.put_bundle(site, &world.recipients).unwrap();
        }
        world
    }

    fn put_ring(&self, change: impl FnOnce(&mut KeyRing)) -> Result<(), Refusal> {
        let mut ring = self.vault.trusted().ring.clone();
        ring.version += 1;
        change(&mut ring);
        let bytes = serde_json::to_vec(&self.security.sign(&ring)).unwrap();
        ring::put(&self.vault, &admin(ALICE), bytes).map(drop)
    }

    fn plan(&self, change: impl FnOnce(&mut RotationPlan)) -> RotationPlan {
        let mut id = [0; 16];
        getrandom::fill(&mut id).unwrap();
        let mut plan = RotationPlan {
            id: RotationId(id),
            pool: "eu".parse().unwrap(),
            reason: RotationReason::Routine,
            ring_version: self.vault.trusted().ring.version,
            ring_digest: None,
            from: vec![Epoch(1)],
            to: entry(2, Suite::P256, KeyState::Pending).0,
            verify_one_in: 1,
            created_at: Timestamp::now(),
            expires_at: Timestamp::now() + SignedDuration::from_hours(1),
            note: String::new(),
        };
        change(&mut plan);
        plan
    }

    fn approved(&self) -> RotationPlan {
        let plan = self.plan(|_| ());
        self.propose(&plan).unwrap();
        self.approve(BOB, plan.id).unwrap();
        plan
    }

    fn active(&self) -> RotationPlan {
        let plan = self.approved();
        self.put_ring(|ring| ring.keys.push(plan.to.clone())).unwrap();
        self.put_ring(|ring| move_to(ring, &[(1, KeyState::Retiring), (2, KeyState::Active)])).unwrap();
        plan
    }

    fn propose(&self, plan: &RotationPlan) -> Result<Rotation, Refusal> {
        propose(&self.vault, &admin(ALICE), plan.id, self.security.sign(plan))
    }

    fn approve(&self, name: &str, id: RotationId) -> Result<Rotation, Refusal> {
        let plan = self.rotation(id).digest;
        approve(&self.vault, &admin(name), id, &Approval { plan })
    }

    fn rotation(&self, id: RotationId) -> Rotation {
        find(&self.vault, id).unwrap().unwrap().rotation
    }

    fn edge_has(&self, plan: &RotationPlan) {
        self.report("edge-1", self.vault.trusted().ring.version, vec![plan.to.key_id]);
    }

    fn report(&self, name: &str, ring: u64, keys: Vec<certseal_wire::KeyId>) {
        self.report_of(name, |report| (report.ring, report.keys) = (ring, keys));
    }

    fn report_of(&self, name: &str, change: impl FnOnce(&mut EdgeReport)) {
        let pool: PoolName = "eu".parse().unwrap();
        let mut report = EdgeReport {
            pool: pool.clone(),
            name: name.into(),
            at: Timestamp::now(),
            program: "0".into(),
            ring: 0,
            keys: Vec::new(),
            caught_up: true,
            cursor: None,
            bundles: 0,
            refused: 0,
            drill: None,
        };
        change(&mut report);
        let caller = actor(Role::Edge(pool.clone()), name);
        edges::report(&self.vault, &caller, &pool, name, report).unwrap();
    }

    fn put_bundle(&self, site: &str, recipients: &[Recipient]) -> Result<(), Refusal> {
        let site: DnsName = site.parse().unwrap();
        let names = NameSet::try_from(vec![site.clone()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![site.to_string()]).unwrap().self_signed(&key).unwrap();
        let chain = vec![leaf.der().to_vec()];
        let spki = spki_digest(&key.subject_public_key_info());
        let request = SealRequest { suite: Suite::P256, names: &names, spki, key_version: 1, recipients };
        let private = TlsPrivateKey::new(KeyKind::EcdsaP256, key.serialize_der());
        let envelope = seal(&request, &private, &self.issuer).unwrap();
        let info = BundleInfo {
            site: site.clone(),
            names,
            version: 1,
            pools: recipients.iter().map(|recipient| recipient.pool().clone()).collect(),
            chain: Bundle::chain_digest(&chain),
            envelope: envelope.header().hash(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::MAX,
            authority: "test".into(),
        };
        let bytes = Bundle::new(self.issuer.sign(&info), chain, envelope).to_bytes().unwrap();
        let check = move |trusted: &Trusted| Checked::bundle(&site, bytes.clone(), &trusted.issuers, &trusted.ring);
        put_waiting(&self.vault, actor(Role::Issuer, "certman"), check).map(drop)
    }

    fn bundle(&self, site: &str) -> Bundle {
        Bundle::parse(&self.vault.get(Kind::Bundle, site).unwrap().unwrap().bytes).unwrap()
    }

    /// Stanzas as a holder of the old key makes them; certstore cannot tell them from others.
    fn rewrap_all(&self, plan: &RotationPlan) -> RewrapOutcome {
        rewrap(&self.vault, &admin(ALICE), plan.id, &self.rewraps(plan)).unwrap()
    }

    fn rewraps(&self, plan: &RotationPlan) -> RewrapRequest {
        let recipient = certseal_seal::entry_recipient(&plan.to).unwrap();
        let query = SealedQuery { pool: Some(plan.pool.clone()), ..Default::default() };
        let rewraps = inventory::sealed_keys(&self.vault, &query).unwrap().keys.into_iter().map(|entry| {
            let envelope = Envelope::parse(&entry.sealed.0).unwrap();
            let header = envelope.header();
            let content_key = Secret::copy_of(&[7; 32]);
            let stanza = seal_stanza(header.suite, &recipient, &header.scope(), &content_key).unwrap();
            Rewrap {
                enc: Base64(stanza.enc),
                sealed_key: Base64(stanza.sealed_key.to_vec()),
                sites: vec![RewrapTarget { site: entry.site, envelope: header.hash() }],
            }
        });
        RewrapRequest { rewraps: rewraps.collect() }
    }

    /// Right before the next commit, or after it, another admin verifies the rotation.
    fn verified_meanwhile(&self, at: At, plan: &RotationPlan) {
        let (vault, id) = (self.vault.clone(), plan.id);
        self.faulty.meanwhile(at, move || drop(verify(&vault, &admin(BOB), id, &VERIFICATION).unwrap()));
    }
}

fn admin(name: &str) -> Actor {
    actor(Role::Admin, name)
}

fn actor(role: Role, name: &str) -> Actor {
    Actor { caller: Caller { role, name: name.into() }, from: None }
}

/// The public half of a new unseal key of pool eu.
fn entry(epoch: u32, suite: Suite, state: KeyState) -> (UnsealEntry, Recipient) {
    let algorithm = match suite {
        Suite::P256 => &aws_lc_rs::agreement::ECDH_P256,
        Suite::X25519 => &aws_lc_rs::agreement::X25519,
    };
    let public_key = aws_lc_rs::agreement::PrivateKey::generate(algorithm).unwrap().compute_public_key().unwrap();
    let public_key = public_key.as_ref().to_vec();
    let pool: PoolName = "eu".parse().unwrap();
    let recipient = Recipient::new(pool.clone(), Epoch(epoch), suite, public_key.clone()).unwrap();
    let entry = UnsealEntry {
        pool,
        epoch: Epoch(epoch),
        state,
        suite: suite as u16,
        key_id: recipient.key_id(),
        public_key: Base64(public_key),
    };
    (entry, recipient)
}

fn move_to(ring: &mut KeyRing, states: &[(u32, KeyState)]) {
    for (epoch, state) in states {
        for entry in ring.keys.iter_mut().filter(|entry| entry.epoch == Epoch(*epoch)) {
            entry.state = *state;
        }
    }
}
