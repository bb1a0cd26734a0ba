//! The files of one site, and what certman is told of them.

use std::{collections::BTreeMap, error::Error as StdError};

use certseal_seal::{LegacyKey, LegacySuite};
use certseal_wire::{Base64, DnsName, Import, KeyId, NameSet, PoolName, SiteRequest, Upstream};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::error::FolderError;

/// The values that the files of a site do not give.
#[derive(Debug, Clone)]
pub struct ImportDefaults {
    /// How all keys are sealed.
    pub suite: LegacySuite,
    /// The key pair that they are sealed to.
    pub key_id: KeyId,
    /// The pools of sites whose `site.toml` names none.
    pub pools: Vec<PoolName>,
    /// The upstream of sites whose `site.toml` names none.
    pub upstream: Option<Upstream>,
}

/// The files of one site.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) name: String,
    pub(super) files: BTreeMap<&'static str, Vec<u8>>,
    /// Why it cannot be used.
    pub(super) trouble: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteFile {
    names: Option<NameSet>,
    upstream: Option<Upstream>,
    pools: Option<Vec<PoolName>>,
}

impl Folder {
    pub(super) fn import(&self, defaults: &ImportDefaults) -> Result<(DnsName, Import), FolderError> {
        if let Some(trouble) = &self.trouble {
            return Err(FolderError::Unusable(trouble.clone()));
        }
        let file = |name: &'static str| self.files.get(name).ok_or(FolderError::Missing(name));
        let site: DnsName = self.name.parse().map_err(FolderError::Name)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(file(CHAIN)?)
            .collect::<Result<_, _>>()
            .map_err(|error| FolderError::NotPem { file: CHAIN, detail: error.to_string() })?;
        let leaf = chain.first().ok_or(FolderError::NoCertificate(CHAIN))?;
        let sealed = LegacyKey::new(defaults.suite, defaults.key_id, file(KEY)?.clone()).map_err(in_file(KEY))?;
        let own = match self.files.get(SITE) {
            Some(text) => {
                let text = std::str::from_utf8(text).map_err(in_file(SITE))?;
                toml::from_str(text).map_err(in_file(SITE))?
            }
            None => SiteFile { names: None, upstream: None, pools: None },
        };
        let names = match own.names {
            Some(names) => names,
            None => certified_names(leaf)?,
        };
        let upstream = own.upstream.or_else(|| defaults.upstream.clone());
        let upstream = upstream.ok_or(FolderError::NoUpstream(SITE))?;
        let pools = own.pools.unwrap_or_else(|| defaults.pools.clone());
        if pools.is_empty() {
            return Err(FolderError::NoPool(SITE));
        }
        let chain = chain.iter().map(|der| Base64(der.to_vec())).collect();
        let request = SiteRequest::new(names, upstream, pools);
        Ok((site, Import { site: request, chain, sealed: Base64(sealed.to_bytes()) }))
    }

    pub(super) fn broken(name: &str, trouble: String) -> Self {
        Self { name: name.to_owned(), trouble: Some(trouble), ..Self::default() }
    }
}

fn certified_names(leaf: &[u8]) -> Result<NameSet, FolderError> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(of_certificate("the certificate does not parse"))?;
    let alternatives = leaf.subject_alternative_name();
    let alternatives = alternatives.map_err(of_certificate("the certificate's names do not parse"))?;
    let names = alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.parse::<DnsName>()),
        _ => None,
    });
    let names = names.collect::<Result<Vec<_>, _>>().map_err(of_certificate("a name in the certificate"))?;
    NameSet::try_from(names).map_err(|source| FolderError::Names { file: SITE, source })
}

/// An error about a file of the folder.
pub(super) fn in_file<E: StdError + Send + Sync + 'static>(file: &'static str) -> impl FnOnce(E) -> FolderError {
    move |source| FolderError::File { file, source: Box::new(source) }
}

/// An error about the certificate in the folder.
fn of_certificate<E: StdError + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> FolderError {
    move |source| FolderError::Certificate { what, source: Box::new(source) }
}

pub(super) const CHAIN: &str = "chain.pem";
pub(super) const KEY: &str = "key.sealed";
pub(super) const SITE: &str = "site.toml";
pub(super) const FILES: [&str; 3] = [CHAIN, KEY, SITE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folder_lacks_is_said() {
        let suite = LegacySuite::RsaOaepSha256;
        let defaults = ImportDefaults { suite, key_id: KeyId([1; 16]), pools: Vec::new(), upstream: None };
        let folder = Folder { name: "a.example".to_owned(), ..Folder::default() };
        let error = folder.import(&defaults).unwrap_err().to_string();
        assert_eq!(error, "there is no chain.pem");
    }
}
