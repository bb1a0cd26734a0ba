//! The decisions of people about a rotation: approval, and giving it up.

use certseal_client::StoreClient;
use certseal_seal::{SigningKey, VerifyingKey};
use certseal_wire::{Approval, Digest, KeyRing, KeyState, RotationId, RotationState};

use super::{
    genuine::{GenuineRotation, read},
    ring_steps::{ANNOUNCED, at_least, set_state},
};
use crate::{
    error::{Error, RotationError},
    ring_client::RingClient,
};

/// Approves a rotation as the caller of `store`, if its plan has the digest that the caller looked at.
///
/// # Errors
/// When it has another one, or certstore refuses.
pub async fn approve(
    store: &StoreClient,
    security: &VerifyingKey,
    id: RotationId,
    digest: Digest,
) -> Result<GenuineRotation, Error> {
    let found = read(store, security, id).await?;
    if found.rotation.digest != digest {
        return Err(RotationError::OtherPlan { id, expected: digest, found: found.rotation.digest }.into());
    }
    Ok(GenuineRotation::verify(store.approve_rotation(id, &Approval { plan: digest }).await?, security)?)
}

/// Gives a rotation up before its key is active.
///
/// # Errors
/// When the key is active already: then it can only be finished.
pub async fn abort(rings: &RingClient<'_>, id: RotationId, security: &SigningKey) -> Result<GenuineRotation, Error> {
    let (store, public) = (rings.store(), security.verifying_key());
    let GenuineRotation { plan, rotation } = read(store, &public, id).await?;
    match rotation.state {
        RotationState::Announced => {
            let given_up =
                |ring: &mut KeyRing| set_state(ring, &plan, plan.to.epoch, &[KeyState::Pending], KeyState::Retired);
            rings.change(security, at_least(&plan, ANNOUNCED), given_up).await?;
        }
        _ => drop(store.abort_rotation(id).await?),
    }
    read(store, &public, id).await
}
