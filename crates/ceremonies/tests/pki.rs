//! The private PKI: its files, and its identities in real TLS handshakes.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use certseal_ceremonies::pki::{self, PkiOptions};
use certseal_seal::{SigningKey, VerifyingKey};
use certseal_service::tls::{TlsFiles, caller};
use certseal_wire::{Caller, Role};
use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;

#[test]
fn init_makes_private_files_for_their_owner_only_and_overwrites_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("new/pki");
    let made = pki::init(&dir, &options()).unwrap();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(made.len(), fs::read_dir(&dir).unwrap().count());
    for file in &made {
        let holds_secret = fs::read_to_string(&file.path).unwrap().contains("PRIVATE KEY");
        let key_by_name = file.path.extension().is_some_and(|extension| extension == "key");
        assert_eq!((holds_secret, key_by_name), (file.private, file.private), "{}", file.path.display());
        assert_eq!(mode(&file.path) & 0o077 == 0, file.private, "{}", file.path.display());
    }
    for name in ["ca", "certstore", "certman-server", "certman", "edge-eu", "edge-us", "admin", "platform"] {
        assert!(dir.join(format!("{name}.pem")).exists() && dir.join(format!("{name}.key")).exists(), "{name}");
    }

    let before = contents(&dir);
    let error = pki::init(&dir, &options()).unwrap_err().to_string();
    assert!(error.contains("ca.key") && error.contains("choose another directory"), "{error}");
    assert_eq!(contents(&dir), before);
}

#[test]
fn one_file_in_the_way_leaves_none_of_the_others_behind() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("issuer.key"), "precious").unwrap();
    assert!(pki::init(dir.path(), &options()).is_err());
    assert_eq!(contents(dir.path()), [("issuer.key".to_owned(), b"precious".to_vec())]);
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let error = pki::init(dir.path(), &options()).unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
}

#[test]
fn the_signing_key_files_belong_together() {
    let dir = made();
    for name in ["security", "issuer"] {
        let read = |extension| fs::read_to_string(dir.path().join(format!("{name}.{extension}"))).unwrap();
        let private = SigningKey::from_pem(&read("key")).unwrap();
        assert_eq!(VerifyingKey::from_pem(&read("pub")).unwrap(), private.verifying_key());
    }
}

#[test]
fn every_identity_is_known_by_its_role_in_a_handshake() {
    let dir = made();
    for (file, role, name) in [
        ("certman", Role::Issuer, "certman-1"),
        ("edge-eu", Role::Edge("eu".parse().unwrap()), "edge-1"),
        ("edge-us", Role::Edge("us".parse().unwrap()), "edge-1"),
        ("admin", Role::Admin, "admin-1"),
        ("platform", Role::Platform, "platform-1"),
    ] {
        for (server, address) in [
            ("certstore", "localhost"),
            ("certstore", "certstore"),
            ("certstore", "127.0.0.1"),
            ("certstore", "::1"),
            ("certman-server", "certman"),
            ("certman-server", "certman.example"),
            ("certman-server", "10.0.0.7"),
        ] {
            let met = handshake(dir.path(), file, server, address).unwrap();
            assert_eq!(met, Caller { role: role.clone(), name: name.to_owned() });
        }
    }
}

#[test]
fn servers_and_clients_cannot_take_each_others_place() {
    let dir = made();
    assert!(handshake(dir.path(), "admin", "certstore", "localhost").is_ok(), "the control failed");
    let error = handshake(dir.path(), "admin", "edge-eu", "localhost").unwrap_err();
    assert!(error.contains("InvalidPurpose"), "{error}");
    let error = handshake(dir.path(), "certstore", "certstore", "localhost").unwrap_err();
    assert!(error.contains("not allow extended key usage"), "{error}");
    assert!(handshake(dir.path(), "admin", "certstore", "certman").is_err(), "one server stood in for another");
}

#[test]
fn another_pki_is_not_trusted() {
    let (dir, other) = (made(), made());
    for file in ["edge-eu.pem", "edge-eu.key"] {
        fs::copy(other.path().join(file), dir.path().join(file)).unwrap();
    }
    assert!(handshake(dir.path(), "edge-us", "certstore", "localhost").is_ok(), "the control failed");
    assert!(handshake(dir.path(), "edge-eu", "certstore", "localhost").is_err());
}

