//! Sealing content keys to the new unseal key, where the old one is.

use std::{collections::HashMap, sync::Arc};

use certseal_client::{ClientError, Progress, StoreClient};
use certseal_seal::{Recipient, Sealed, Stanza, entry_recipient};
use certseal_unseal::UnsealKeys;
use certseal_wire::{Base64, DnsName, GroupId, Rewrap, RewrapRequest, RewrapTarget, RotationPlan, SealedEntry};
use tokio::task::JoinSet;

use super::{
    pool_query::sealed_keys_of,
    ring_steps::{ACTIVATED, at_least},
};
use crate::{
    cores::on_all_cores,
    error::{Error, RotationError},
    ring_client::RingClient,
    sealed_pages::SealedPages,
};

/// The outcome for the bundles that lacked the new key.
#[derive(Debug, Default)]
pub struct Rewrapped {
    /// Bundles that lacked it.
    pub looked_at: u64,
    /// Bundles that have it now.
    pub changed: u64,
    /// Bundles whose content key could not be sealed to it, with the reason.
    pub failed: Vec<(DnsName, String)>,
}

/// Seals the content key of every bundle that lacks the rotation's new key to it, or of all of them, and gives the stanzas
/// to certstore.
///
/// Nothing is remembered between runs: certstore passes over bundles that have the new key already.
///
/// # Errors
/// When certstore cannot be reached or refuses.
pub async fn rewrap(
    rings: &RingClient<'_>,
    plan: &RotationPlan,
    keys: &UnsealKeys,
    all: bool,
    progress: &dyn Progress,
) -> Result<Rewrapped, Error> {
    // certstore says that the rotation is active; that it may be sealed to is what the security team signed.
    let (store, ring) = (rings.store(), rings.existing(at_least(plan, ACTIVATED)).await?);
    let is_active = ring.active(&plan.pool).is_some_and(|active| active.key_id == plan.to.key_id);
    if !is_active {
        return Err(RotationError::NotActive { epoch: plan.to.epoch, pool: plan.pool.clone() }.into());
    }
    let recipient = entry_recipient(&plan.to).map_err(RotationError::Recipient)?;
    progress.begin(&format!("sealing to epoch {}", plan.to.epoch), sealed_bundles(store, plan).await?);
    let mut total = Rewrapped::default();
    let mut puts: JoinSet<Result<u64, ClientError>> = JoinSet::new();
    let mut pages = SealedPages::new(store, sealed_keys_of(plan, (!all).then_some(plan.to.epoch)));
    while let Some(page) = pages.next().await? {
        let count = page.len() as u64;
        let (requests, failed) = tokio::task::block_in_place(|| seal_page(&page, keys, &recipient));
        total.looked_at += count;
        total.failed.extend(failed);
        progress.advance(count);
        for request in requests {
            // A few at a time: certstore writes them to disk while the next ones are sealed.
            while puts.len() >= PUTS {
                total.changed += finished(&mut puts).await?;
            }
            let (store, id) = (store.clone(), plan.id);
            puts.spawn(async move { store.rewrap(id, &request).await.map(|outcome| outcome.changed) });
        }
    }
    while !puts.is_empty() {
        total.changed += finished(&mut puts).await?;
    }
    Ok(total)
}

async fn sealed_bundles(store: &StoreClient, plan: &RotationPlan) -> Result<u64, Error> {
    let epochs = store.inventory().await?.epochs;
    let has_new = |count: &&certseal_wire::EpochCount| count.pool == plan.pool && count.epoch == plan.to.epoch;
    let new = epochs.iter().find(has_new).map_or(0, |count| count.sealed);
    let most = epochs.iter().filter(|count| count.pool == plan.pool).map(|count| count.sealed).max().unwrap_or(0);
    Ok(most.saturating_sub(new))
}

async fn finished(puts: &mut JoinSet<Result<u64, ClientError>>) -> Result<u64, Error> {
    match puts.join_next().await {
        Some(put) => Ok(put.map_err(RotationError::Stopped)??),
        None => Ok(0),
    }
}

/// Seals a page on all cores.
fn seal_page(
    entries: &[SealedEntry],
    keys: &UnsealKeys,
    recipient: &Recipient,
) -> (Vec<RewrapRequest>, Vec<(DnsName, String)>) {
    let parts = on_all_cores(entries, |part| seal_part(part, keys, recipient));
    let (mut requests, mut failed) = (Vec::new(), Vec::new());
    for (rewraps, refused) in parts {
        requests.extend(in_requests(rewraps));
        failed.extend(refused);
    }
    (requests, failed)
}

type Part = (Vec<(Arc<Stanza>, RewrapTarget)>, Vec<(DnsName, String)>);

fn seal_part(entries: &[SealedEntry], keys: &UnsealKeys, recipient: &Recipient) -> Part {
    let (mut rewraps, mut failed) = (Vec::new(), Vec::new());
    let mut groups: HashMap<(GroupId, Vec<u8>), Arc<Stanza>> = HashMap::new();
    for SealedEntry { site, sealed, .. } in entries {
        match seal_one(&sealed.0, keys, recipient, &mut groups) {
            Ok((stanza, envelope)) => rewraps.push((stanza, RewrapTarget { site: site.clone(), envelope })),
            Err(reason) => failed.push((site.clone(), reason)),
        }
    }
    (rewraps, failed)
}

fn seal_one(
    sealed: &[u8],
    keys: &UnsealKeys,
    recipient: &Recipient,
    groups: &mut HashMap<(GroupId, Vec<u8>), Arc<Stanza>>,
) -> Result<(Arc<Stanza>, certseal_wire::Digest), String> {
    let sealed = Sealed::parse(sealed).map_err(|error| error.to_string())?;
    let envelope = sealed.envelope().ok_or("its key is sealed as before certseal")?;
    let header = envelope.header();
    // The envelopes of a group have the same stanzas, and so the same content key.
    let group = header.group.zip(envelope.stanzas().first().map(|stanza| stanza.sealed_key.to_vec()));
    if let Some(stanza) = group.as_ref().and_then(|group| groups.get(group)) {
        return Ok((stanza.clone(), header.hash()));
    }
    let stanza = Arc::new(keys.rewrap(envelope, recipient).map_err(|error| error.to_string())?);
    if let Some(group) = group {
        groups.insert(group, stanza.clone());
    }
    Ok((stanza, header.hash()))
}

/// Puts together what has the same stanza, in requests of the size that certstore takes.
fn in_requests(rewraps: Vec<(Arc<Stanza>, RewrapTarget)>) -> Vec<RewrapRequest> {
    let mut requests = Vec::new();
    for chunk in rewraps.chunks(RewrapRequest::MAX_SITES) {
        let mut by_stanza: Vec<(&Arc<Stanza>, Vec<RewrapTarget>)> = Vec::new();
        let mut places: HashMap<*const Stanza, usize> = HashMap::new();
        for (stanza, target) in chunk {
            let place = *places.entry(Arc::as_ptr(stanza)).or_insert_with(|| {
                by_stanza.push((stanza, Vec::new()));
                by_stanza.len() - 1
            });
            by_stanza[place].1.push(target.clone());
        }
        let rewraps = by_stanza.into_iter().map(|(stanza, sites)| Rewrap {
            enc: Base64(stanza.enc.clone()),
            sealed_key: Base64(stanza.sealed_key.to_vec()),
            sites,
        });
        requests.push(RewrapRequest { rewraps: rewraps.collect() });
    }
    requests
}

/// Requests under way at one time.
const PUTS: usize = 4;
