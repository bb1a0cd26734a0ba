//! Rotations of a pool's unseal key, as the security team runs them.
//!
//! ```text
//! plan     a new key; what is to be done, signed                      proposed
//! approve  another admin, for the digest that was looked at           approved
//! run      ring: new key pending; every edge loads it                 announced
//!          ring: new key active, old key retiring                     active
//!          every content key sealed to the new key as well
//! verify   bundles opened with the new key, TLS keys compared         verified
//! retire   old stanzas removed; ring: old key retired                 retired
//! ```
//!
//! Every step asks certstore where the rotation is, so that it can be run again after whatever stopped it.

mod pages;
mod plan;
mod rewrap;
mod verify;

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use certseal_client::{CertmanClient, ClientError, Progress, StoreClient};
use certseal_seal::{RingMark, SigningKey, VerifyingKey, VerifyingKeys, sha256};
use certseal_unseal::UnsealKeys;
use certseal_wire::{
    Approval, Digest, EdgeReport, Epoch, KeyRing, KeyState, PoolName, ProblemKind, Retirement, Rotation, RotationId,
    RotationPlan, RotationReason, RotationState, SealedQuery, UnsealEntry,
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::{failure::Failure, rings::Rings};

pub use pages::SealedPages;
pub use plan::{NewRotation, plan, propose};
pub use rewrap::{Rewrapped, rewrap};
pub(crate) use verify::public_key_digest;
pub use verify::{Verified, verify};

/// A rotation and its plan, which the security team signed.
#[derive(Debug, Clone)]
pub struct Known {
    /// What is to be done.
    pub plan: RotationPlan,
    /// How far it has come.
    pub rotation: Rotation,
}

impl Known {
    /// The rotation, if its plan is genuine.
    ///
    /// # Errors
    /// When the security team did not sign the plan, or its digest is another one than certstore says.
    pub fn genuine(rotation: Rotation, security: &VerifyingKey) -> anyhow::Result<Self> {
        let plan: RotationPlan =
            VerifyingKeys::from_iter([security.clone()]).verify(&rotation.plan).context("the plan does not count")?;
        let digest = sha256(&rotation.plan.payload.0);
        ensure!(
            digest == rotation.digest,
            "certstore says that the plan's digest is {}, but it is {digest}",
            rotation.digest
        );
        Ok(Self { plan, rotation })
    }
}

/// The rotation `id`, if its plan is genuine.
///
/// # Errors
/// When there is none, or its plan does not count.
pub async fn known(store: &StoreClient, security: &VerifyingKey, id: RotationId) -> anyhow::Result<Known> {
    let rotation = store.rotation(id).await?.with_context(|| format!("certstore knows no rotation {id}"))?;
    let known = Known::genuine(rotation, security)?;
    ensure!(known.plan.id == id, "certstore answers with rotation {}: it swapped them", known.plan.id);
    Ok(known)
}

/// Approves a rotation as the caller of `store`, if its plan has the digest that the caller looked at.
///
/// # Errors
/// When it has another one, or certstore refuses.
pub async fn approve(
    store: &StoreClient,
    security: &VerifyingKey,
    id: RotationId,
    digest: Digest,
) -> anyhow::Result<Known> {
    let found = known(store, security, id).await?;
    ensure!(
        found.rotation.digest == digest,
        "expected the plan with digest {digest}, but rotation {id} has {}: look at it with `certctl keys rotate show`",
        found.rotation.digest
    );
    Known::genuine(store.approve_rotation(id, &Approval { plan: digest }).await?, security)
}

/// What running a rotation needs.
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
pub async fn run(rings: &Rings<'_>, id: RotationId, run: &Run<'_>, progress: &dyn Progress) -> anyhow::Result<Known> {
    let (store, public) = (rings.store(), run.security.verifying_key());
    let deadline = Instant::now() + run.patience;
    loop {
        let found = known(store, &public, id).await?;
        let Known { plan, rotation } = &found;
        match rotation.state {
            RotationState::Proposed => bail!(
                "rotation {id} waits for the approval of another admin: certctl keys rotate approve {id} --digest {}",
                rotation.digest
            ),
            RotationState::Approved => {
                ensure!(plan.expires_at > Timestamp::now(), "the plan expired at {}: make a new one", plan.expires_at);
                rings.change(run.security, planned(plan), |ring| announce(ring, plan)).await?;
            }
            RotationState::Announced => {
                let ring = rings.existing(at_least(plan, ANNOUNCED)).await?.version;
                let what = format!("to load epoch {} (add its file to their `unseal_keys`)", plan.to.epoch);
                let has_key = |edge: &EdgeReport| edge.ring >= ring && edge.keys.contains(&plan.to.key_id);
                await_edges(store, &plan.pool, &what, deadline, progress, has_key).await?;
                rings.change(run.security, at_least(plan, ANNOUNCED), |ring| activate(ring, plan)).await?;
            }
            RotationState::Active | RotationState::Verified => {
                match plan.reason {
                    RotationReason::Routine => seal_all(rings, plan, run.keys, progress).await?,
                    RotationReason::Compromised => replace_all(store, plan, run, deadline, progress).await?,
                }
                return known(store, &public, id).await;
            }
            RotationState::Retired => return Ok(found),
            RotationState::Aborted => bail!("rotation {id} was aborted: make a new plan"),
        }
    }
}

/// Removes the stanzas of the old keys from every bundle, and retires the keys in the ring.
///
/// # Errors
/// When the rotation is not verified, or a bundle came meanwhile that only the old keys open. It can be run again.
pub async fn retire(
    rings: &Rings<'_>,
    id: RotationId,
    security: &SigningKey,
    patience: Duration,
    progress: &dyn Progress,
) -> anyhow::Result<Known> {
    let (store, public) = (rings.store(), security.verifying_key());
    let Known { plan, rotation } = known(store, &public, id).await?;
    match rotation.state {
        RotationState::Verified => {}
        RotationState::Retired => return known(store, &public, id).await,
        state => bail!("rotation {id} is {state}: run and verify it first"),
    }
    let what = format!("to read what was sealed to epoch {}, to have its key, and to refuse nothing", plan.to.epoch);
    let deadline = Instant::now() + patience;
    let needs_old_no_more = |edge: &EdgeReport| {
        edge.has_read(rotation.verified_at) && edge.refused == 0 && edge.keys.contains(&plan.to.key_id)
    };
    await_edges(store, &plan.pool, &what, deadline, progress, needs_old_no_more).await?;
    progress.begin("removing old stanzas", store.inventory().await?.bundles);
    let mut after = None;
    loop {
        let outcome = store.retire_stanzas(id, &Retirement { after: after.clone() }).await?;
        progress.advance(outcome.changed + outcome.unchanged);
        match outcome.next {
            Some(next) if after.as_ref() < Some(&next) => after = Some(next),
            Some(next) => bail!("certstore goes back to {next}: removing old stanzas would not end"),
            None => break,
        }
    }
    let retired = |ring: &mut KeyRing| {
        for epoch in &plan.from {
            set_state(ring, &plan, *epoch, &[KeyState::Retiring, KeyState::Retired], KeyState::Retired)?;
        }
        Ok(())
    };
    rings.change(security, at_least(&plan, ACTIVATED), retired).await?;
    known(store, &public, id).await
}

/// Gives a rotation up before its key is active.
///
/// # Errors
/// When the key is active already: then it can only be finished.
pub async fn abort(rings: &Rings<'_>, id: RotationId, security: &SigningKey) -> anyhow::Result<Known> {
    let (store, public) = (rings.store(), security.verifying_key());
    let Known { plan, rotation } = known(store, &public, id).await?;
    match rotation.state {
        RotationState::Announced => {
            let given_up =
                |ring: &mut KeyRing| set_state(ring, &plan, plan.to.epoch, &[KeyState::Pending], KeyState::Retired);
            rings.change(security, at_least(&plan, ANNOUNCED), given_up).await?;
        }
        _ => drop(store.abort_rotation(id).await?),
    }
    known(store, &public, id).await
}

/// The ring that a plan starts from.
fn planned(plan: &RotationPlan) -> RingMark {
    RingMark { version: plan.ring_version, digest: plan.ring_digest }
}

/// A ring in which the rotation has come `steps` rings further: each step is a ring of its own. An older one was signed
/// before, so that what was removed since would be listed again.
fn at_least(plan: &RotationPlan, steps: u64) -> RingMark {
    RingMark::of_version(plan.ring_version.saturating_add(steps))
}

/// Puts the new key into exactly the ring that the plan was made for.
fn announce(ring: &mut KeyRing, plan: &RotationPlan) -> anyhow::Result<()> {
    ensure!(
        ring.version == plan.ring_version,
        "the plan is for key ring {}, and certstore has version {}: make a new plan",
        plan.ring_version,
        ring.version
    );
    ring.keys.push(plan.to.clone());
    Ok(())
}

fn activate(ring: &mut KeyRing, plan: &RotationPlan) -> anyhow::Result<()> {
    for entry in ring.keys.iter_mut().filter(|entry| entry.pool == plan.pool && entry.state == KeyState::Active) {
        entry.state = KeyState::Retiring;
    }
    set_state(ring, plan, plan.to.epoch, &[KeyState::Pending], KeyState::Active)
}

/// Moves a key of the plan's pool on. A ring without it, or with it elsewhere in its life, is not the one that the step
/// before left.
fn set_state(
    ring: &mut KeyRing,
    plan: &RotationPlan,
    epoch: Epoch,
    from: &[KeyState],
    to: KeyState,
) -> anyhow::Result<()> {
    let (pool, version) = (&plan.pool, ring.version);
    let is_it = |entry: &&mut UnsealEntry| {
        entry.pool == *pool
            && entry.epoch == epoch
            && from.contains(&entry.state)
            && (epoch != plan.to.epoch || entry.key_id == plan.to.key_id)
    };
    let entry = ring.keys.iter_mut().find(is_it).with_context(|| {
        format!(
            "key ring {version} does not have epoch {epoch} of pool {pool} as this rotation left it: certstore shows \
             another ring than the one that was signed"
        )
    })?;
    entry.state = to;
    Ok(())
}

/// Waits until every edge of the pool has said that it has what is needed.
async fn await_edges(
    store: &StoreClient,
    pool: &PoolName,
    what: &str,
    deadline: Instant,
    progress: &dyn Progress,
    has_it: impl Fn(&EdgeReport) -> bool,
) -> anyhow::Result<()> {
    loop {
        let edges = store.edges().await?.edges.into_iter().map(|edge| edge.report);
        let missing: Vec<String> =
            edges.filter(|edge| edge.pool == *pool && !has_it(edge)).map(|edge| edge.name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let what = format!("edges {} {what}", missing.join(", "));
        if Instant::now() >= deadline {
            bail!(Failure::TimedOut(format!(
                "waited in vain for {what}; what is gone for good, `certctl edges forget` removes. Then run this again"
            )));
        }
        progress.waiting(&what);
        sleep(POLL).await;
    }
}

/// Seals until nothing lacks the new key: certificates that were ordered before may still come sealed to the old one.
async fn seal_all(
    rings: &Rings<'_>,
    plan: &RotationPlan,
    keys: &UnsealKeys,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    for _ in 0..MAX_ROUNDS {
        let Rewrapped { looked_at, changed, failed } = rewrap(rings, plan, keys, false, progress).await?;
        if let Some((site, reason)) = failed.first() {
            bail!(
                "{} of {looked_at} bundles could not be sealed to epoch {}, among them {site}: {reason}. Have them \
                 issued again with `certctl site renew`, and run this again",
                failed.len(),
                plan.to.epoch
            );
        }
        if looked_at == 0 {
            return Ok(());
        }
        if changed == 0 {
            sleep(POLL).await;
        }
    }
    bail!("bundles keep coming that are not sealed to epoch {}: run this again later", plan.to.epoch)
}

/// Has every certificate issued again whose key the old unseal keys open. certman revokes the old ones.
async fn replace_all(
    store: &StoreClient,
    plan: &RotationPlan,
    run: &Run<'_>,
    deadline: Instant,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let certman = run.certman.context("certman has to issue the certificates again: give --certman")?;
    let total = store.inventory().await?.bundles;
    progress.begin("having certificates issued again", total);
    loop {
        let mut left = 0;
        let mut pages = SealedPages::new(store, of_pool(plan, Some(plan.to.epoch)));
        while let Some(page) = pages.next().await? {
            for entry in page {
                left += 1;
                match certman.replace(&entry.site, entry.version).await {
                    Ok(_) => {}
                    // Departed: certman has no use for it any more, and its bundle goes with it.
                    Err(ClientError::Refused(problem)) if problem.kind == ProblemKind::NotFound => left -= 1,
                    Err(error) => {
                        return Err(error).with_context(|| format!("certman does not replace {}", entry.site));
                    }
                }
            }
        }
        if left == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(Failure::TimedOut(format!(
                "{left} certificates are still to be issued again; certman goes on with them. Run this again later"
            )));
        }
        progress.waiting(&format!("certman to issue {left} certificates again"));
        sleep(POLL).await;
    }
}

/// The sealed keys of a plan's pool; only those without a stanza for `lacking`, if that is given.
fn of_pool(plan: &RotationPlan, lacking: Option<Epoch>) -> SealedQuery {
    SealedQuery { pool: Some(plan.pool.clone()), lacking, ..SealedQuery::default() }
}

/// Shares `items` out among all cores. The answers come in their order.
pub(crate) fn on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.chunks(share).map(|part| scope.spawn(move || work(part))).collect();
        // A panic there is one here.
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    })
}

/// Rings after the plan's: the new key is listed.
const ANNOUNCED: u64 = 1;

/// Rings after the plan's: the new key is active.
const ACTIVATED: u64 = 2;

/// From one question to the next while waiting.
const POLL: Duration = Duration::from_secs(1);

/// How often what came meanwhile is looked for.
const MAX_ROUNDS: usize = 100;
