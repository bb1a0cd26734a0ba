//! The private PKI: one CA, an mTLS identity for each part, and the two Ed25519 signing keys.
//!
//! An identity is a SPIFFE ID in a certificate (SPIFFE X509-SVID): `spiffe://TRUST-DOMAIN/ROLE/NAME`. The CA's own
//! certificate carries `spiffe://TRUST-DOMAIN`, which is where [`issue`] learns the trust domain from.

mod revocation;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow, bail, ensure};
use certseal_seal::{SigningKey, secret_pem};
use certseal_service::{
    config::{read, read_private},
    tls::{TlsFiles, certificates},
};
use certseal_wire::{Caller, PoolName, Role, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls_pki_types::ServerName;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};
use zeroize::Zeroizing;

pub use self::revocation::revoke;
pub use crate::files::MadeFile;
use crate::files::NewFiles;

/// What a new PKI is for.
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
pub fn init(dir: &Path, options: &PkiOptions) -> anyhow::Result<Vec<MadeFile>> {
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
    files.write(dir, "choose another directory, or add a single identity with `certctl pki issue`")
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
) -> anyhow::Result<Vec<MadeFile>> {
    ensure!(
        role == Role::Service || server_names.is_empty(),
        "only role service has server names: a client with role {role} is known by its SPIFFE ID alone"
    );
    let authority = Authority::load(dir)?;
    let caller = Caller { role, name: name.to_owned() };
    let mut files = NewFiles::default();
    authority.issue(&mut files, name, &caller, server_names, &format!("{caller}"))?;
    files.write(dir, "choose another name, or move the old files away first")
}

/// Makes `local-ca.pem` and `local-ca.key` in `dir`: a CA for certman's local issuer, which signs site certificates
/// in development. `name` is its common name. No browser trusts it unless told to.
///
/// # Errors
/// When the files are there already, or the directory cannot be written.
pub fn local_ca(dir: &Path, name: &str) -> anyhow::Result<Vec<MadeFile>> {
    ensure!((1..=64).contains(&name.chars().count()), "expected a CA name of 1 to 64 characters, got {name:?}");
    let key = KeyPair::generate().context("cannot generate a key")?;
    let certificate = ca_params(name).self_signed(&key).context("cannot sign the CA's certificate")?;
    let mut files = NewFiles::default();
    files.public("local-ca.pem", certificate.pem(), "certificate of the development CA", "certman, test clients");
    files.private(
        "local-ca.key",
        secret_pem::encode("PRIVATE KEY", key.serialized_der()),
        "key of the development CA",
        "certman",
    );
    files.write(dir, "use the CA that is there, or choose another directory")
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

/// The private CA, ready to sign.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    domain: TrustDomain,
}

impl Authority {
    /// A new CA, its certificate and its key, both in PEM.
    fn generate(domain: &TrustDomain) -> anyhow::Result<(Self, String, Zeroizing<String>)> {
        let mut params = ca_params("certseal private CA");
        params.subject_alt_names.push(uri(&format!("spiffe://{domain}"))?);
        let key = KeyPair::generate().context("cannot generate a key")?;
        let key_pem = secret_pem::encode("PRIVATE KEY", key.serialized_der());
        let certificate = params.self_signed(&key).context("cannot sign the CA's certificate")?.pem();
        Ok((Self { issuer: Issuer::new(params, key), domain: domain.clone() }, certificate, key_pem))
    }

