//! The private PKI: one CA, an mTLS identity for each part, and the two Ed25519 signing keys.
//!
//! An identity is a SPIFFE ID in a certificate (SPIFFE X509-SVID): `spiffe://TRUST-DOMAIN/ROLE/NAME`. The CA's own
//! certificate carries `spiffe://TRUST-DOMAIN`, which is where [`issue`] learns the trust domain from.

mod authority;
mod revocation;

use std::{collections::BTreeSet, path::Path};

use certseal_seal::{SigningKey, secret_pem};
use certseal_service::tls::TlsFiles;
use certseal_wire::{Caller, PoolName, Role, TrustDomain};
use rcgen::KeyPair;
use rustls_pki_types::ServerName;

use self::authority::{Authority, ca_params};
pub use self::revocation::revoke;
use crate::{
    error::PkiError,
    files::{MadeFile, NewFiles},
};

/// The domain, pools and servers that a new PKI is for.
#[derive(Debug, Clone)]
pub struct PkiOptions {
    /// The trust domain of all identities.
    pub trust_domain: TrustDomain,
    /// The pools that get an edge identity each.
    pub pools: Vec<PoolName>,
    /// Names and addresses under which clients reach the servers, besides localhost and the servers' own names.
    pub server_names: Vec<ServerName<'static>>,
}

impl Default for PkiOptions {
    fn default() -> Self {
        // A constant that fits the grammar of trust domains; a test would fail otherwise.
        let trust_domain = DEFAULT_TRUST_DOMAIN.parse().expect("a trust domain");
        Self { trust_domain, pools: Vec::new(), server_names: Vec::new() }
    }
}

/// Makes a new PKI in `dir`: a CA, identities and signing keys.
///
/// The files are `ca`, `certstore`, `certman-server`, `certman`, `edge-POOL` for each pool, `admin` and `platform`, each
/// as `.pem` and `.key`, and `security` and `issuer` as `.key` and `.pub`. The CA is valid for 10 years, identities for
/// one. Keys are ECDSA P-256, signing keys Ed25519.
///
/// # Errors
/// When one of the files is there already, or the directory cannot be written. No new file is left behind then.
pub fn init(dir: &Path, options: &PkiOptions) -> Result<Vec<MadeFile>, PkiError> {
    let (authority, ca_certificate, ca_key) = Authority::generate(&options.trust_domain)?;
    let mut files = NewFiles::default();
    files.public("ca.pem", ca_certificate, "certificate of the private CA", "every daemon, every operator");
    files.private("ca.key", ca_key, "key of the private CA", "the security team, offline");
    let service = |name: &str| (Role::Service, name.to_owned());
    let mut identities = vec![
        ("certstore".to_owned(), service("certstore"), "certstore".to_owned()),
        ("certman-server".to_owned(), service("certman"), "certman, for its callers".to_owned()),
        ("certman".to_owned(), (Role::Issuer, "certman-1".to_owned()), "certman, for certstore".to_owned()),
    ];
    for pool in options.pools.iter().collect::<BTreeSet<_>>() {
        let edge = (Role::Edge(pool.clone()), "edge-1".to_owned());
        identities.push((format!("edge-{pool}"), edge, format!("an edge of pool {pool}")));
    }
    identities.extend([
        ("admin".to_owned(), (Role::Admin, "admin-1".to_owned()), "an operator".to_owned()),
        ("platform".to_owned(), (Role::Platform, "platform-1".to_owned()), "the website platform".to_owned()),
    ]);
    for (file, (role, name), holder) in identities {
        authority.issue(&mut files, &file, &Caller { role, name }, &options.server_names, &holder)?;
    }
    signing_key(
        &mut files,
        "security",
        "the security team, offline",
        "certstore, certman, every edge, every operator",
    )?;
    signing_key(&mut files, "issuer", "certman", "the security team, for `certctl keys generate --issuer-public`")?;
    Ok(files.write(dir, "choose another directory, or add a single identity with `certctl pki issue`")?)
}

/// Adds one identity, `NAME.pem` and `NAME.key`, to the PKI in `dir`. Only servers (role service) have `server_names`.
///
/// # Errors
/// When the CA's files are not usable, the name is not one, or the identity is there already.
pub fn issue(
    dir: &Path,
    role: Role,
    name: &str,
    server_names: &[ServerName<'static>],
) -> Result<Vec<MadeFile>, PkiError> {
    if role != Role::Service && !server_names.is_empty() {
        return Err(PkiError::ServerNames(role));
    }
    let authority = Authority::load(dir)?;
    let caller = Caller { role, name: name.to_owned() };
    let mut files = NewFiles::default();
    authority.issue(&mut files, name, &caller, server_names, &format!("{caller}"))?;
    Ok(files.write(dir, "choose another name, or move the old files away first")?)
}

/// Makes `local-ca.pem` and `local-ca.key` in `dir`: a CA for certman's local issuer, which signs site certificates
/// in development. `name` is its common name. No browser trusts it unless told to.
///
/// # Errors
/// When the files are there already, or the directory cannot be written.
pub fn local_ca(dir: &Path, name: &str) -> Result<Vec<MadeFile>, PkiError> {
    if !(1..=64).contains(&name.chars().count()) {
        return Err(PkiError::CaName(name.to_owned()));
    }
    let key = KeyPair::generate().map_err(PkiError::unmade("cannot generate a key"))?;
    let certificate =
        ca_params(name).self_signed(&key).map_err(PkiError::unmade("cannot sign the CA's certificate"))?;
    let mut files = NewFiles::default();
    files.public("local-ca.pem", certificate.pem(), "certificate of the development CA", "certman, test clients");
    files.private(
        "local-ca.key",
        secret_pem::encode("PRIVATE KEY", key.serialized_der()),
        "key of the development CA",
        "certman",
    );
    Ok(files.write(dir, "use the CA that is there, or choose another directory")?)
}

/// Where the identity `name` of the PKI in `dir` is.
pub fn tls_files(dir: &Path, name: &str) -> TlsFiles {
    TlsFiles {
        ca: dir.join("ca.pem"),
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        crl: None,
    }
}

fn signing_key(files: &mut NewFiles, name: &str, holder: &str, verifiers: &str) -> Result<(), PkiError> {
    let key = SigningKey::generate()?;
    files.private(&format!("{name}.key"), key.expose_pem()?, &format!("{name} signing key"), holder);
    let id = key.verifying_key().id();
    let public = key.verifying_key().to_pem();
    files.public(&format!("{name}.pub"), public, &format!("{name} verifying key {id}"), verifiers);
    Ok(())
}

/// The trust domain when none is given.
pub const DEFAULT_TRUST_DOMAIN: &str = "certseal.internal";
