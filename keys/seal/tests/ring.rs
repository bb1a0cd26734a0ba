//! The key ring: whatever happens to it, a ring that follows another one is sound, loses no key and turns none back.

#![allow(clippy::unwrap_used)]

use certseal_seal::{Recipient, RingChange, RingMark, SigningKey, Suite, accept_ring, ring_changes, ring_recipient};
use certseal_wire::{Base64, Epoch, KeyRing, KeyState, PoolName, UnsealEntry};
use proptest::prelude::*;

/// A change that somebody might make to a ring, sensible or not.
#[derive(Debug, Clone)]
enum Edit {
    Add { pool: u8, epoch: u32, state: KeyState },
    Move { which: usize, state: KeyState },
    Remove { which: usize },
    Alter { which: usize },
    Version(u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_ring_that_follows_keeps_every_key_that_is_not_retired(edits in prop::collection::vec(edit(), 1..12)) {
        let security = SigningKey::generate().unwrap();
        let mut ring = KeyRing::default();
        for edit in edits {
            let next = edited(&ring, &edit);
            let is_sound = accept_ring(&security.sign(&next), &security.verifying_key(), RingMark::of_version(ring.version)).is_ok();
            let Ok(changes) = ring_changes(&ring, &next) else { continue };
            if !is_sound {
                continue;
            }
            prop_assert!(next.version > ring.version);
            for entry in &ring.keys {
                let after = next.keys.iter().find(|other| other.pool == entry.pool && other.epoch == entry.epoch);
                match after {
                    Some(after) => {
                        prop_assert_eq!(&after.public_key, &entry.public_key, "a key was exchanged");
                        prop_assert!(rank(after.state) >= rank(entry.state), "a key went back");
                    }
                    None => prop_assert_eq!(entry.state, KeyState::Retired, "a key in use was lost"),
                }
            }
            for pool in ["p0", "p1"].map(|pool| pool.parse::<PoolName>().unwrap()) {
                let active = next.keys.iter().filter(|entry| entry.pool == pool && entry.state == KeyState::Active);
                prop_assert!(active.count() <= 1);
                // Only a pool's first key comes in active; every later one was announced before.
                for change in &changes {
                    if let RingChange::FirstKey(entry) = change {
                        prop_assert!(ring.keys.iter().all(|other| other.pool != entry.pool));
                    }
                }
                if next.active(&pool).is_some() {
                    prop_assert!(ring_recipient(&next, &pool).is_ok());
                }
            }
            ring = next;
        }
    }
}

#[test]
fn a_ring_that_is_older_than_one_seen_or_signed_by_another_is_refused() {
    let (security, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let ring = KeyRing { version: 4, ..KeyRing::default() };
    let accept = |signer: &SigningKey, seen| {
        accept_ring(&signer.sign(&ring), &security.verifying_key(), RingMark::of_version(seen))
    };
    assert!(accept(&security, 4).is_ok());
    assert!(accept(&security, 5).unwrap_err().to_string().contains("rolled it back"));
    assert!(accept(&other, 0).unwrap_err().to_string().contains("does not count"));
}

#[test]
fn another_ring_of_the_version_that_was_seen_is_refused_and_the_same_one_is_not() {
    let security = SigningKey::generate().unwrap();
    let ring = KeyRing { version: 4, ..KeyRing::default() };
    let mut other = ring.clone();
    other.keys.push(entry(0, 1, KeyState::Active));
    let (signed, signed_too) = (security.sign(&ring), security.sign(&other));
    let mark = RingMark::of(&ring, &signed);
    assert!(accept_ring(&signed, &security.verifying_key(), mark).is_ok());
    let error = accept_ring(&signed_too, &security.verifying_key(), mark).unwrap_err().to_string();
    assert!(error.contains("two were signed"), "{error}");
    let next = security.sign(&KeyRing { version: 5, ..other });
    assert!(accept_ring(&next, &security.verifying_key(), mark).is_ok());
}

#[test]
fn a_ring_that_contradicts_itself_is_refused_though_it_is_signed() {
    let security = SigningKey::generate().unwrap();
    let refused = |keys: Vec<UnsealEntry>| {
        let ring = KeyRing { version: 1, keys, ..KeyRing::default() };
        accept_ring(&security.sign(&ring), &security.verifying_key(), RingMark::default()).unwrap_err().to_string()
    };
    let (one, two) = (entry(0, 1, KeyState::Active), entry(0, 2, KeyState::Active));
    assert!(refused(vec![one.clone(), two.clone()]).contains("two active keys"));
    assert!(refused(vec![one.clone(), UnsealEntry { state: KeyState::Retired, ..one.clone() }]).contains("twice"));
    let stolen = UnsealEntry { pool: "p1".parse().unwrap(), ..one.clone() };
    assert!(refused(vec![one.clone(), stolen]).contains("twice"), "one key for two pools");
    let pending = UnsealEntry { state: KeyState::Pending, ..one.clone() };
    assert!(refused(vec![pending, two.clone()]).contains("there is a later one"));
    let mut forged = one;
    forged.key_id.0[0] ^= 1;
    assert!(refused(vec![forged]).contains("its id is not that of its key"));
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (0..2_u8, 1..4_u32, state()).prop_map(|(pool, epoch, state)| Edit::Add { pool, epoch, state }),
        4 => (0..6_usize, state()).prop_map(|(which, state)| Edit::Move { which, state }),
        1 => (0..6_usize).prop_map(|which| Edit::Remove { which }),
        1 => (0..6_usize).prop_map(|which| Edit::Alter { which }),
        1 => (0..3_u64).prop_map(Edit::Version),
    ]
}

fn state() -> impl Strategy<Value = KeyState> {
    prop_oneof![Just(KeyState::Pending), Just(KeyState::Active), Just(KeyState::Retiring), Just(KeyState::Retired)]
}

fn edited(ring: &KeyRing, edit: &Edit) -> KeyRing {
    let mut next = KeyRing { version: ring.version + 1, ..ring.clone() };
    match edit {
        Edit::Add { pool, epoch, state } => next.keys.push(entry(*pool, *epoch, *state)),
        Edit::Move { which, state } => {
            if let Some(entry) = next.keys.get_mut(*which) {
                // A new key and the one that it replaces change places in one ring.
                if *state == KeyState::Active {
                    let pool = entry.pool.clone();
                    entry.state = KeyState::Active;
                    let epoch = entry.epoch;
                    for other in next.keys.iter_mut().filter(|other| other.pool == pool && other.epoch != epoch) {
                        if other.state == KeyState::Active {
                            other.state = KeyState::Retiring;
                        }
                    }
                } else {
                    entry.state = *state;
                }
            }
        }
        Edit::Remove { which } => {
            if *which < next.keys.len() {
                next.keys.remove(*which);
            }
        }
        Edit::Alter { which } => {
            if let Some(altered) = next.keys.get_mut(*which) {
                let key = entry(9, altered.epoch.0, altered.state);
                (altered.key_id, altered.public_key) = (key.key_id, key.public_key);
            }
        }
        Edit::Version(back) => next.version = next.version.saturating_sub(*back),
    }
    next
}

/// A key of its own for each pool and epoch. Nobody knows its private half.
fn entry(pool: u8, epoch: u32, state: KeyState) -> UnsealEntry {
    let mut public_key = vec![pool; 32];
    public_key[..4].copy_from_slice(&epoch.to_be_bytes());
    let name: PoolName = format!("p{pool}").parse().unwrap();
    let recipient = Recipient::new(name.clone(), Epoch(epoch), Suite::X25519, public_key.clone()).unwrap();
    let key_id = recipient.key_id();
    UnsealEntry { pool: name, epoch: Epoch(epoch), state, suite: 2, key_id, public_key: Base64(public_key) }
}

fn rank(state: KeyState) -> u8 {
    match state {
        KeyState::Pending => 0,
        KeyState::Active => 1,
        KeyState::Retiring => 2,
        KeyState::Retired => 3,
    }
}
