//! The sealed keys that certstore holds, listed and counted.

use std::collections::{BTreeMap, BTreeSet};

use certseal_seal::{Bundle, Sealed};
use certseal_service::problem::Refusal;
use certseal_wire::{
    Base64, DnsName, EpochCount, Inventory, IssuerCount, Kind, SealedEntry, SealedPage, SealedQuery, SignerId,
};

use super::{bundles, presence};
use crate::{
    records::{self, Presence, Stored},
    refusal::storage_refusal,
    vault::Vault,
};

/// A page of sealed keys, without the certificates around them.
pub(crate) fn sealed_keys(vault: &Vault, query: &SealedQuery) -> Result<SealedPage, Refusal> {
    let limit = query.limit.unwrap_or(MAX_SEALED).clamp(1, MAX_SEALED);
    let mut page = SealedPage { keys: Vec::new(), next: None };
    let mut looked_at = 0;
    bundles::each(vault, query.after.as_ref(), |site, version, bundle| {
        looked_at += 1;
        if is_asked_for(bundle.sealed(), query) {
            page.keys.push(listed(site, version, bundle));
        }
        let goes_on = page.keys.len() < limit && looked_at < MAX_LOOKED_AT;
        page.next = (!goes_on).then(|| site.clone());
        Ok(goes_on)
    })?;
    Ok(page)
}

/// Counts all bundles.
pub(crate) fn count(vault: &Vault) -> Result<Inventory, Refusal> {
    let mut inventory = Inventory::default();
    let mut epochs: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    let mut issuers: BTreeMap<SignerId, IssuerCount> = BTreeMap::new();
    bundles::each(vault, None, |site, _, bundle| {
        inventory.bundles += 1;
        // The bundle of a site that has left is served to nobody: its issuers are not needed for it.
        if presence::of_site(vault, site.as_str())? == Presence::Present {
            let envelope = bundle.sealed().envelope().map(|envelope| envelope.header().issuer);
            for signer in [Some(bundle.statement().signer), envelope].into_iter().flatten().collect::<BTreeSet<_>>() {
                issuers.entry(signer).or_default().bundles += 1;
            }
        }
        *inventory.suites.entry(bundle.sealed().suite_name().to_owned()).or_default() += 1;
        if let Sealed::Envelope(envelope) = bundle.sealed() {
            inventory.grouped += u64::from(envelope.header().group.is_some());
            for stanza in envelope.stanzas() {
                let of_pool = envelope.stanzas().iter().filter(|other| other.pool == stanza.pool).count();
                let (sealed, only) = epochs.entry((stanza.pool.clone(), stanza.epoch)).or_default();
                *sealed += 1;
                *only += u64::from(of_pool == 1);
            }
        }
        Ok(true)
    })?;
    // Not OCSP answers: nobody needs one of an issuer that leaves, and a responder that is away would keep it.
    for kind in [Kind::Route, Kind::Checkpoint, Kind::Accounts] {
        each_signer(vault, kind, |signer| issuers.entry(signer).or_default().documents += 1)?;
    }
    inventory.issuers = issuers.into_iter().map(|(signer, count)| (signer.to_string(), count)).collect();
    let counts = epochs.into_iter();
    inventory.epochs = counts.map(|((pool, epoch), (sealed, only))| EpochCount { pool, epoch, sealed, only }).collect();
    Ok(inventory)
}

/// Shows the signer that each document of a kind names to `look`.
fn each_signer(vault: &Vault, kind: Kind, mut look: impl FnMut(SignerId)) -> Result<(), Refusal> {
    let mut after = None::<Vec<u8>>;
    loop {
        let page = vault.storage().scan(records::table(kind), after.as_deref(), SCANNED).map_err(storage_refusal)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let signers = page.iter().filter_map(|(_, record)| records::signer(kind, &Stored::decode(record)?.bytes));
        signers.for_each(&mut look);
    }
}

/// Records read at one time.
const SCANNED: usize = 500;

fn is_asked_for(sealed: &Sealed, query: &SealedQuery) -> bool {
    let Sealed::Envelope(envelope) = sealed else {
        return query.legacy || (query.pool.is_none() && query.lacking.is_none());
    };
    if query.legacy {
        return false;
    }
    let Some(pool) = &query.pool else { return true };
    let is_for_pool = envelope.stanzas().iter().any(|stanza| stanza.pool == *pool);
    is_for_pool && query.lacking.is_none_or(|epoch| envelope.stanza(pool, epoch).is_none())
}

fn listed(site: &DnsName, version: u64, bundle: &Bundle) -> SealedEntry {
    let spki = match bundle.sealed() {
        Sealed::Envelope(_) => None,
        Sealed::Legacy(_) => bundle.leaf_spki().map(|spki| Base64(spki.to_vec())),
    };
    SealedEntry { site: site.clone(), version, sealed: Base64(bundle.sealed().to_bytes()), spki }
}

/// Keys in one answer: with 16 stanzas each they have some 3 MB.
const MAX_SEALED: usize = 1000;

/// Bundles that one answer passes over.
const MAX_LOOKED_AT: usize = 20_000;
