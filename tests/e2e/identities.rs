//! The identity of servers: a daemon stands in for no other one, and one that was revoked for nobody.

use std::{fs, process::Command, time::Duration};

use certseal_ceremonies::pki;
use certseal_client::{Connection, StoreClient};
use certseal_service::tls::TlsFiles;

use crate::{
    edge::eventually,
    platform::{Authority, Platform},
    process::{program, run},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certman_cannot_stand_in_for_certstore() {
    let mut platform = Platform::start(Authority::Local).await;
    assert!(platform.store_as("admin").ring().await.unwrap().is_some(), "the control failed");
    // An attacker has certman's identity, and leads certstore's address to itself.
    platform.identify_certstore_as("certman-server");
    let error = platform.store_as("admin").ring().await.unwrap_err().to_string();
    let expected =
        "expected spiffe://certseal.internal/service/certstore, it is spiffe://certseal.internal/service/certman";
    assert!(error.contains(expected), "{error}");
    let output = platform.certctl(&["keys", "list"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains(expected), "{error}");
    // An edge takes nothing from it.
    platform.edge.kill();
    platform.restart_edge();
    eventually(Duration::from_secs(20), || platform.edge.log().contains(expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certstore_that_was_revoked_is_left_while_its_connection_is_open() {
    let platform = Platform::start(Authority::Local).await;
    let pki_dir = platform.pki("");
    let revoke = |name: &[&str]| {
        run(Command::new(program("certctl")).args(["pki", "revoke", "--dir", pki_dir.to_str().unwrap()]).args(name))
    };
    revoke(&["platform"]);
    let files = TlsFiles { crl: Some(platform.pki("crl.pem")), ..pki::tls_files(&pki_dir, "admin") };
    let tls = files.live_client(vec!["certstore".to_owned()]).unwrap();
    let url = format!("https://{}", platform.addresses["store"]);
    let store = StoreClient::new(Connection::new(url.parse().unwrap(), tls));
    assert!(store.ring().await.unwrap().is_some());
    // Numbers of lists are seconds.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let numbered = fs::read(platform.pki("crl.pem")).unwrap();
    revoke(&["certstore"]);
    assert_ne!(numbered, fs::read(platform.pki("crl.pem")).unwrap());
    // The connection is open, and nothing but the list says anything.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let error = store.ring().await.unwrap_err().to_string();
    assert!(error.contains("Revoked"), "{error}");
    assert!(platform.store_as("admin").ring().await.unwrap().is_some(), "without the list it is accepted");
}
