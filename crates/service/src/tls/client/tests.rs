use std::{fs, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::config::write_private;

/// The control of everything below: with a client that goes by the CA and the DNS name alone all of them are accepted.
#[test]
fn a_certificate_of_the_ca_for_the_dns_name_is_all_that_webpki_asks_for() {
    let world = World::new();
    world.issue("admin", "spiffe://test/admin/a", 1);
    for (n, id) in OTHERS.into_iter().enumerate() {
        world.issue("server", id, 10 + n as u64);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificates(&world.path("ca.pem")).unwrap()[0].clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let client =
            client.with_root_certificates(roots).with_client_cert_resolver(world.files("admin").identity().unwrap());
        meet(client, &world).unwrap();
    }
}

#[test]
fn a_daemon_is_accepted_by_its_spiffe_id_and_nobody_else_is() {
    let world = World::new();
    world.issue("admin", "spiffe://test/admin/a", 1);
    world.issue("server", "spiffe://test/service/certstore", 2);
    let client = |names: &[&str]| world.files("admin").client_config(names).unwrap();
    meet(client(&[CERTSTORE]), &world).unwrap();
    meet(client(&["certstore-2", CERTSTORE]), &world).unwrap();
    for (n, id) in OTHERS.into_iter().enumerate() {
        world.issue("server", id, 10 + n as u64);
        let error = meet(client(&[CERTSTORE]), &world).unwrap_err();
        assert!(error.contains(&format!("expected spiffe://test/service/certstore, it is {id}")), "{error}");
    }
    // A DNS name goes on to count.
    world.issue("server", "spiffe://test/service/certstore", 3);
    let address = ServerName::try_from("elsewhere.internal").unwrap();
    assert!(meet_at(client(&[CERTSTORE]), &world, address).unwrap_err().contains("NotValidForName"));
}

#[test]
fn a_name_that_is_no_daemons_is_no_configuration() {
    let world = World::new();
    world.issue("admin", "spiffe://test/admin/a", 1);
    for bad in ["", "Certstore", "a/b", "../admin/a"] {
        let error = world.files("admin").client_config(&[bad]).unwrap_err().to_string();
        assert!(error.contains("expected a daemon's name"), "{error}");
    }
}

#[test]
fn a_daemon_on_the_revocation_list_is_refused_and_one_that_no_list_covers() {
    let (world, other) = (World::new(), World::new());
    world.issue("admin", "spiffe://test/admin/a", 1);
    world.issue("server", "spiffe://test/service/certstore", 7);
    let with_list = || TlsFiles { crl: Some(world.path("crl.pem")), ..world.files("admin") };
    let met = || meet(with_list().client_config(&[CERTSTORE]).unwrap(), &world);
    world.revoke(1, &[8]);
    met().unwrap();
    world.revoke(2, &[7]);
    assert!(met().unwrap_err().contains("Revoked"));
    // The control: without a list it is not known.
    meet(world.files("admin").client_config(&[CERTSTORE]).unwrap(), &world).unwrap();
    other.revoke(1, &[]);
    fs::copy(other.path("crl.pem"), world.path("crl.pem")).unwrap();
    let error = met().unwrap_err();
    assert!(error.contains("UnknownRevocationStatus"), "{error}");
}

#[test]
fn a_client_follows_its_files() {
    let world = World::new();
    world.issue("admin", "spiffe://test/admin/a", 1);
    world.issue("server", "spiffe://test/service/certstore", 7);
    world.revoke(5, &[8]);
    let files = TlsFiles { crl: Some(world.path("crl.pem")), ..world.files("admin") };
    let current = files.live_client(vec![CERTSTORE.into()]).unwrap();
    let before = current();
    meet((*before).clone(), &world).unwrap();
    world.revoke(6, &[7]);
    std::thread::sleep(LOOK + Duration::from_millis(100));
    let after = current();
    assert!(!Arc::ptr_eq(&before, &after));
    assert!(meet((*after).clone(), &world).unwrap_err().contains("Revoked"));
    // An older list brings nobody back.
    world.revoke(4, &[]);
    std::thread::sleep(LOOK + Duration::from_millis(100));
    assert!(meet((*current()).clone(), &world).unwrap_err().contains("Revoked"));
}

/// Holders of a certificate of the CA that are not certstore.
const OTHERS: [&str; 5] = [
    "spiffe://test/service/certman",
    "spiffe://test/service/certstore-2",
    "spiffe://test/edge/certstore/certstore",
    "spiffe://test.example/service/certstore",
    "spiffe://other/service/certstore",
];

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
        // Each CA has a name of its own.
        params.distinguished_name.push(DnType::CommonName, dir.path().display().to_string());
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, file: &str, id: &str, serial: u64) {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["localhost".into()]).unwrap();
        leaf.subject_alt_names.push(SanType::URI(id.try_into().unwrap()));
        leaf.serial_number = Some(SerialNumber::from(serial));
        let _ = fs::remove_file(self.path(&format!("{file}.key")));
        write_private(&self.path(&format!("{file}.key")), &key.serialize_pem()).unwrap();
        fs::write(self.path(&format!("{file}.pem")), leaf.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
    }

    fn revoke(&self, number: u64, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2000, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 1, 1),
            next_update: date_time_ymd(2050, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(self.path("crl.pem"), params.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
    }

    fn files(&self, name: &str) -> TlsFiles {
        let key = self.path(&format!("{name}.key"));
        TlsFiles { ca: self.path("ca.pem"), certificate: self.path(&format!("{name}.pem")), key, crl: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn meet(client: ClientConfig, world: &World) -> Result<(), String> {
    meet_at(client, world, ServerName::try_from("localhost").unwrap())
}

/// A handshake in memory with the server's files as they are: its result for the client.
fn meet_at(client: ClientConfig, world: &World, address: ServerName<'static>) -> Result<(), String> {
    let server = world.files("server").server_config().unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), address).unwrap();
    while client.is_handshaking() {
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        server.read_tls(&mut flight.as_slice()).unwrap();
        server.process_new_packets().map_err(|e| format!("server: {e}"))?;
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        let mut flight = flight.as_slice();
        while !flight.is_empty() {
            client.read_tls(&mut flight).unwrap();
            client.process_new_packets().map_err(|e| format!("client: {e:?}"))?;
        }
    }
    Ok(())
}
