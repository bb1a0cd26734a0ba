//! The middle of a rotation: the new key becomes active, and everything is sealed to it.

use std::time::Duration;

use certseal_client::{CertmanClient, ClientError, Progress, StoreClient};
use certseal_seal::SigningKey;
use certseal_unseal::UnsealKeys;
use certseal_wire::{EdgeReport, ProblemKind, RotationId, RotationPlan, RotationReason, RotationState};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{
    edges::await_edges_of_pool,
    genuine::{GenuineRotation, read},
    pool_query::sealed_keys_of,
    rewrap::{Rewrapped, rewrap},
    ring_steps::{ANNOUNCED, activate, announce, at_least, planned},
};
use crate::{
    error::{Error, RotationError},
    ring_client::RingClient,
    sealed_pages::SealedPages,
};

/// The keys, certman and the patience that running a rotation needs.
pub struct Run<'a> {
    /// Signs the key rings.
    pub security: &'a SigningKey,
    /// The private halves of the keys that are left. Not needed when they are compromised.
    pub keys: &'a UnsealKeys,
    /// Has certificates issued again when the key is compromised.
    pub certman: Option<&'a CertmanClient>,
    /// How long to wait for edges, and for certificates that are issued again.
    pub patience: Duration,
}

/// Takes an approved rotation to the point where every bundle is sealed to the new key.
///
/// # Errors
/// When it is not approved, edges lack the new key for longer than there is patience, or bundles cannot be sealed to the
/// new key. It can be run again.
pub async fn run(
    rings: &RingClient<'_>,
    id: RotationId,
    run: &Run<'_>,
    progress: &dyn Progress,
) -> Result<GenuineRotation, Error> {
    let (store, public) = (rings.store(), run.security.verifying_key());
    let deadline = Instant::now() + run.patience;
    loop {
        let found = read(store, &public, id).await?;
        let GenuineRotation { plan, rotation } = &found;
        match rotation.state {
            RotationState::Proposed => {
                return Err(RotationError::NotApproved { id, digest: rotation.digest }.into());
            }
            RotationState::Approved => {
                if plan.expires_at <= Timestamp::now() {
                    return Err(RotationError::Expired(plan.expires_at).into());
                }
                rings.change(run.security, planned(plan), |ring| announce(ring, plan)).await?;
            }
            RotationState::Announced => {
                let ring = rings.existing(at_least(plan, ANNOUNCED)).await?.version;
                let what = format!("to load epoch {} (add its file to their `unseal_keys`)", plan.to.epoch);
                let has_key = |edge: &EdgeReport| plan.is_loaded_by(edge, ring);
                await_edges_of_pool(store, &plan.pool, &what, deadline, progress, has_key).await?;
                rings.change(run.security, at_least(plan, ANNOUNCED), |ring| activate(ring, plan)).await?;
            }
            RotationState::Active | RotationState::Verified => {
                match plan.reason {
                    RotationReason::Routine => seal_all(rings, plan, run.keys, progress).await?,
                    RotationReason::Compromised => replace_all(store, plan, run, deadline, progress).await?,
                }
                return read(store, &public, id).await;
            }
            RotationState::Retired => return Ok(found),
            RotationState::Aborted => return Err(RotationError::Aborted(id).into()),
        }
    }
}

/// Seals until nothing lacks the new key: certificates that were ordered before may still come sealed to the old one.
async fn seal_all(
    rings: &RingClient<'_>,
    plan: &RotationPlan,
    keys: &UnsealKeys,
    progress: &dyn Progress,
) -> Result<(), Error> {
    for _ in 0..MAX_ROUNDS {
        let Rewrapped { looked_at, changed, failed } = rewrap(rings, plan, keys, false, progress).await?;
        if let Some((site, reason)) = failed.first() {
            let (site, reason, epoch) = (site.clone(), reason.clone(), plan.to.epoch);
            return Err(RotationError::NotSealed { failed: failed.len(), looked_at, epoch, site, reason }.into());
        }
        if looked_at == 0 {
            return Ok(());
        }
        if changed == 0 {
            sleep(POLL).await;
        }
    }
    Err(RotationError::Endless(plan.to.epoch).into())
}

/// Has every certificate issued again whose key the old unseal keys open. certman revokes the old ones.
async fn replace_all(
    store: &StoreClient,
    plan: &RotationPlan,
    run: &Run<'_>,
    deadline: Instant,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let certman = run.certman.ok_or(RotationError::NoCertman)?;
    let total = store.inventory().await?.bundles;
    progress.begin("having certificates issued again", total);
    loop {
        let mut left = 0;
        let mut pages = SealedPages::new(store, sealed_keys_of(plan, Some(plan.to.epoch)));
        while let Some(page) = pages.next().await? {
            for entry in page {
                left += 1;
                match certman.replace(&entry.site, entry.version).await {
                    Ok(_) => {}
                    // Departed: certman has no use for it any more, and its bundle goes with it.
                    Err(ClientError::Refused(problem)) if problem.kind == ProblemKind::NotFound => left -= 1,
                    Err(error) => {
                        let (site, source) = (entry.site, Box::new(error));
                        return Err(RotationError::NotReplaced { site, source }.into());
                    }
                }
            }
        }
        if left == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(RotationError::CertificatesLeft(left).into());
        }
        progress.waiting(&format!("certman to issue {left} certificates again"));
        sleep(POLL).await;
    }
}

/// From one question to the next while waiting.
const POLL: Duration = Duration::from_secs(1);

/// How often what came meanwhile is looked for.
const MAX_ROUNDS: usize = 100;
