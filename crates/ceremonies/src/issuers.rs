//! A change of certman's issuer key.
//!
//! ```text
//! routine       ring lists both -> certman gets the new key, signs everything anew -> ring lists the new one only
//! compromised   ring lists the new one only -> certman gets the new key, signs everything and orders every certificate anew
//! ```
//!
//! Nothing is remembered between runs: ring and inventory say how far it is.

use std::{collections::HashSet, time::Duration};

use certseal_client::{CertmanClient, ClientError, Progress, StoreClient};
use certseal_seal::{RingMark, Sealed, SigningKey, VerifyingKey};
use certseal_wire::{
    AuditQuery, DnsName, EdgeReport, Inventory, IssuerCount, KeyRing, ProblemKind, Renewal, SealedQuery, SignerId,
};
use tokio::time::{Instant, sleep};

use crate::{
    error::{Error, IssuerError},
    keys::list_issuer,
    ring_client::RingClient,
    sealed_pages::SealedPages,
};

/// How the key is to be changed.
#[derive(Debug, Clone, Copy)]
pub enum Replacement<'a> {
    /// The old key is nobody else's: it counts until nothing is left that only it signed.
    Routine {
        /// Renews the certificates that only the old key signed for; without it they are waited for.
        renew: Option<&'a CertmanClient>,
        /// How long to wait.
        patience: Duration,
    },
    /// Others may have it: it counts no more, at once.
    Compromised {
        /// Versions up to this one stay out also when an old key signed them.
        floor: Option<u64>,
    },
}

/// Lists an issuer in the ring. Answers the new ring.
///
/// # Errors
/// When the ring does not count or certstore refuses.
pub async fn add(
    rings: &RingClient<'_>,
    security: &SigningKey,
    issuer: &VerifyingKey,
    seen: RingMark,
) -> Result<KeyRing, Error> {
    let add = |ring: &mut KeyRing| {
        list_issuer(ring, issuer);
        Ok(())
    };
    rings.change(security, seen, add).await
}

/// Takes an issuer from the ring. Answers the new ring.
///
/// # Errors
/// When the ring does not count or does not list the issuer, or certstore refuses.
pub async fn remove(
    rings: &RingClient<'_>,
    security: &SigningKey,
    issuer: SignerId,
    seen: RingMark,
) -> Result<KeyRing, Error> {
    let remove = |ring: &mut KeyRing| {
        let before = ring.issuers.len();
        ring.issuers.retain(|entry| entry.id != issuer);
        if ring.issuers.len() < before { Ok(()) } else { Err(IssuerError::NotListed(issuer).into()) }
    };
    rings.change(security, seen, remove).await
}

/// Replaces all issuers of the ring by `new`. Answers the ring in the end.
///
/// # Errors
/// When the ring does not count or certstore refuses; of a routine change also when certman does not sign with the new key
/// in time, or edges do not read it. It can be run again.
pub async fn replace(
    rings: &RingClient<'_>,
    security: &SigningKey,
    new: &VerifyingKey,
    replacement: Replacement<'_>,
    seen: RingMark,
    progress: &dyn Progress,
) -> Result<KeyRing, Error> {
    let ring = rings.existing(seen).await?;
    let is_done = |ring: &KeyRing| ring.issuers.len() == 1 && ring.lists_issuer(new.id());
    let only_new = |ring: &mut KeyRing| {
        list_issuer(ring, new);
        ring.issuers.retain(|issuer| issuer.id == new.id());
        Ok(())
    };
    match replacement {
        _ if is_done(&ring) => Ok(ring),
        Replacement::Compromised { floor } => {
            let change = |ring: &mut KeyRing| {
                ring.version_floor = floor.unwrap_or(0).max(ring.version_floor);
                only_new(ring)
            };
            rings.change(security, RingMark::of_version(ring.version), change).await
        }
        Replacement::Routine { renew, patience } => {
            let listed = if ring.lists_issuer(new.id()) {
                ring
            } else {
                let list = |ring: &mut KeyRing| {
                    list_issuer(ring, new);
                    Ok(())
                };
                rings.change(security, RingMark::of_version(ring.version), list).await?
            };
            let deadline = Instant::now() + patience;
            await_signatures(rings.store(), new.id(), renew, deadline, progress).await?;
            await_edges_to_read_all(rings.store(), deadline, progress).await?;
            rings.change(security, RingMark::of_version(listed.version), only_new).await
        }
    }
}

