//! The stored bundles, one after the other.

use certseal_seal::Bundle;
use certseal_service::problem::Refusal;
use certseal_wire::{DnsName, Epoch, PoolName};

use crate::{
    records::{BUNDLES, Stored},
    refusal::storage_refusal,
    vault::Vault,
};

/// Shows every bundle after `after` to `look`, in the order of sites, until it answers false.
pub(crate) fn each(
    vault: &Vault,
    after: Option<&DnsName>,
    mut look: impl FnMut(&DnsName, u64, &Bundle) -> Result<bool, Refusal>,
) -> Result<(), Refusal> {
    let mut after = after.map(|site| site.as_str().as_bytes().to_vec());
    loop {
        let page = vault.storage().scan(BUNDLES, after.as_deref(), SCANNED).map_err(storage_refusal)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, record) in &page {
            let stored =
                Stored::decode(record).ok_or_else(|| Refusal::internal("a stored bundle is not one of ours"))?;
            if stored.is_tombstone() {
                continue;
            }
            let bundle = Bundle::parse(&stored.bytes).map_err(Refusal::internal)?;
            if !look(&site_of(key)?, stored.version, &bundle)? {
                return Ok(());
            }
        }
    }
}

/// The first site whose bundle is sealed to this key.
pub(crate) fn first_sealed_to(vault: &Vault, pool: &PoolName, epoch: Epoch) -> Result<Option<DnsName>, Refusal> {
    let mut found = None;
    each(vault, None, |site, _, bundle| {
        let is_found = bundle.sealed().envelope().is_some_and(|envelope| envelope.stanza(pool, epoch).is_some());
        if is_found {
            found = Some(site.clone());
        }
        Ok(!is_found)
    })?;
    Ok(found)
}

/// The site that a bundle's key names.
pub(crate) fn site_of(key: &[u8]) -> Result<DnsName, Refusal> {
    let text = std::str::from_utf8(key).map_err(Refusal::internal)?;
    text.parse().map_err(Refusal::internal)
}

/// Bundles read from the database at one time.
const SCANNED: usize = 500;
