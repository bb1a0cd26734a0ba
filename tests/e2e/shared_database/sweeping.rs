//! Two processes sweep one database, and each thing is deleted once.

use std::{collections::HashMap, time::Duration};

use certseal_wire::{AuditAction, AuditRecord, Challenge, ChallengeMethod, DnsName, HttpsMode, NameSet, Route};
use jiff::{SignedDuration, Timestamp};

use super::{BOTH, platform, second, signing_key};
use crate::{
    audit,
    platform::POOL,
    press::{Press, site},
};

const SITES: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_is_deleted_once_however_many_processes_sweep() {
    let mut platform = platform().await;
    platform.certman.kill();
    platform.edge.kill();
    platform.configure_certstore("[retention]\ndeparted_seconds = 1\ntombstone_seconds = 8\n");
    let mut other = second(&platform);
    let press = Press::new(&platform, &platform.store_as("admin")).await;
    let issuer = signing_key(&platform, "issuer.key");
    let stores = BOTH.map(|name| platform.stores_as("certman", &[name]));
    let host: DnsName = "challenged.customers.test".parse().unwrap();
    let expires_at = Timestamp::now() + SignedDuration::from_secs(20);
    for n in 0..SITES {
        let (store, site) = (&stores[n % 2], site(n));
        store.put_bundle(&site, press.bundle(&site, 1, &mut None)).await.unwrap();
        let route = Route {
            names: NameSet::try_from(vec![site.clone()]).unwrap(),
            site: site.clone(),
            version: 1,
            pools: vec![POOL.parse().unwrap()],
            upstreams: Vec::new(),
            https: HttpsMode::Redirect,
        };
        store.put_route(&site, &issuer.sign(&route)).await.unwrap();
        let token = format!("token-{n}");
        let key_authorization = format!("{token}.{}", "a".repeat(43));
        let method = ChallengeMethod::Http;
        let challenge = Challenge { host: host.clone(), token: token.clone(), key_authorization, expires_at, method };
        store.put_challenge(&host, &token, &issuer.sign(&challenge)).await.unwrap();
    }

    // Both sweep as soon as they start: together, when everything has expired.
    for _ in 0..3 {
        platform.certstore.kill();
        other.kill();
        let left = expires_at.duration_since(Timestamp::now()).as_millis().max(0) as u64 + 1000;
        tokio::time::sleep(Duration::from_millis(left.max(3000))).await;
        other = second_beside(&mut platform);
    }
    let store = platform.store_as("admin");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let records = loop {
        let records = audit::verified(&store).await;
        let purged = count(&records, AuditAction::Purge).len();
        if purged >= SITES {
            break records;
        }
        assert!(std::time::Instant::now() < deadline, "{purged} purged\n{}", platform.certstore.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let challenges = count(&records, AuditAction::DeleteChallenges);
    let bundles = count(&records, AuditAction::DeleteBundles);
    assert_eq!((challenges.len(), bundles.len()), (SITES, SITES));
    assert!(challenges.values().chain(bundles.values()).all(|times| *times == 1), "{challenges:?}\n{bundles:?}");
    // The tombstone of the bundle, and that of the route.
    let purged = count(&records, AuditAction::Purge);
    assert!(purged.values().all(|times| *times <= 2), "{purged:?}");
    let log = platform.certstore.log() + &other.log();
    assert!(!log.contains("cannot delete what has expired"), "{log}");
}

/// Starts both at one time.
fn second_beside(platform: &mut crate::platform::Platform) -> crate::process::Process {
    platform.certstore = crate::platform::daemon(platform.dir.path(), "certstore", &Default::default());
    let other = second(platform);
    platform.certstore.wait_for(platform.addresses["store"]);
    other
}

/// How often each thing is a target of an action.
fn count(records: &[AuditRecord], action: AuditAction) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for target in records.iter().filter(|record| record.action == action).flat_map(|record| &record.targets) {
        *counts.entry(target.as_str()).or_default() += 1;
    }
    counts
}
