//! Opening bundles with the new key before the old one goes.

use certseal_client::{Progress, StoreClient};
use certseal_seal::Sealed;
use certseal_unseal::UnsealKeys;
use certseal_wire::{DnsName, RotationPlan, SealedEntry, Verification};

use super::pool_query::sealed_keys_of;
use crate::{
    cores::on_all_cores,
    error::{Error, RotationError},
    sealed_pages::SealedPages,
    tls_key::public_key_digest,
};

/// The outcome of opening bundles.
#[derive(Debug, Default)]
pub struct Verified {
    /// Bundles of the pool.
    pub bundles: u64,
    /// Bundles that were opened with the new key, and whose key is the certificate's.
    pub opened: u64,
    /// Bundles that were not, with the reason.
    pub failed: Vec<(DnsName, String)>,
}

/// Opens the bundles of a rotation's pool with its new key, all or the share that the plan says, and compares each TLS
/// key with its certificate. Tells certstore, if all went well.
///
/// # Errors
/// When `keys` holds another key than the new one, or certstore cannot be reached or refuses.
pub async fn verify(
    store: &StoreClient,
    plan: &RotationPlan,
    keys: &UnsealKeys,
    progress: &dyn Progress,
) -> Result<Verified, Error> {
    let is_new = keys.iter().all(|key| key.key_id() == plan.to.key_id) && keys.iter().count() == 1;
    if !is_new {
        let (epoch, pool, key_id) = (plan.to.epoch, plan.pool.clone(), plan.to.key_id);
        return Err(RotationError::OtherKeys { epoch, pool, key_id }.into());
    }
    progress.begin(&format!("opening with epoch {}", plan.to.epoch), store.inventory().await?.bundles);
    let mut total = Verified::default();
    let mut pages = SealedPages::new(store, sealed_keys_of(plan, None));
    while let Some(page) = pages.next().await? {
        total.bundles += page.len() as u64;
        let chosen = sample(&page, plan.verify_one_in)?;
        let failed = tokio::task::block_in_place(|| open_all(&chosen, keys));
        total.opened += chosen.len() as u64 - failed.len() as u64;
        total.failed.extend(failed);
        progress.advance(page.len() as u64);
    }
    if total.failed.is_empty() {
        store.verify_rotation(plan.id, &Verification { opened: total.opened, bundles: total.bundles }).await?;
    }
    Ok(total)
}

/// One of each `one_in` entries, by chance: a spoiler of bundles cannot know which are looked at.
fn sample(entries: &[SealedEntry], one_in: u32) -> Result<Vec<&SealedEntry>, Error> {
    let choose = |few: &'_ [SealedEntry]| {
        let random = getrandom::u64().map_err(Error::NoRandomness)?;
        Ok::<_, Error>((random % few.len() as u64) as usize)
    };
    entries.chunks(one_in.max(1) as usize).map(|few| Ok(&few[choose(few)?])).collect()
}

fn open_all(entries: &[&SealedEntry], keys: &UnsealKeys) -> Vec<(DnsName, String)> {
    let failed = |entry: &&SealedEntry| Some((entry.site.clone(), open_one(entry, keys).err()?));
    on_all_cores(entries, |part| part.iter().filter_map(failed).collect::<Vec<_>>()).concat()
}

fn open_one(entry: &SealedEntry, keys: &UnsealKeys) -> Result<(), String> {
    let sealed = Sealed::parse(&entry.sealed.0).map_err(|error| error.to_string())?;
    let envelope = sealed.envelope().ok_or("its key is sealed as before certseal")?;
    let key = keys.open(envelope).map_err(|error| error.to_string())?;
    match public_key_digest(&key) {
        Some(spki) if spki == envelope.header().spki => Ok(()),
        Some(_) => Err("the sealed key is not the certificate's".to_owned()),
        None => Err("what was sealed is no private key".to_owned()),
    }
}
