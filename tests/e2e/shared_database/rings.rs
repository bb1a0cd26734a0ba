//! Key rings and rotations: those that one process stored count at once in the other.

use std::time::{Duration, Instant};

use certseal_seal::{RingMark, VerifyingKey, accept_ring};
use certseal_wire::{Base64, Epoch, IssuerEntry, KeyRing, ProblemKind, Signed};

use super::{platform, second, signing_key};
use crate::{
    bad_input::refused,
    edge::eventually,
    press::{Press, site},
    team::Team,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_ring_that_one_certstore_took_counts_at_once_in_the_other() {
    let mut platform = platform().await;
    let _second = second(&platform);
    let press = Press::new(&platform, &platform.store_as("admin")).await;
    platform.certman.kill();
    platform.edge.kill();
    let (here, there) = (platform.stores_as("admin", &["store"]), platform.stores_as("certman", &["store-b"]));
    let security = signing_key(&platform, "security.key");
    let known = ring(&here.ring().await.unwrap().unwrap(), &security.verifying_key());
    let stranger = certseal_seal::SigningKey::generate().unwrap().verifying_key();
    let others = vec![IssuerEntry { id: stranger.id(), public_key: Base64(stranger.as_bytes().to_vec()) }];
    let mut quickest = Duration::MAX;
    for n in 0..10 {
        let bytes = press.bundle(&site(n), 1, &mut None);
        // The other one has used the ring before: its memory of the ring is fresh.
        there.put_bundle(&site(1000 + n), press.bundle(&site(1000 + n), 1, &mut None)).await.unwrap();
        let version = known.version + 2 * n as u64 + 1;
        let without = security.sign(&KeyRing { version, issuers: others.clone(), ..known.clone() });
        let with = security.sign(&KeyRing { version: version + 1, ..known.clone() });
        here.put_ring(&without).await.unwrap();
        let began = Instant::now();
        refused(there.put_bundle(&site(n), bytes.clone()).await, ProblemKind::Unverified, "");
        quickest = quickest.min(began.elapsed());
        here.put_ring(&with).await.unwrap();
        assert!(there.put_bundle(&site(n), bytes).await.unwrap().changed);
    }
    // Within the time after which it would have looked by itself: it was the stored ring that counted.
    assert!(quickest < Duration::from_millis(150), "{quickest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_goes_through_two_certstores_and_what_it_retires_is_refused_by_both() {
    let platform = platform().await;
    let _second = second(&platform);
    let press = Press::new(&platform, &platform.store_as("admin")).await;
    let root = platform.pki("local-ca.pem");
    let team = Team::over(platform, root).with_sites(3).await;
    let address = format!("https://{}", team.platform.addresses["store-b"]);
    let through_other = |identity: &str, args: &[&str]| {
        let output = team.certctl(identity, args).env("CERTCTL_STORE", &address).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    };

    let (id, digest) = team.plan(&[]);
    let (id, digest) = (id.as_str(), digest.as_str());
    let run = ["keys", "rotate", "run", id, "--unseal-key", &team.old_key(), "--timeout", "60"];
    assert!(team.refused("admin", &run).contains("waits for the approval of another admin"));
    through_other("bob", &["keys", "rotate", "approve", id, "--digest", digest]);
    assert_eq!(team.state(id), "approved");
    std::fs::copy(team.new_key(), team.platform.dir.path().join("unseal-keys/2.key")).unwrap();
    eventually(Duration::from_secs(20), || team.edge_keys() == 2);
    assert_eq!(team.json("admin", &run)["state"], "active");
    through_other("admin", &["keys", "rotate", "verify", id, "--unseal-key", &team.new_key()]);

    // Both know the old key from before, and this bundle is good until it is retired.
    for (n, name) in super::BOTH.into_iter().enumerate() {
        let store = team.platform.stores_as("certman", &[name]);
        store.put_bundle(&site(n), press.bundle(&site(n), 1, &mut None)).await.unwrap();
    }
    assert_eq!(team.json("admin", &run)["state"], "active", "what came sealed to the old key is rewrapped too");
    through_other("admin", &["keys", "rotate", "verify", id, "--unseal-key", &team.new_key()]);
    assert_eq!(team.json("admin", &team.with_security(&["keys", "rotate", "retire", id]))["state"], "retired");
    for (n, name) in super::BOTH.into_iter().enumerate() {
        let store = team.platform.stores_as("certman", &[name]);
        let late = press.bundle(&site(10 + n), 1, &mut None);
        refused(store.put_bundle(&site(10 + n), late).await, ProblemKind::Unverified, "not any more");
    }
    assert_eq!(team.epochs(&team.sites[0]).await, [Epoch(2)]);
    for site in &team.sites {
        assert!(team.platform.curl(&team.root, site).status.success(), "{site}\n{}", team.platform.edge.log());
    }
}

fn ring(signed: &Signed, security: &VerifyingKey) -> KeyRing {
    accept_ring(signed, security, RingMark::default()).unwrap()
}
