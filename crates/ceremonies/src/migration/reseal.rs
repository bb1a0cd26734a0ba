//! Sealing legacy keys anew, where both can be opened: on the host of a ceremony.

use certseal_client::{CertmanClient, ClientError, Progress, StoreClient};
use certseal_seal::{Recipient, SealRequest, Sealed, VerifyingKeys, draft, ring_issuers, ring_recipient};
use certseal_unseal::UnsealKeys;
use certseal_wire::{Base64, BundleInfo, DnsName, KeyRing, ProblemKind, Reseal, SignerId, causes};
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};

use crate::{
    cores::on_all_cores,
    error::{Error, MigrationError},
    site_bundle::{SiteBundleError, genuine_bundle, leaf_spki_digest},
    tls_key::public_key_digest,
};

/// The outcome of a resealing: counts of sites, and the failures.
#[derive(Debug, Default, Serialize)]
pub struct Resealed {
    /// Sites whose key is in an envelope now, or as soon as certman has stored it.
    pub sealed: u64,
    /// Sites that needed nothing, or are being changed: an order for another certificate is under way, say.
    pub passed_over: u64,
    /// Sites whose key could not be sealed anew, and why.
    pub failed: Vec<(DnsName, String)>,
}

/// Seals the keys of `sites` anew, each to the active unseal keys of its pools, and gives the outcome to certman to sign.
/// A key that is in an envelope already is passed over, so that this can be run again.
///
/// # Errors
/// When certstore or certman cannot be reached.
pub async fn reseal(
    store: &StoreClient,
    certman: &CertmanClient,
    ring: &KeyRing,
    keys: &UnsealKeys,
    sites: &[DnsName],
    progress: &dyn Progress,
) -> Result<Resealed, Error> {
    let issuers = ring_issuers(ring);
    progress.begin("sealing anew", sites.len() as u64);
    let mut outcome = Resealed::default();
    let mut puts: JoinSet<Put> = JoinSet::new();
    let mut chunks = sites.chunks(CHUNK);
    let mut next = chunks.next().map(|chunk| fetch(store, chunk));
    while let Some(fetched) = next.take() {
        let bundles = fetched.await.map_err(MigrationError::stopped("reading bundles"))??;
        // The next ones come while these are opened.
        next = chunks.next().map(|chunk| fetch(store, chunk));
        let drafts = tokio::task::block_in_place(|| {
            on_all_cores(&bundles, |part| {
                let seal = |(site, bytes): &(DnsName, Option<Vec<u8>>)| {
                    (site.clone(), draft_of(site, bytes.as_deref(), &issuers, ring, keys))
                };
                part.iter().map(seal).collect::<Vec<_>>()
            })
        });
        for (site, drafted) in drafts.into_iter().flatten() {
            match drafted {
                Ok(Some(draft)) => {
                    while puts.len() >= CALLS {
                        outcome.count(puts.join_next().await, progress)?;
                    }
                    let certman = certman.clone();
                    puts.spawn(async move {
                        let put = certman.reseal(&site, &Reseal { draft: Base64(draft) }).await;
                        (site, put.map(drop))
                    });
                }
                Ok(None) => {
                    outcome.passed_over += 1;
                    progress.advance(1);
                }
                Err(error) => {
                    outcome.failed.push((site, causes(&error)));
                    progress.advance(1);
                }
            }
        }
    }
    while !puts.is_empty() {
        outcome.count(puts.join_next().await, progress)?;
    }
    Ok(outcome)
}

impl Resealed {
    fn count(&mut self, done: Option<Result<Put, JoinError>>, progress: &dyn Progress) -> Result<(), Error> {
        let Some(done) = done else { return Ok(()) };
        let (site, put) = done.map_err(MigrationError::stopped("a call"))?;
        progress.advance(1);
        match put {
            Ok(()) => self.sealed += 1,
            Err(ClientError::Refused(problem))
                if matches!(problem.kind, ProblemKind::Conflict | ProblemKind::NotFound) =>
            {
                self.passed_over += 1;
            }
            Err(error) if error.may_pass() => return Err(error.into()),
            Err(error) => self.failed.push((site, error.to_string())),
        }
        Ok(())
    }
}

type Put = (DnsName, Result<(), ClientError>);
type Fetched = Result<Vec<(DnsName, Option<Vec<u8>>)>, Error>;

fn fetch(store: &StoreClient, sites: &[DnsName]) -> tokio::task::JoinHandle<Fetched> {
    let (store, sites) = (store.clone(), sites.to_vec());
    tokio::spawn(async move {
        let mut reads = JoinSet::new();
        let mut bundles = Vec::with_capacity(sites.len());
        for site in sites {
            if reads.len() >= CALLS {
                bundles.extend(read_one(&mut reads).await?);
            }
            let store = store.clone();
            reads.spawn(async move {
                let bytes = store.bundle(&site).await?;
                Ok((site, bytes.map(|bytes| bytes.to_vec())))
            });
        }
        while let Some(bundle) = read_one(&mut reads).await? {
            bundles.push(bundle);
        }
        Ok(bundles)
    })
}

type Read = Result<(DnsName, Option<Vec<u8>>), ClientError>;

/// Waits for one of the calls; none when there are no more.
async fn read_one(reads: &mut JoinSet<Read>) -> Result<Option<(DnsName, Option<Vec<u8>>)>, Error> {
    match reads.join_next().await {
        Some(read) => Ok(Some(read.map_err(MigrationError::stopped("reading bundles"))??)),
        None => Ok(None),
    }
}

/// The key of a bundle, sealed anew. None when there is nothing to do.
fn draft_of(
    site: &DnsName,
    bytes: Option<&[u8]>,
    issuers: &VerifyingKeys,
    ring: &KeyRing,
    keys: &UnsealKeys,
) -> Result<Option<Vec<u8>>, SiteBundleError> {
    let Some(bytes) = bytes else { return Ok(None) };
    let (bundle, info) = genuine_bundle(site, bytes, issuers)?;
    if matches!(bundle.sealed(), Sealed::Envelope(_)) {
        return Ok(None);
    }
    let key = keys.open_sealed(bundle.sealed())?;
    let spki = leaf_spki_digest(&bundle)?;
    if public_key_digest(&key) != Some(spki) {
        return Err(SiteBundleError::OtherKeyToSeal);
    }
    let BundleInfo { names, version, pools, .. } = info;
    let recipients = pools.iter().map(|pool| ring_recipient(ring, pool)).collect::<Result<Vec<Recipient>, _>>()?;
    let suite = recipients.first().ok_or(SiteBundleError::NoPool)?.suite();
    let issuer: SignerId = bundle.statement().signer;
    let request = SealRequest { suite, names: &names, spki, key_version: version + 1, recipients: &recipients };
    Ok(Some(draft(&request, &key, issuer)?.to_bytes()))
}

/// Bundles that are opened together.
const CHUNK: usize = 256;

/// Calls under way at one time.
const CALLS: usize = 16;
