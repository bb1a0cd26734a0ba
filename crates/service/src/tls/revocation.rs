//! The revocation lists of private CAs (RFC 5280, 5).

use std::{fs, path::Path};

use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};
use x509_parser::{
    extensions::ParsedExtension, prelude::FromDer, revocation_list::CertificateRevocationList, time::ASN1Time,
};

use crate::config::ConfigError;

/// The lists in a file, one for each CA.
#[derive(Debug, Clone)]
pub(super) struct Revocations(Vec<List>);

#[derive(Debug, Clone)]
struct List {
    der: CertificateRevocationListDer<'static>,
    /// The CA's name, and which of its keys signs.
    scope: (Vec<u8>, Option<Vec<u8>>),
    /// The CRL number, by its length and its octets, so that numbers sort as they count; none comes before all.
    number: Option<(usize, Vec<u8>)>,
    /// In seconds since 1970.
    next_update: Option<i64>,
}

impl Revocations {
    /// The lists in a file, PEM or DER; at least one.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = fs::read(path).map_err(|e| ConfigError::invalid(path, e))?;
        let lists = if bytes.starts_with(b"-----BEGIN") {
            CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>()
        } else {
            Ok(vec![CertificateRevocationListDer::from(bytes)])
        };
        let invalid = |e: &dyn std::fmt::Display| {
            ConfigError::invalid(path, format!("expected certificate revocation lists: {e}"))
        };
        let lists: Result<Vec<_>, _> = lists.map_err(|e| invalid(&e))?.into_iter().map(List::parse).collect();
        let lists = lists.map_err(|e| invalid(&e))?;
        if lists.is_empty() {
            return Err(ConfigError::invalid(path, "expected a certificate revocation list, found none"));
        }
        Ok(Self(lists))
    }

    /// As a verifier of certificates takes them.
    pub(super) fn ders(&self) -> Vec<CertificateRevocationListDer<'static>> {
        self.0.iter().map(|list| list.der.clone()).collect()
    }

    /// These, but in the place of each that is older than one of `held` that one; and whether there was such a one.
    ///
    /// An old list comes back with a backup, or by whoever was revoked since.
    pub(super) fn no_older_than(self, held: &Self) -> (Self, bool) {
        let mut was_older = false;
        let newest = self.0.into_iter().map(|list| {
            let newer = held.0.iter().find(|held| held.scope == list.scope && held.number > list.number);
            was_older |= newer.is_some();
            newer.cloned().unwrap_or(list)
        });
        let newest = Self(newest.collect());
        (newest, was_older)
    }

    /// Whether one of them should have been replaced, at a time in seconds since 1970.
    pub(super) fn is_overdue(&self, now: i64) -> bool {
        self.0.iter().any(|list| list.next_update.is_some_and(|next| next < now))
    }
}

impl List {
    fn parse(der: CertificateRevocationListDer<'static>) -> Result<Self, String> {
        let (_, parsed) = CertificateRevocationList::from_der(&der).map_err(|e| e.to_string())?;
        let key = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref().map(|key| key.0.to_vec()),
            _ => None,
        });
        let scope = (parsed.issuer().as_raw().to_vec(), key);
        let number = parsed.crl_number().map(|number| number.to_bytes_be());
        let number = number.map(|octets| (octets.len(), octets));
        let next_update = parsed.next_update().map(|next| ASN1Time::timestamp(&next));
        Ok(Self { der, scope, number, next_update })
    }
}
