use certseal_seal::SigningKey;
use certseal_wire::{Base64, Cursor, Epoch, ProblemKind, RotationId, RotationReason, RotationState, UnsealEntry};
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    domain::{backup::copied, rotation},
    records::DRILLS,
    tests::faulty::vault_of,
};

/// A plan that the security team never signed must not come in by a backup that somebody wrote.
#[test]
fn a_rotation_comes_back_only_with_a_plan_that_the_security_team_signed() {
    let dir = tempfile::tempdir().unwrap();
    let security = SigningKey::generate().unwrap();
    let (vault, _) = vault_of(dir.path(), &security);
    let restore = |signer: &SigningKey| {
        let request = RestoreRequest { records: vec![record(signer)] };
        take(&vault, &Actor::itself(), &request)
    };
    let forged = restore(&SigningKey::generate().unwrap()).unwrap_err();
    assert_eq!(forged.0.kind, ProblemKind::Unverified, "{}", forged.0.detail);
    assert!(vault.storage().scan(ROTATIONS, None, 1).unwrap().is_empty());
    // The control.
    restore(&security).unwrap();
    assert_eq!(rotation::list(&vault).unwrap().rotations.len(), 1);
}

/// certctl's advice after a restore that was cut short rests on this.
#[test]
fn a_restore_that_was_cut_short_is_finished_by_the_same_records() {
    let dir = tempfile::tempdir().unwrap();
    let security = SigningKey::generate().unwrap();
    let (vault, _) = vault_of(dir.path(), &security);
    let (first, second) = (record(&security), BackupRecord { table: DRILLS.name().into(), ..record(&security) });
    let actor = Actor::itself();
    let expected = RestoreEnd {
        records: BTreeMap::from([(ROTATIONS.name().into(), 1), (DRILLS.name().into(), 1)]),
        feed: Cursor { epoch: [0; 16], seq: 0 },
        audit: crate::audit::audit_mark(&certseal_store::AuditLink::START),
    };
    take(&vault, &actor, &RestoreRequest { records: vec![first.clone()] }).unwrap();
    let early = end(&vault, &actor, &expected).unwrap_err();
    assert!(early.0.detail.contains("restore the same file again"), "{}", early.0.detail);
    assert!(vault.is_restoring());
    take(&vault, &actor, &RestoreRequest { records: vec![first, second] }).unwrap();
    end(&vault, &actor, &expected).unwrap();
    assert!(!vault.is_restoring());
}

/// A rotation as a backup has it.
fn record(signer: &SigningKey) -> BackupRecord {
    let id = RotationId([3; 16]);
    let to = UnsealEntry {
        pool: "eu".parse().unwrap(),
        epoch: Epoch(2),
        state: certseal_wire::KeyState::Pending,
        suite: 0x0010,
        key_id: certseal_wire::KeyId([0; 16]),
        public_key: Base64(vec![4; 65]),
    };
    let plan = signer.sign(&RotationPlan {
        id,
        pool: "eu".parse().unwrap(),
        reason: RotationReason::Routine,
        ring_version: 1,
        ring_digest: None,
        from: vec![Epoch(1)],
        to,
        verify_one_in: 1,
        created_at: Timestamp::now(),
        expires_at: Timestamp::now() + SignedDuration::from_hours(1),
        note: String::new(),
    });
    let rotation = Rotation {
        digest: sha256(&plan.payload.0),
        plan,
        state: RotationState::Verified,
        proposed_by: "admin/alice".into(),
        approved_by: Some("admin/bob".into()),
        verified_at: None,
        steps: Vec::new(),
    };
    let value = serde_json::to_vec(&rotation).unwrap();
    copied(ROTATIONS, id.to_string().as_bytes(), Record { version: 1, value, expires_at: None })
}
