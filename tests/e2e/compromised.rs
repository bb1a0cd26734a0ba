//! An unseal key that others may have: certificates whose keys they could open are replaced, and revoked at a real CA. So are those
//! that a person wants revoked.

use std::{fs, time::Duration};

use certseal_seal::Bundle;
use certseal_wire::{DnsName, Epoch, RevocationReason, RevocationRequest};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    edge::eventually,
    fault_proxy::{FaultProxy, Hold},
    pebble::Pebble,
    platform::{Authority, Platform},
    team::{Load, Team},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compromised_unseal_key_costs_every_certificate_and_no_handshake() {
    let pebble = Pebble::start(5);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let team = Team::over(platform, pebble.issuing_root()).with_sites(6).await;
    let load = Load::start(&team.platform, &team.sites, &team.root);
    let mut before = Vec::new();
    for site in &team.sites {
        before.push(team.platform.bundle(site).await);
    }
    assert_eq!(status(&pebble, &before[0]), "Valid", "the control: the CA knows it, and has not revoked it");

    let (id, digest) = team.plan(&["--compromised"]);
    let (id, digest) = (id.as_str(), digest.as_str());
    team.json("bob", &["keys", "rotate", "approve", id, "--digest", digest]);
    fs::copy(team.new_key(), team.platform.dir.path().join("unseal-keys/2.key")).unwrap();
    let ran = team.json("admin", &["keys", "rotate", "run", id, "--timeout", "120"]);
    assert_eq!(ran["state"], "active");
    for (site, old) in team.sites.iter().zip(&before) {
        let new = team.platform.bundle(site).await;
        assert_ne!(new.leaf_spki(), old.leaf_spki(), "{site} has a new certificate with the old key");
        assert_eq!((team.epochs(site).await, version(&new)), (vec![Epoch(2)], 2), "{site}");
        eventually(Duration::from_secs(30), || status(&pebble, old) == "Revoked");
        assert_eq!(status(&pebble, &new), "Valid");
    }
    // Asked once more, nothing is issued again.
    let certman = team.platform.certman_as("admin");
    assert_eq!(certman.replace(&team.sites[0], 1).await.unwrap().version, 2);
    // The platform's own identity may not do that to a site.
    let refused = team.platform.certman_as("platform").replace(&team.sites[0], 2).await.unwrap_err().to_string();
    assert!(refused.contains("needs role admin"), "{refused}");

    let verify = ["keys", "rotate", "verify", id, "--unseal-key", &team.new_key()];
    assert_eq!(team.json("admin", &verify)["state"], "verified");
    assert_eq!(team.json("admin", &team.with_security(&["keys", "rotate", "retire", id]))["state"], "retired");
    fs::remove_file(team.platform.dir.path().join("unseal-keys/1.key")).unwrap();
    eventually(Duration::from_secs(20), || team.edge_keys() == 1);
    let late: DnsName = "late.customers.test".parse().unwrap();
    team.platform.add_site(&late).await;
    team.platform.wait_active(&late, 1).await;
    let (handshakes, failed) = load.stop().await;
    assert_eq!(failed, 0, "{failed} of {handshakes} failed\n{}", team.platform.edge.log());
}