#[test]
fn an_identity_that_is_issued_later_works_and_keeps_the_trust_domain() {
    let dir = made();
    let made = pki::issue(dir.path(), "edge/eu".parse().unwrap(), "edge-2", &[]).unwrap();
    assert_eq!(made.len(), 2);
    let met = handshake(dir.path(), "edge-2", "certstore", "localhost").unwrap();
    assert_eq!(met.to_string(), "edge/eu/edge-2");
    let error = pki::issue(dir.path(), Role::Admin, "edge-2", &[]).unwrap_err().to_string();
    assert!(error.contains("edge-2.key"), "{error}");

    pki::issue(dir.path(), Role::Service, "certstore-2", &["store.example".try_into().unwrap()]).unwrap();
    assert!(handshake(dir.path(), "admin", "certstore-2", "store.example").is_ok());
}

#[test]
fn who_is_revoked_is_not_let_in_and_stays_revoked() {
    let dir = made();
    pki::issue(dir.path(), "edge/eu".parse().unwrap(), "edge-2", &[]).unwrap();
    pki::revoke(dir.path(), &["edge-2".into()]).unwrap();
    assert!(handshake(dir.path(), "edge-2", "certstore", "localhost").is_ok(), "without the list nobody is refused");
    let with_list = |client: &str| handshake_with_list(dir.path(), client, "certstore", "localhost");
    let error = with_list("edge-2").unwrap_err();
    assert!(error.contains("Revoked"), "{error}");
    assert!(with_list("edge-eu").is_ok(), "the others are let in");

    pki::revoke(dir.path(), &["platform".into()]).unwrap();
    pki::revoke(dir.path(), &[]).unwrap();
    assert!(with_list("edge-2").is_err() && with_list("platform").is_err() && with_list("admin").is_ok());
    let error = pki::revoke(dir.path(), &["edge-3".into()]).unwrap_err().to_string();
    assert!(error.contains("edge-3"), "{error}");
}

#[test]
fn what_is_no_identity_is_not_issued() {
    let dir = made();
    for name in ["", "Edge", "a/b", "../x", "a b"] {
        assert!(pki::issue(dir.path(), Role::Admin, name, &[]).is_err(), "{name:?} was taken for a name");
    }
    assert!(pki::issue(dir.path(), Role::Admin, "a", &["localhost".try_into().unwrap()]).is_err());
    let empty = tempfile::tempdir().unwrap();
    let error = pki::issue(empty.path(), Role::Admin, "a", &[]).unwrap_err().to_string();
    assert!(error.contains("certctl pki init"), "{error}");
}

#[test]
fn keys_and_certificates_of_different_pkis_are_not_mixed() {
    let (dir, other) = (made(), made());
    fs::copy(other.path().join("ca.pem"), dir.path().join("ca.pem")).unwrap();
    let error = pki::issue(dir.path(), Role::Admin, "a", &[]).unwrap_err().to_string();
    assert!(error.contains("different PKIs"), "{error}");
}

#[test]
fn a_local_ca_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let made = pki::local_ca(dir.path(), "Example CA").unwrap();
    assert_eq!(made.iter().filter(|file| file.private).count(), 1);
    assert_eq!(mode(&dir.path().join("local-ca.key")), 0o600);
    assert!(pki::local_ca(dir.path(), "Example CA").is_err());
}

fn options() -> PkiOptions {
    PkiOptions {
        trust_domain: "platform.example".parse().unwrap(),
        pools: ["eu", "us", "eu"].map(|pool| pool.parse().unwrap()).to_vec(),
        server_names: ["certman.example", "10.0.0.7"].map(|name| ServerName::try_from(name).unwrap()).to_vec(),
    }
}

fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    pki::init(dir.path(), &options()).unwrap();
    dir
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut all: Vec<_> =
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect();
    all.sort();
    all
}

/// A whole mTLS handshake in memory: whom the server met, or why the two did not come together.
fn handshake(dir: &Path, client: &str, server: &str, address: &str) -> Result<Caller, String> {
    meet(dir, client, server, None, address)
}

/// With a server that goes by the revocation list.
fn handshake_with_list(dir: &Path, client: &str, server: &str, address: &str) -> Result<Caller, String> {
    meet(dir, client, server, Some(dir.join("crl.pem")), address)
}

fn meet(dir: &Path, client: &str, server: &str, crl: Option<PathBuf>, address: &str) -> Result<Caller, String> {
    let files = TlsFiles { crl, ..pki::tls_files(dir, server) };
    let config = files.server_config().unwrap();
    let daemon = if server == "certman-server" { "certman" } else { server };
    let client = pki::tls_files(dir, client).client_config(&[daemon]).unwrap();
    let name = ServerName::try_from(address.to_owned()).unwrap();
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire.by_ref()).unwrap();
            server.process_new_packets().map_err(|e| format!("server: {e}"))?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire.by_ref()).unwrap();
            client.process_new_packets().map_err(|e| format!("client: {e:?}"))?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let certificate = server.peer_certificates().and_then(|chain| chain.first()).ok_or("no client certificate")?;
    caller(certificate, &options().trust_domain)
}
