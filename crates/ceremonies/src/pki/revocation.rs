//! The private CA's revocation list (RFC 5280, 5).

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use certseal_service::tls::certificates;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber};
use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    revocation_list::CertificateRevocationList,
    time::ASN1Time,
};

use super::authority::{Authority, CLOCK_SKEW, since_1970, unparsable};
use crate::{
    error::PkiError,
    files::{MadeFile, replace_public},
};

/// Puts the identities `names` on the revocation list `crl.pem` of the PKI in `dir`, for good; makes the list when there is
/// none. Without names it is only signed anew, which a list needs before its next update is due, in 30 days.
///
/// # Errors
/// When the CA's files, the list or one of the identities are not usable. The list is then as it was.
pub fn revoke(dir: &Path, names: &[String]) -> Result<Vec<MadeFile>, PkiError> {
    let authority = Authority::load(dir)?;
    let path = dir.join("crl.pem");
    let mut revoked = if path.exists() { listed(&path)? } else { BTreeMap::new() };
    for name in names {
        let certificate = dir.join(format!("{name}.pem"));
        let chain = certificates(&certificate).map_err(|source| {
            let (dir, name) = (dir.to_owned(), name.clone());
            PkiError::NoIdentity { dir, name, source }
        })?;
        let parsed = X509Certificate::from_der(&chain[0]).map_err(|error| unparsable(&certificate, error));
        let (_, parsed) = parsed?;
        revoked.entry(parsed.raw_serial().to_vec()).or_insert_with(since_1970);
    }
    let (count, start) = (revoked.len(), rcgen::date_time_ymd(1970, 1, 1));
    let params = CertificateRevocationListParams {
        this_update: start + since_1970() - CLOCK_SKEW,
        next_update: start + since_1970() + NEXT_UPDATE,
        // Grows with each list, whoever makes it.
        crl_number: SerialNumber::from(since_1970().as_secs()),
        issuing_distribution_point: None,
        revoked_certs: revoked
            .into_iter()
            .map(|(serial, since)| RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: start + since,
                reason_code: Some(RevocationReason::CessationOfOperation),
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list =
        params.signed_by(&authority.issuer).map_err(PkiError::unmade("cannot sign the revocation list"))?.pem()?;
    let content = format!("revocation list with {count} certificates");
    Ok(vec![replace_public(dir, "crl.pem", list, &content, "certstore, certman and their callers")?])
}

/// The serial numbers on a list, and since when they are, from 1970.
fn listed(path: &Path) -> Result<BTreeMap<Vec<u8>, Duration>, PkiError> {
    let text = fs::read(path).map_err(|error| unparsable(path, error))?;
    let list = CertificateRevocationListDer::from_pem_slice(&text).map_err(|error| unparsable(path, error))?;
    let (_, list) = CertificateRevocationList::from_der(&list).map_err(|error| unparsable(path, error))?;
    let entries = list.iter_revoked_certificates();
    let since = |at: ASN1Time| Duration::from_secs(at.timestamp().try_into().unwrap_or(0));
    Ok(entries.map(|entry| (entry.raw_serial().to_vec(), since(entry.revocation_date))).collect())
}

/// How long a list is good for.
const NEXT_UPDATE: Duration = Duration::from_secs(30 * 24 * 3600);