/// The order was on its way to the CA with its key sealed to the old unseal key, which was retired meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_outlives_its_unseal_key_begins_anew_with_another_one() {
    let pebble = Pebble::start(0);
    let proxy = FaultProxy::start(&pebble).await;
    let authority = Authority::Acme { directory: &proxy.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let team = Team::over(platform, pebble.issuing_root()).with_sites(1).await;
    let late: DnsName = "late.customers.test".parse().unwrap();
    proxy.hold(Hold { path: "/finalize-order/", after: false });
    team.platform.add_site(&late).await;
    proxy.wait_held().await;

    let (id, digest) = team.plan(&[]);
    let id = id.as_str();
    team.json("bob", &["keys", "rotate", "approve", id, "--digest", &digest]);
    fs::copy(team.new_key(), team.platform.dir.path().join("unseal-keys/2.key")).unwrap();
    let run = ["keys", "rotate", "run", id, "--unseal-key", &team.old_key(), "--timeout", "60"];
    assert_eq!(team.json("admin", &run)["state"], "active");
    team.json("admin", &["keys", "rotate", "verify", id, "--unseal-key", &team.new_key()]);
    assert_eq!(team.json("admin", &team.with_security(&["keys", "rotate", "retire", id]))["state"], "retired");
    proxy.release();
    team.platform.wait_active(&late, 1).await;
    assert_eq!(team.epochs(&late).await, [Epoch(2)]);
    assert!(team.platform.certman.log().contains("was retired during the order"), "{}", team.platform.certman.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_has_certificates_revoked_for_a_reason_once_others_took_their_place_or_at_once() {
    let pebble = Pebble::start(5);
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let certman = platform.certman_as("platform");
    let names =
        ["renamed", "ended", "leaving"].map(|name| format!("{name}.customers.test").parse::<DnsName>().unwrap());
    for name in &names {
        platform.add_site(name).await;
    }
    for name in &names {
        platform.wait_active(name, 1).await;
    }
    let [renamed, ended, leaving] = &names;
    let revoke = |name: &DnsName, how: &[&str]| {
        let args = [["site", "revoke", name.as_str(), "--reason"].as_slice(), how].concat();
        platform.certctl(&args)
    };

    let old = platform.bundle(renamed).await;
    assert_eq!(status(&pebble, &old), "Valid", "the control");
    let output = revoke(renamed, &["superseded", "--version", "1"]);
    assert!(output.status.success(), "{output:?}");
    platform.wait_active(renamed, 2).await;
    eventually(Duration::from_secs(30), || status(&pebble, &old) == "Revoked");
    assert_eq!(answer(&pebble, &old)["Reason"], 4);
    assert_eq!(status(&pebble, &platform.bundle(renamed).await), "Valid");

    let last = platform.bundle(ended).await;
    let output = revoke(ended, &["cessation-of-operation", "--without-replacement"]);
    assert!(output.status.success(), "{output:?}");
    eventually(Duration::from_secs(30), || status(&pebble, &last) == "Revoked");
    assert_eq!(answer(&pebble, &last)["Reason"], 5);
    let there = certman.site(ended).await.unwrap().unwrap();
    assert_eq!((there.version, there.order), (1, None), "no other one is ordered");

    // One that gets no other certificate keeps its own until it leaves.
    let kept = platform.bundle(leaving).await;
    pebble.dns("set-servfail", leaving.as_str());
    let output = revoke(leaving, &["affiliation-changed"]);
    assert!(output.status.success(), "{output:?}");
    let is_failing = |platform: &Platform| platform.certman.log().contains("attempt failed");
    eventually(Duration::from_secs(30), || is_failing(&platform));
    assert_eq!(status(&pebble, &kept), "Valid");
    certman.remove_site(leaving).await.unwrap();
    eventually(Duration::from_secs(30), || status(&pebble, &kept) == "Revoked");
    assert_eq!(answer(&pebble, &kept)["Reason"], 3);

    for (how, said) in [
        (["superseded", "--without-replacement"].as_slice(), "expected the reason cessation-of-operation"),
        (["superseded", "--version", "1"].as_slice(), "certstore has version 2 of renamed.customers.test"),
    ] {
        let output = revoke(renamed, how);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains(said), "{how:?}: {error}");
    }
    let nobody: DnsName = "nobody.customers.test".parse().unwrap();
    assert_eq!(revoke(&nobody, &["superseded"]).status.code(), Some(4));
    let request = RevocationRequest { reason: RevocationReason::Superseded, version: None, without_replacement: false };
    let refused = certman.revoke(renamed, &request).await.unwrap_err().to_string();
    assert!(refused.contains("needs role admin"), "{refused}");
    assert_eq!(status(&pebble, &platform.bundle(renamed).await), "Valid");
}

fn version(bundle: &Bundle) -> u64 {
    bundle.sealed().envelope().unwrap().header().key_version
}

fn status(pebble: &Pebble, bundle: &Bundle) -> String {
    answer(pebble, bundle)["Status"].as_str().unwrap().to_owned()
}

/// The CA's word on a certificate.
fn answer(pebble: &Pebble, bundle: &Bundle) -> Value {
    let (_, leaf) = X509Certificate::from_der(&bundle.chain()[0]).unwrap();
    let serial: String = leaf.raw_serial().iter().map(|octet| format!("{octet:02x}")).collect();
    pebble.certificate_status(serial.trim_start_matches("00"))
}
