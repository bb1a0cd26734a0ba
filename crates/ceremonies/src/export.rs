//! A platform's certificates and keys, handed back: there is a way out.
//!
//! ```text
//! NAME/chain.pem     the certificate and its intermediates, leaf first
//! NAME/key.pem       the private key, PKCS#8, readable by its owner only
//! NAME/bundle.bin    instead of the key: the sealed bundle as it is
//! NAME/site.json     names, version, validity, pools, upstream
//! ```
//!
//! `docs/export.md` documents the format. A folder appears as a whole or not at all.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use certseal_client::{Progress, StoreClient};
use certseal_seal::{Bundle, Sealed, ring_issuers, secret_pem};
use certseal_service::config::write_private;
use certseal_unseal::UnsealKeys;
use certseal_wire::{BundleInfo, DnsName, KeyRing, NameSet, Origin, PoolName, Route, SealedQuery, causes};
use jiff::Timestamp;
use pem::{EncodeConfig, LineEnding, Pem, encode_config};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    error::{Error, ExportError},
    files::{FileError, open_dir, sync_dir, write_public},
    sealed_pages::SealedPages,
    site_bundle::{SiteBundleError, genuine_bundle, leaf_spki_digest},
    tls_key::public_key_digest,
};

/// The form in which keys are handed out.
pub enum Form<'a> {
    /// The bundles as they are: holders of an unseal key can open them, nobody else.
    Sealed,
    /// The private keys in the clear, opened with these keys: one set for each pool.
    InTheClear(&'a [UnsealKeys]),
}

/// The outcome of an export: counts of sites, and the failures.
#[derive(Debug, Default, Serialize)]
pub struct Exported {
    /// Sites that were written.
    pub written: u64,
    /// Sites that were there already, in the same version.
    pub unchanged: u64,
    /// Sites that could not be opened or written, and why.
    pub failed: Vec<(DnsName, String)>,
}

/// `site.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteFile {
    /// The site.
    pub site: DnsName,
    /// The names that lead to it.
    pub names: NameSet,
    /// The version of its bundle.
    pub version: u64,
    /// The pools that serve it.
    pub pools: Vec<PoolName>,
    /// The server behind the edge; none when certstore has no genuine route.
    pub upstream: Option<Origin>,
    /// Start of the certificate's validity.
    pub not_before: Timestamp,
    /// End of the certificate's validity.
    pub not_after: Timestamp,
    /// The issuing CA's name.
    pub authority: String,
    /// How the key is sealed in certseal.
    pub suite: String,
}

/// Writes every site into a folder of `dir`. A site that is there in the same version stays, so that the export can be
/// run again; nothing that is there is overwritten.
///
/// # Errors
/// When `dir` is not usable, or certstore cannot be reached. A fault of one site does not stop the others.
pub async fn export(
    store: &StoreClient,
    ring: &KeyRing,
    form: &Form<'_>,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<Exported, Error> {
    open_dir(dir)?;
    let total = store.inventory().await?.bundles;
    progress.begin("exporting", total);
    let mut outcome = Exported::default();
    let mut pages = SealedPages::new(store, SealedQuery::default());
    while let Some(page) = pages.next().await? {
        for entry in page {
            let bundle = store.bundle(&entry.site).await?;
            let route = store.route(&entry.site).await?;
            // Departed meanwhile.
            let Some(bytes) = bundle else { continue };
            let upstream = route.and_then(|route| ring_issuers(ring).verify::<Route>(&route).ok());
            let upstream = upstream
                .filter(|route| route.site == entry.site)
                .and_then(|route| Some(route.upstreams.into_iter().next()?.origin));
            let written = tokio::task::block_in_place(|| write(&entry.site, &bytes, upstream, ring, form, dir));
            match written {
                Ok(true) => outcome.written += 1,
                Ok(false) => outcome.unchanged += 1,
                Err(error) => outcome.failed.push((entry.site, causes(&error))),
            }
            progress.advance(1);
        }
    }
    sync_dir(dir)?;
    Ok(outcome)
}

/// Whether something was written.
fn write(
    site: &DnsName,
    bytes: &[u8],
    upstream: Option<Origin>,
    ring: &KeyRing,
    form: &Form<'_>,
    dir: &Path,
) -> Result<bool, ExportError> {
    let (bundle, info) = genuine_bundle(site, bytes, &ring_issuers(ring))?;
    let place = dir.join(site.as_str());
    if let Some(there) = present(&place)? {
        if there != info.version {
            return Err(ExportError::Version { place, there, stored: info.version });
        }
        return Ok(false);
    }
    let secret = match form {
        Form::Sealed => None,
        Form::InTheClear(keys) => Some(opened(&bundle, keys)?),
    };
    let unfinished = dir.join(format!(".{site}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(FileError::refused("remove", &unfinished))?;
    }
    let made = DirBuilder::new().mode(0o700).create(&unfinished);
    made.map_err(FileError::refused("make", &unfinished))?;
    let write = |name: &str, write: &dyn Fn(&Path) -> io::Result<()>| {
        let path = unfinished.join(name);
        write(&path).map_err(FileError::refused("write", &path))
    };
    write("chain.pem", &|path| write_public(path, &chain_pem(&bundle)))?;
    match secret {
        Some(text) => write("key.pem", &|path| write_private(path, &text))?,
        None => write("bundle.bin", &|path| fs::write(path, bytes))?,
    }
    let suite = bundle.sealed().suite_name().to_owned();
    let BundleInfo { site, names, version, pools, not_before, not_after, authority, .. } = info;
    let about = SiteFile { site, names, version, pools, upstream, not_before, not_after, authority, suite };
    let about = serde_json::to_string_pretty(&about)? + "\n";
    write("site.json", &|path| write_public(path, &about))?;
    sync_dir(&unfinished)?;
    fs::rename(&unfinished, &place).map_err(FileError::refused("name", &place))?;
    Ok(true)
}

/// The version that is in `place` already.
fn present(place: &Path) -> Result<Option<u64>, ExportError> {
    if place.symlink_metadata().is_err() {
        return Ok(None);
    }
    let text = fs::read_to_string(place.join("site.json"));
    let text = text.map_err(|source| ExportError::Taken { place: place.to_owned(), source })?;
    let there: SiteFile =
        serde_json::from_str(&text).map_err(|source| ExportError::About { place: place.to_owned(), source })?;
    Ok(Some(there.version))
}

/// The private key as PEM, if it is the certificate's.
fn opened(bundle: &Bundle, keys: &[UnsealKeys]) -> Result<Zeroizing<String>, ExportError> {
    let sealed = bundle.sealed();
    let fits = |keys: &&UnsealKeys| match sealed {
        Sealed::Envelope(_) => keys.iter().next().is_some_and(|key| sealed.is_for(key.pool())),
        Sealed::Legacy(_) => !keys.legacy().is_empty(),
    };
    // Those of the right pool, or whichever says best what is missing.
    let keys = keys.iter().find(fits).or(keys.first()).ok_or(ExportError::NoKey)?;
    let key = keys.open_sealed(sealed).map_err(SiteBundleError::Open)?;
    if public_key_digest(&key) != Some(leaf_spki_digest(bundle)?) {
        return Err(SiteBundleError::OtherKey.into());
    }
    Ok(secret_pem::encode("PRIVATE KEY", key.expose_pkcs8()))
}

fn chain_pem(bundle: &Bundle) -> String {
    bundle.chain().iter().map(|der| encode_config(&Pem::new("CERTIFICATE", der.as_slice()), lf())).collect()
}

fn lf() -> EncodeConfig {
    EncodeConfig::new().set_line_ending(LineEnding::LF)
}
