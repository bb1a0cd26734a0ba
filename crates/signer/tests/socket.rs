//! Client and server over a real socket.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use certseal_resolver::{KeyHolder, LeafKey, LocalKeys, Unopened};
use certseal_seal::{KeyKind, SealRequest, Sealed, SigningKey, Suite, TlsPrivateKey, seal, spki_digest};
use certseal_signer::{RemoteKeys, Server, Service};
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{Epoch, NameSet};
use rcgen::{KeyPair, PublicKeyData};
use rustls::SignatureScheme::ECDSA_NISTP256_SHA256;

/// A signer in this process, and a key that is sealed to it.
struct Signer {
    dir: tempfile::TempDir,
    local: Arc<LocalKeys>,
    service: Arc<Service>,
    unseal_key: UnsealKey,
    key: KeyPair,
    sealed: Sealed,
    leaf: LeafKey,
}

impl Signer {
    fn start() -> Self {
        let pool = "eu".parse().unwrap();
        let generate = || UnsealKey::generate("eu".parse().unwrap(), Epoch(1), Suite::P256).unwrap();
        let (unseal_key, key) = (generate(), KeyPair::generate().unwrap());
        let request = SealRequest {
            suite: Suite::P256,
            names: &NameSet::try_from(vec!["a.example".parse().unwrap()]).unwrap(),
            spki: spki_digest(&key.subject_public_key_info()),
            key_version: 1,
            recipients: &[unseal_key.recipient()],
        };
        let tls_key = TlsPrivateKey::new(KeyKind::EcdsaP256, key.serialize_der());
        let sealed = Sealed::from(seal(&request, &tls_key, &SigningKey::generate().unwrap()).unwrap());
        let copy = UnsealKey::from_pem(&unseal_key.expose_pem().unwrap()).unwrap();
        let local = LocalKeys::new(&pool, UnsealKeys::from_iter([copy])).unwrap();
        let service = Arc::new(Service::new(local.clone(), 1 << 20));
        let leaf = LeafKey::from_spki(&key.subject_public_key_info()).unwrap();
        let signer = Self { dir: tempfile::tempdir().unwrap(), local, service, unseal_key, key, sealed, leaf };
        signer.listen(own());
        signer
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("signer.sock")
    }

    fn listen(&self, allowed: u32) {
        let (server, service) = (Server::bind(&self.socket(), allowed).unwrap(), self.service.clone());
        thread::spawn(move || server.run(service));
    }

    fn remote(&self) -> Arc<RemoteKeys> {
        remote(&self.socket(), own())
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.key.public_key_raw()).verify(message, signature).is_ok()
    }
}

fn remote(socket: &Path, user: u32) -> Arc<RemoteKeys> {
    RemoteKeys::new(socket, user, |wait| wait())
}

fn own() -> u32 {
    rustix::process::getuid().as_raw()
}

fn tls13_input() -> Vec<u8> {
    [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat()
}

fn sign(remote: &RemoteKeys, signer: &Signer, message: &[u8]) -> Result<Vec<u8>, String> {
    let key = remote.signing_key(&signer.sealed, &signer.leaf).map_err(|error| error.to_string())?;
    key.choose_scheme(&[ECDSA_NISTP256_SHA256]).unwrap().sign(message).map_err(|error| error.to_string())
}

#[test]
fn a_signature_comes_over_the_socket_and_verifies() {
    let (signer, message) = (Signer::start(), tls13_input());
    let remote = signer.remote();
    assert!(signer.verifies(&message, &sign(&remote, &signer, &message).unwrap()));
    remote.check(&signer.sealed, &signer.leaf).unwrap();
    assert!(remote.refresh().unwrap() && !remote.refresh().unwrap());
    assert_eq!(remote.loaded(), [signer.unseal_key.key_id()]);
    // Many at once.
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| assert!(signer.verifies(&message, &sign(&remote, &signer, &message).unwrap())));
        }
    });
}

