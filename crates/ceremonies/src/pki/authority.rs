//! The private CA.

use std::{
    error::Error as StdError,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use certseal_seal::secret_pem;
use certseal_service::{
    config::{read, read_private},
    tls::certificates,
};
use certseal_wire::{Caller, Role, TrustDomain};
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

use crate::{error::PkiError, files::NewFiles};

/// The private CA, ready to sign.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    domain: TrustDomain,
}

impl Authority {
    /// A new CA, its certificate and its key, both in PEM.
    pub(super) fn generate(domain: &TrustDomain) -> Result<(Self, String, Zeroizing<String>), PkiError> {
        let mut params = ca_params("certseal private CA");
        params.subject_alt_names.push(uri(&format!("spiffe://{domain}"))?);
        let key = KeyPair::generate().map_err(PkiError::unmade("cannot generate a key"))?;
        let key_pem = secret_pem::encode("PRIVATE KEY", key.serialized_der());
        let certificate = params.self_signed(&key).map_err(PkiError::unmade("cannot sign the CA's certificate"))?.pem();
        Ok((Self { issuer: Issuer::new(params, key), domain: domain.clone() }, certificate, key_pem))
    }

    /// The CA that [`super::init`] made in `dir`.
    pub(super) fn load(dir: &Path) -> Result<Self, PkiError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let no_pki = |source| PkiError::NoPki { dir: dir.to_owned(), source };
        let key_pem = read_private(&key).map_err(no_pki)?;
        let chain = certificates(&certificate).map_err(no_pki)?;
        let [der] = chain.as_slice() else {
            return Err(PkiError::Chain { path: certificate, found: chain.len() });
        };
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| unparsable(&certificate, error))?;
        let domain = trust_domain(&parsed).map_err(|error| unparsable(&certificate, error))?;
        let (_, der) = secret_pem::decode(key_pem.as_bytes()).ok_or_else(|| PkiError::NoKey(key.clone()))?;
        let pair = KeyPair::try_from(der.as_slice());
        let pair = pair.map_err(|source| PkiError::UnusableKey { path: key.clone(), source })?;
        if parsed.public_key().raw != pair.subject_public_key_info() {
            return Err(PkiError::OtherKey { key, certificate });
        }
        let issuer = Issuer::from_ca_cert_pem(&read(&certificate)?, pair)
            .map_err(PkiError::unmade(format!("{} is no CA certificate", certificate.display())))?;
        Ok(Self { issuer, domain })
    }

    /// Signs an identity: for servers with names and EKU serverAuth, for clients with their SPIFFE ID and clientAuth only.
    pub(super) fn issue(
        &self,
        files: &mut NewFiles,
        file: &str,
        caller: &Caller,
        server_names: &[ServerName<'static>],
        holder: &str,
    ) -> Result<(), PkiError> {
        let id = caller.spiffe_id(&self.domain);
        // An id that would not read back as this caller is no identity.
        let read_back = Caller::from_spiffe_id(&id, &self.domain)?;
        if read_back != *caller {
            return Err(PkiError::Ambiguous { caller: caller.clone(), read_back });
        }
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
            let own =
                ServerName::try_from(caller.name.clone()).map_err(|_| PkiError::ServerName(caller.name.clone()))?;
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
        let key = KeyPair::generate().map_err(PkiError::unmade("cannot generate a key"))?;
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(PkiError::unmade(format!("cannot certify {caller}")))?;
        files.public(&format!("{file}.pem"), certificate.pem(), &format!("certificate of {id}"), holder);
        let key = secret_pem::encode("PRIVATE KEY", key.serialized_der());
        files.private(&format!("{file}.key"), key, &format!("key of {id}"), holder);
        Ok(())
    }
}

/// A CA for 10 years that certifies leaves, not further CAs.
pub(super) fn ca_params(name: &str) -> CertificateParams {
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
pub(super) fn since_1970() -> Duration {
    Duration::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

fn uri(text: &str) -> Result<SanType, PkiError> {
    Ok(SanType::URI(text.try_into().map_err(PkiError::unmade(format!("{text} is no URI")))?))
}

fn server_san(name: &ServerName<'_>) -> Result<SanType, PkiError> {
    match name {
        ServerName::DnsName(name) => Ok(SanType::DnsName(name.as_ref().try_into()?)),
        ServerName::IpAddress(address) => Ok(SanType::IpAddress((*address).into())),
        _ => Err(PkiError::ServerNameKind),
    }
}

/// The trust domain that a CA certificate is for.
fn trust_domain(certificate: &X509Certificate<'_>) -> Result<TrustDomain, Box<dyn StdError + Send + Sync>> {
    let names = certificate.subject_alternative_name()?;
    let domain = names.iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
        _ => None,
    });
    Ok(domain.ok_or(PkiError::NoTrustDomain)?.parse()?)
}

/// A file that does not parse.
pub(super) fn unparsable(path: &Path, source: impl Into<Box<dyn StdError + Send + Sync>>) -> PkiError {
    PkiError::Unparsable { path: path.to_owned(), source: source.into() }
}

pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
