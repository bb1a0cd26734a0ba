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
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use anyhow::{Context, ensure};
use certseal_client::{Progress, StoreClient};
use certseal_seal::{Bundle, Sealed, ring_issuers, secret_pem, spki_digest};
use certseal_service::config::write_private;
use certseal_unseal::UnsealKeys;
use certseal_wire::{BundleInfo, DnsName, KeyRing, NameSet, Origin, PoolName, Route, SealedQuery, causes};
use jiff::Timestamp;
use pem::{EncodeConfig, LineEnding, Pem, encode_config};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    files::{sync_dir, write_public},
    rotation::{SealedPages, public_key_digest},
};

/// What is handed out.
pub enum What<'a> {
    /// The bundles as they are: whoever has an unseal key can open them, nobody else.
    Sealed,
    /// The private keys in the clear, opened with these keys: one set for each pool.
    Keys(&'a [UnsealKeys]),
}

/// What became of the sites.
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

/// Writes every site into a folder of `dir`. What is there in the same version stays, so that it can be run again;
/// nothing that is there is overwritten.
///
/// # Errors
/// When `dir` is not usable, or certstore cannot be reached. What is wrong with one site does not stop the others.
pub async fn export(
    store: &StoreClient,
    ring: &KeyRing,
    what: &What<'_>,
    dir: &Path,
    progress: &dyn Progress,
) -> anyhow::Result<Exported> {
    crate::files::open_dir(dir)?;
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
            let written = tokio::task::block_in_place(|| write(&entry.site, &bytes, upstream, ring, what, dir));
            match written {
                Ok(true) => outcome.written += 1,
                Ok(false) => outcome.unchanged += 1,
                Err(error) => outcome.failed.push((entry.site, causes(error.as_ref()))),
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
    what: &What<'_>,
    dir: &Path,
) -> anyhow::Result<bool> {
    let bundle = Bundle::parse(bytes)?;
    let info = bundle.verify(&ring_issuers(ring))?;
    ensure!(info.site == *site, "certstore has the bundle of {} there: it swapped them", info.site);
    let place = dir.join(site.as_str());
    if let Some(there) = present(&place)? {
        ensure!(
            there == info.version,
            "{} holds version {there}, and {} is stored: choose another directory, or remove that one",
            place.display(),
            info.version
        );
        return Ok(false);
    }
    let secret = match what {
        What::Sealed => None,
        What::Keys(keys) => Some(opened(&bundle, keys)?),
    };
    let unfinished = dir.join(format!(".{site}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    let made = DirBuilder::new().mode(0o700).create(&unfinished);
    made.with_context(|| format!("cannot make {}", unfinished.display()))?;
    let failed = |name: &str| format!("cannot write {}", unfinished.join(name).display());
    write_public(&unfinished.join("chain.pem"), &chain_pem(&bundle)).with_context(|| failed("chain.pem"))?;
    match secret {
        Some(text) => write_private(&unfinished.join("key.pem"), &text).with_context(|| failed("key.pem"))?,
        None => fs::write(unfinished.join("bundle.bin"), bytes).with_context(|| failed("bundle.bin"))?,
    }
    let suite = bundle.sealed().suite_name().to_owned();
    let BundleInfo { site, names, version, pools, not_before, not_after, authority, .. } = info;
    let about = SiteFile { site, names, version, pools, upstream, not_before, not_after, authority, suite };
    let about = serde_json::to_string_pretty(&about)? + "\n";
    write_public(&unfinished.join("site.json"), &about).with_context(|| failed("site.json"))?;
    sync_dir(&unfinished)?;
    fs::rename(&unfinished, &place).with_context(|| format!("cannot name {}", place.display()))?;
    Ok(true)
}

/// The version that is in `place` already.
fn present(place: &Path) -> anyhow::Result<Option<u64>> {
    if place.symlink_metadata().is_err() {
        return Ok(None);
    }
    let text = fs::read_to_string(place.join("site.json"));
    let text = text.with_context(|| format!("{} is there already, and was not made by an export", place.display()))?;
    let there: SiteFile = serde_json::from_str(&text).with_context(|| place.display().to_string())?;
    Ok(Some(there.version))
}

/// The private key as PEM, if it is the certificate's.
fn opened(bundle: &Bundle, keys: &[UnsealKeys]) -> anyhow::Result<Zeroizing<String>> {
    let sealed = bundle.sealed();
    let fits = |keys: &&UnsealKeys| match sealed {
        Sealed::Envelope(_) => keys.iter().next().is_some_and(|key| sealed.is_for(key.pool())),
        Sealed::Legacy(_) => !keys.legacy().is_empty(),
    };
    // Those of the right pool, or whichever says best what is missing.
    let keys = keys.iter().find(fits).or(keys.first()).context("no unseal key was given")?;
    let key = keys.open_sealed(sealed)?;
    let spki = spki_digest(bundle.leaf_spki().context("the bundle's certificate does not parse")?);
    ensure!(public_key_digest(&key) == Some(spki), "the sealed key is not the certificate's");
    Ok(secret_pem::encode("PRIVATE KEY", key.expose_pkcs8()))
}

fn chain_pem(bundle: &Bundle) -> String {
    bundle.chain().iter().map(|der| encode_config(&Pem::new("CERTIFICATE", der.as_slice()), lf())).collect()
}

fn lf() -> EncodeConfig {
    EncodeConfig::new().set_line_ending(LineEnding::LF)
}