#[test]
fn what_no_tls_server_signs_is_refused() {
    let signer = Signer::start();
    let remote = signer.remote();
    let request = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let request = request.serialize_request(&signer.key).unwrap();
    let token = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhLmV4YW1wbGUifQ";
    let client = [&[b' '; 64][..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
    for message in [&request.der()[..200], token, b"", &[0; 32], &client] {
        let error = sign(&remote, &signer, message).unwrap_err();
        assert!(error.contains("only what a TLS server signs"), "{error}");
    }
    // The control: the same key signs what it is for.
    assert!(sign(&remote, &signer, &tls13_input()).is_ok());
}

#[test]
fn a_key_that_is_not_the_certificates_is_unusable_and_so_is_one_of_a_key_that_has_gone() {
    let signer = Signer::start();
    let remote = signer.remote();
    let other = LeafKey::from_spki(&KeyPair::generate().unwrap().subject_public_key_info()).unwrap();
    assert!(matches!(remote.signing_key(&signer.sealed, &other), Err(Unopened::Unusable(_))));
    let message = tls13_input();
    assert!(sign(&remote, &signer, &message).is_ok() && remote.refresh().unwrap());

    signer.local.replace(UnsealKeys::default()).unwrap();
    signer.service.keys_changed();
    assert!(sign(&remote, &signer, &message).unwrap_err().contains("no unseal key is loaded"));
    assert!(remote.refresh().unwrap(), "the edge has to hear of it");
    assert!(remote.loaded().is_empty() && remote.is_reached());
}

#[test]
fn garbled_oversized_and_unfinished_frames_do_not_harm_the_signer() {
    let signer = Signer::start();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
    };
    let mut unfinished = Vec::new();
    for round in 0..400 {
        let mut stream = UnixStream::connect(signer.socket()).unwrap();
        let body: Vec<u8> = (0..round % 40).flat_map(|_| random()).collect();
        // An honest length with a bad body, a dishonest one, none, and one that never ends.
        let frame = match round % 4 {
            0 => [&(body.len() as u32).to_be_bytes()[..], &body].concat(),
            1 => [&u32::MAX.to_be_bytes()[..], &body].concat(),
            2 => body,
            _ => [&60_000_u32.to_be_bytes()[..], &body].concat(),
        };
        stream.write_all(&frame).unwrap();
        if round % 4 == 3 && unfinished.len() < 50 {
            unfinished.push(stream);
        } else if round % 4 == 1 {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert_eq!(rest, b"", "a frame of 4 GiB was answered");
        }
    }
    let message = tls13_input();
    assert!(signer.verifies(&message, &sign(&signer.remote(), &signer, &message).unwrap()));
}

#[test]
fn without_a_signer_nothing_is_remembered() {
    let signer = Signer::start();
    let socket = signer.dir.path().join("later/signer.sock");
    let remote = remote(&socket, own());
    let begun = Instant::now();
    assert!(matches!(remote.check(&signer.sealed, &signer.leaf), Err(Unopened::Unavailable(_))));
    assert!(matches!(remote.refresh(), Err(Unopened::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_secs(1) && !remote.is_reached());
    let (server, service) = (Server::bind(&socket, own()).unwrap(), signer.service.clone());
    thread::spawn(move || server.run(service));
    assert!(remote.refresh().unwrap() && remote.is_reached());
    assert!(sign(&remote, &signer, &tls13_input()).is_ok());
}

#[test]
fn a_signer_that_hangs_is_left_alone_and_asked_again() {
    let signer = Signer::start();
    let socket = signer.dir.path().join("hung.sock");
    let hung = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let remote = remote(&socket, own());
    let unavailable = || match remote.check(&signer.sealed, &signer.leaf) {
        Err(Unopened::Unavailable(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(unavailable().contains("in time"));
    let begun = Instant::now();
    assert!(unavailable().contains("left alone") && begun.elapsed() < Duration::from_millis(100));
    drop(hung);
    let (server, service) = (Server::bind(&socket, own()).unwrap(), signer.service.clone());
    thread::spawn(move || server.run(service));
    assert!(remote.refresh().unwrap());
    remote.check(&signer.sealed, &signer.leaf).unwrap();
}

#[test]
fn each_side_refuses_another_user() {
    const TO: &str = "CERTSEAL_TEST_SOCKET";
    if let Some(socket) = std::env::var_os(TO) {
        // The child: it can connect, and is not talked to.
        let error = remote(Path::new(&socket), 0).refresh().unwrap_err();
        panic!("as another user: {error}");
    }
    let signer = Signer::start();
    let error = remote(&signer.socket(), own() + 1).refresh().unwrap_err().to_string();
    assert!(error.contains(&format!("expected a process of user {}", own() + 1)), "{error}");
    if own() != 0 {
        return; // Only root can be somebody else.
    }
    fs::set_permissions(signer.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(signer.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "each_side_refuses_another_user", "--nocapture"]).env(TO, signer.socket());
    let output = child.uid(65534).gid(65534).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("as another user: the signer cannot be reached"), "{text}");
    assert!(!text.contains("Permission denied"), "it did not get as far as the check: {text}");
    // The control: root, over the same socket.
    assert!(signer.remote().refresh().unwrap());
}