    /// The CA that [`init`] made in `dir`.
    fn load(dir: &Path) -> anyhow::Result<Self> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let no_pki = || format!("{} holds no PKI: `certctl pki init` makes one", dir.display());
        let key_pem = read_private(&key).with_context(no_pki)?;
        let chain = certificates(&certificate).with_context(no_pki)?;
        let [der] = chain.as_slice() else {
            bail!("expected one certificate in {}, got {}", certificate.display(), chain.len());
        };
        let (_, parsed) = X509Certificate::from_der(der).with_context(|| certificate.display().to_string())?;
        let domain = trust_domain(&parsed).with_context(|| certificate.display().to_string())?;
        let no_key = || format!("{} is no private key", key.display());
        let (_, der) = secret_pem::decode(key_pem.as_bytes()).with_context(no_key)?;
        let pair = KeyPair::try_from(der.as_slice()).with_context(no_key)?;
        ensure!(
            parsed.public_key().raw == pair.subject_public_key_info(),
            "{} is not the key of {}: the files are of different PKIs",
            key.display(),
            certificate.display()
        );
        let issuer = Issuer::from_ca_cert_pem(&read(&certificate)?, pair)
            .with_context(|| format!("{} is no CA certificate", certificate.display()))?;
        Ok(Self { issuer, domain })
    }

    /// Signs an identity: for servers with names and EKU serverAuth, for clients with their SPIFFE ID and clientAuth only.
    fn issue(
        &self,
        files: &mut NewFiles,
        file: &str,
        caller: &Caller,
        server_names: &[ServerName<'static>],
        holder: &str,
    ) -> anyhow::Result<()> {
        let id = caller.spiffe_id(&self.domain);
        // What would not read back as this caller is no identity.
        let read_back = Caller::from_spiffe_id(&id, &self.domain)?;
        ensure!(read_back == *caller, "{caller} is ambiguous: it would be taken for {read_back}");
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, caller.name.as_str());
        params.subject_alt_names.push(uri(&id)?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, 1);
        if caller.role == Role::Service {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let own = ServerName::try_from(caller.name.clone())
                .map_err(|_| anyhow!("expected a DNS name as a server's name, got {:?}", caller.name))?;
            let local = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(SanType::IpAddress);
            params.subject_alt_names.push(SanType::DnsName("localhost".try_into()?));
            params.subject_alt_names.extend(local);
            for name in std::iter::once(&own).chain(server_names) {
                let name = server_san(name)?;
                if !params.subject_alt_names.contains(&name) {
                    params.subject_alt_names.push(name);
                }
            }
        } else {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
        let key = KeyPair::generate().context("cannot generate a key")?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("cannot certify {caller}"))?;
        files.public(&format!("{file}.pem"), certificate.pem(), &format!("certificate of {id}"), holder);
        let key = secret_pem::encode("PRIVATE KEY", key.serialized_der());
        files.private(&format!("{file}.key"), key, &format!("key of {id}"), holder);
        Ok(())
    }
}

fn signing_key(files: &mut NewFiles, name: &str, holder: &str, verifiers: &str) -> anyhow::Result<()> {
    let key = SigningKey::generate()?;
    files.private(&format!("{name}.key"), key.expose_pem()?, &format!("{name} signing key"), holder);
    let id = key.verifying_key().id();
    let public = key.verifying_key().to_pem();
    files.public(&format!("{name}.pub"), public, &format!("{name} verifying key {id}"), verifiers);
    Ok(())
}

/// A CA for 10 years that certifies leaves, not further CAs.
fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::OrganizationName, "certseal");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, 10);
    params
}

/// Valid from a little before now, for hosts whose clocks are behind.
fn set_validity(params: &mut CertificateParams, years: u32) {
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_1970();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + YEAR * years;
}

/// Now, in whole seconds.
fn since_1970() -> Duration {
    Duration::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

fn uri(text: &str) -> anyhow::Result<SanType> {
    Ok(SanType::URI(text.try_into().with_context(|| format!("{text} is no URI"))?))
}

fn server_san(name: &ServerName<'_>) -> anyhow::Result<SanType> {
    match name {
        ServerName::DnsName(name) => Ok(SanType::DnsName(name.as_ref().try_into()?)),
        ServerName::IpAddress(address) => Ok(SanType::IpAddress((*address).into())),
        _ => bail!("expected a DNS name or an IP address as a server's name"),
    }
}

/// The trust domain that a CA certificate is for.
fn trust_domain(certificate: &X509Certificate<'_>) -> anyhow::Result<TrustDomain> {
    let names = certificate.subject_alternative_name()?;
    let domain = names.iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
        _ => None,
    });
    Ok(domain.context("expected a CA certificate with the URI name spiffe://TRUST-DOMAIN")?.parse()?)
}

/// The trust domain when none is given.
pub(crate) const DEFAULT_TRUST_DOMAIN: &str = "certseal.internal";

const CLOCK_SKEW: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
