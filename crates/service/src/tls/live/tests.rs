use std::{io, os::unix::fs::PermissionsExt, path::PathBuf, sync::Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::{ClientConfig, ClientConnection, ServerConnection};
use rustls_pki_types::CertificateDer;
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use super::*;
use crate::{config::write_private, tls::provider};

/// A program that replaces files writes them one after another, and sets modes last: no moment of that counts for ever.
#[test]
fn files_that_cannot_be_used_for_a_moment_are_taken_when_they_are_good() {
    let world = World::new();
    let (mut follower, live) = Follower::start(world.files()).unwrap();
    let before = served(&live, &world);
    follower.look();
    assert_eq!(*live.generations().borrow(), 0, "nothing changed");

    let renewed = world.issue();
    follower.look();
    assert_eq!(served(&live, &world), renewed);

    // A key that others can read is refused; a mode leaves no trace in what tells one state from another.
    let again = world.issue();
    world.set_mode(0o644);
    let log = logged(|| (0..3).for_each(|_| follower.look()));
    assert_eq!(served(&live, &world), renewed, "the last good ones count");
    assert_eq!(log.matches("chmod 600").count(), 1, "it is said once: {log}");
    world.set_mode(0o600);
    follower.look();
    assert_eq!(served(&live, &world), again);
    assert_ne!(before, again);

    // Gone, and half written.
    fs::remove_file(world.path("leaf.pem")).unwrap();
    follower.look();
    fs::write(world.path("leaf.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    follower.look();
    assert_eq!((served(&live, &world), *live.generations().borrow()), (again, 2));
    let last = world.issue();
    follower.look();
    assert_eq!((served(&live, &world), *live.generations().borrow()), (last, 3));
}

#[test]
fn a_private_key_that_others_can_read_is_no_identity() {
    let world = World::new();
    for mode in [0o640, 0o604] {
        world.set_mode(mode);
        let (server, client) =
            (Follower::start(world.files()).err().unwrap(), world.files().client_config(&["a"]).unwrap_err());
        for error in [server, client] {
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
    world.set_mode(0o600);
    Follower::start(world.files()).unwrap();
    world.files().client_config(&["a"]).unwrap();
}

/// A revoked caller must not come back by an old list, out of a backup or on purpose.
#[test]
fn a_revocation_list_with_a_lower_number_does_not_take_the_place_of_the_one_in_use() {
    let world = World::new();
    world.revoke(300, 2050, &[7]);
    let (mut follower, live) = Follower::start(world.with_crl()).unwrap();
    // One octet more in the number than the one above has: numbers count, not texts.
    world.revoke(70_000, 2050, &[7, 8]);
    follower.look();
    assert_eq!((numbers(&follower), *live.generations().borrow()), (vec![70_000], 1));

    world.revoke(301, 2050, &[]);
    let renewed = world.issue();
    let log = logged(|| (0..3).for_each(|_| follower.look()));
    assert_eq!(numbers(&follower), [70_000]);
    assert_eq!(log.matches("lower number").count(), 1, "{log}");
    assert!(log.contains("ERROR"), "{log}");
    assert_eq!(served(&live, &world), renewed, "what else changed counts");

    // The control: the same number again, and a higher one.
    for number in [70_000, 70_001] {
        world.revoke(number, 2050, &[7, 8, 9]);
        let log = logged(|| follower.look());
        assert_eq!(numbers(&follower), [number]);
        assert!(!log.contains("lower number"), "{log}");
    }
    assert_eq!(follower.followed.revocations.as_ref().unwrap().ders()[0].as_ref(), world.crl(), "the list itself");
}

#[test]
fn a_list_of_another_ca_has_numbers_of_its_own() {
    let (world, other) = (World::new(), World::new());
    world.revoke(300, 2050, &[7]);
    let (mut follower, _live) = Follower::start(world.with_crl()).unwrap();
    other.revoke(2, 2050, &[]);
    fs::copy(other.path("crl.pem"), world.path("crl.pem")).unwrap();
    follower.look();
    assert_eq!(numbers(&follower), [2]);
}

#[test]
fn a_list_that_becomes_overdue_while_a_daemon_runs_is_warned_of_every_hour_and_goes_on_counting() {
    let world = World::new();
    world.revoke(1, 2050, &[7]);
    let (mut follower, live) = Follower::start(world.with_crl()).unwrap();
    let due = date_time_ymd(2050, 1, 1).unix_timestamp();
    let mut warnings = |times: &[i64]| {
        let log = logged(|| times.iter().for_each(|seconds| follower.followed.warn_if_overdue(due + seconds)));
        assert!(!log.contains("ERROR"), "{log}");
        log.matches("past its next update").count()
    };
    assert_eq!(warnings(&[-10, 0]), 0);
    assert_eq!(warnings(&[1, 3, 5, 3600]), 1);
    assert_eq!(warnings(&[3601, 3603, 7201]), 2);
    assert_eq!(*live.generations().borrow(), 0);

    // The control: a new list ends it, and the next one that is late is said at once.
    world.revoke(2, 2060, &[7]);
    follower.look();
    let log = logged(|| follower.followed.warn_if_overdue(due + 7300));
    assert!(log.is_empty(), "{log}");
}

#[test]
fn a_list_that_is_overdue_already_is_warned_of_at_the_start() {
    let world = World::new();
    world.revoke(1, 2001, &[7]);
    let log = logged(|| drop(Follower::start(world.with_crl()).unwrap()));
    assert!(log.contains("WARN") && log.contains("past its next update"), "{log}");
}

/// A private CA, and an identity of it, in files.
struct World {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let world = Self { dir, issuer: Issuer::new(params, key) };
        world.issue();
        world
    }

    /// A new identity in the place of the one before: its certificate.
    fn issue(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["a.internal".into()]).unwrap();
        leaf.subject_alt_names.push(SanType::URI("spiffe://test/service/a".try_into().unwrap()));
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        let _ = fs::remove_file(self.path("leaf.key"));
        write_private(&self.path("leaf.key"), &key.serialize_pem()).unwrap();
        fs::write(self.path("leaf.pem"), leaf.pem()).unwrap();
        leaf.der().clone()
    }

    /// A revocation list that is due at the beginning of a year.
    fn revoke(&self, number: u64, due: i32, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2000, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 1, 1),
            next_update: date_time_ymd(due, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(self.path("crl.pem"), params.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
    }

    fn crl(&self) -> Vec<u8> {
        Revocations::read(&self.path("crl.pem")).unwrap().ders()[0].to_vec()
    }

    fn files(&self) -> TlsFiles {
        let [ca, certificate, key] = ["ca.pem", "leaf.pem", "leaf.key"].map(|name| self.path(name));
        TlsFiles { ca, certificate, key, crl: None }
    }

    fn with_crl(&self) -> TlsFiles {
        TlsFiles { crl: Some(self.path("crl.pem")), ..self.files() }
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.path("leaf.key"), PermissionsExt::from_mode(mode)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// The certificate that the next connection is shown.
fn served(live: &LiveTls, world: &World) -> CertificateDer<'static> {
    let client = ClientConfig::builder_with_provider(provider());
    let client = client.with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(world.files().roots().unwrap()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(client), "a.internal".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(live.current()).unwrap();
    let (mut hello, mut flight) = (Vec::new(), Vec::new());
    client.write_tls(&mut hello).unwrap();
    server.read_tls(&mut hello.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    while server.wants_write() {
        server.write_tls(&mut flight).unwrap();
    }
    let mut flight = flight.as_slice();
    while !flight.is_empty() {
        client.read_tls(&mut flight).unwrap();
        client.process_new_packets().unwrap();
    }
    client.peer_certificates().unwrap()[0].clone().into_owned()
}

/// The CRL numbers of the lists in use.
fn numbers(follower: &Follower) -> Vec<u64> {
    let lists = follower.followed.revocations.as_ref().unwrap().ders();
    let number = |list| CertificateRevocationList::from_der(list).unwrap().1.crl_number().unwrap().try_into().unwrap();
    lists.iter().map(|list| number(list.as_ref())).collect()
}

/// The text that this thread logs meanwhile.
fn logged(action: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, action);
    let text = log.0.lock().unwrap();
    String::from_utf8(text.clone()).unwrap()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
