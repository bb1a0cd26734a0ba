//! The end of a rotation: the old keys go.

use std::time::Duration;

use certseal_client::Progress;
use certseal_seal::SigningKey;
use certseal_wire::{EdgeReport, KeyRing, KeyState, Retirement, RotationId, RotationState};
use tokio::time::Instant;

use super::{
    edges::await_edges_of_pool,
    genuine::{GenuineRotation, read},
    ring_steps::{ACTIVATED, at_least, set_state},
};
use crate::{
    error::{Error, RotationError},
    ring_client::RingClient,
};

/// Removes the stanzas of the old keys from every bundle, and retires the keys in the ring.
///
/// # Errors
/// When the rotation is not verified, or a bundle came meanwhile that only the old keys open. It can be run again.
pub async fn retire(
    rings: &RingClient<'_>,
    id: RotationId,
    security: &SigningKey,
    patience: Duration,
    progress: &dyn Progress,
) -> Result<GenuineRotation, Error> {
    let (store, public) = (rings.store(), security.verifying_key());
    let GenuineRotation { plan, rotation } = read(store, &public, id).await?;
    match rotation.state {
        RotationState::Verified => {}
        RotationState::Retired => return read(store, &public, id).await,
        state => return Err(RotationError::NotVerified { id, state }.into()),
    }
    let what = format!("to read what was sealed to epoch {}, to have its key, and to refuse nothing", plan.to.epoch);
    let deadline = Instant::now() + patience;
    let is_done = |edge: &EdgeReport| plan.is_done_with_old_keys(edge, rotation.verified_at);
    await_edges_of_pool(store, &plan.pool, &what, deadline, progress, is_done).await?;
    progress.begin("removing old stanzas", store.inventory().await?.bundles);
    let mut after = None;
    loop {
        let outcome = store.retire_stanzas(id, &Retirement { after: after.clone() }).await?;
        progress.advance(outcome.changed + outcome.unchanged);
        match outcome.next {
            Some(next) if after.as_ref() < Some(&next) => after = Some(next),
            Some(next) => return Err(RotationError::GoesBack(next).into()),
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
    read(store, &public, id).await
}
