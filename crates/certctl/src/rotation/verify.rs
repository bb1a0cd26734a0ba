//! Opening bundles with the new key before the old one goes.

use aws_lc_rs::{
    encoding::AsDer,
    rsa::KeyPair as RsaKeyPair,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use certseal_client::{Progress, StoreClient};
use certseal_seal::{KeyKind, Sealed, TlsPrivateKey, sha256};
use certseal_unseal::UnsealKeys;
use certseal_wire::{Digest, DnsName, RotationPlan, SealedEntry, Verification};

use super::{SealedPages, of_pool, on_all_cores};

/// What came of opening bundles.
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
) -> anyhow::Result<Verified> {
    let is_new = keys.iter().all(|key| key.key_id() == plan.to.key_id) && keys.iter().count() == 1;
    anyhow::ensure!(
        is_new,
        "expected only the private half of epoch {} of pool {}, key {}: with the old one at hand nothing is proved",
        plan.to.epoch,
        plan.pool,
        plan.to.key_id
    );
    progress.begin(&format!("opening with epoch {}", plan.to.epoch), store.inventory().await?.bundles);
    let mut total = Verified::default();
    let mut pages = SealedPages::new(store, of_pool(plan, None));
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

/// One of each `one_in` entries, by chance: who spoils bundles cannot know which are looked at.
fn sample(entries: &[SealedEntry], one_in: u32) -> anyhow::Result<Vec<&SealedEntry>> {
    let choose = |few: &'_ [SealedEntry]| {
        let random = getrandom::u64().map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        anyhow::Ok((random % few.len() as u64) as usize)
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

/// The digest of the SubjectPublicKeyInfo that belongs to a private key.
pub(crate) fn public_key_digest(key: &TlsPrivateKey) -> Option<Digest> {
    let spki = match key.kind() {
        KeyKind::EcdsaP256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.expose_pkcs8()).ok()?;
            AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).ok()?.as_ref().to_vec()
        }
        KeyKind::Rsa => {
            let pair = RsaKeyPair::from_pkcs8(key.expose_pkcs8()).ok()?;
            AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).ok()?.as_ref().to_vec()
        }
    };
    Some(sha256(&spki))
}