/// Waits until everything that certstore has is signed with the new key.
async fn await_signatures(
    store: &StoreClient,
    new: SignerId,
    renew: Option<&CertmanClient>,
    deadline: Instant,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut renewed = HashSet::new();
    loop {
        let left = left_by_others(&store.inventory().await?, new);
        let what = match left {
            IssuerCount { bundles: 0, documents: 0 } => return Ok(()),
            IssuerCount { bundles, documents: 0 } => {
                if let Some(certman) = renew {
                    renew_all(store, certman, new, &mut renewed).await?;
                }
                format!("the renewal of {bundles} certificates, which only an old issuer key signed for")
            }
            IssuerCount { documents, .. } => format!(
                "certman to sign {documents} routes, checkpoints and account lists with issuer key {new}: give it the key's \
                 file as `issuer_key`, and restart it"
            ),
        };
        wait(&what, deadline, progress).await?;
    }
}

fn left_by_others(inventory: &Inventory, new: SignerId) -> IssuerCount {
    let others = inventory.issuers.iter().filter(|(id, _)| **id != new.to_string());
    others.fold(IssuerCount::default(), |left, (_, count)| IssuerCount {
        bundles: left.bundles + count.bundles,
        documents: left.documents + count.documents,
    })
}

/// Has each certificate renewed once whose key was sealed under another issuer.
async fn renew_all(
    store: &StoreClient,
    certman: &CertmanClient,
    new: SignerId,
    renewed: &mut HashSet<DnsName>,
) -> Result<(), Error> {
    let mut pages = SealedPages::new(store, SealedQuery::default());
    while let Some(page) = pages.next().await? {
        for entry in page {
            let sealed = Sealed::parse(&entry.sealed.0)
                .map_err(|source| IssuerError::Sealed { site: entry.site.clone(), source })?;
            let is_ours = sealed.envelope().is_some_and(|envelope| envelope.header().issuer == new);
            if is_ours || !renewed.insert(entry.site.clone()) {
                continue;
            }
            match certman.renew(&entry.site, &Renewal::default()).await {
                Ok(_) => {}
                // It has left: its bundle goes with it.
                Err(ClientError::Refused(problem)) if problem.kind == ProblemKind::NotFound => {}
                Err(error) => return Err(IssuerError::NotRenewed { site: entry.site, source: Box::new(error) }.into()),
            }
        }
    }
    Ok(())
}

/// Waits until every edge has read what certstore has now, and refuses nothing of it: an edge would not serve what it
/// lacks of it under the next ring.
async fn await_edges_to_read_all(store: &StoreClient, deadline: Instant, progress: &dyn Progress) -> Result<(), Error> {
    let now = store.audit(&AuditQuery { after: None, limit: Some(1) }).await?.feed;
    loop {
        let edges = store.edges().await?.edges.into_iter().map(|edge| edge.report);
        let is_behind = |edge: &EdgeReport| !edge.has_taken(Some(now));
        let behind: Vec<String> = edges.filter(is_behind).map(|edge| format!("{}/{}", edge.pool, edge.name)).collect();
        if behind.is_empty() {
            return Ok(());
        }
        wait(&format!("edges {} to read everything and to refuse nothing", behind.join(", ")), deadline, progress)
            .await?;
    }
}

async fn wait(what: &str, deadline: Instant, progress: &dyn Progress) -> Result<(), Error> {
    if Instant::now() >= deadline {
        return Err(IssuerError::TimedOut(what.to_owned()).into());
    }
    progress.waiting(what);
    sleep(POLL).await;
    Ok(())
}

/// From one question to the next while waiting.
const POLL: Duration = Duration::from_secs(1);
