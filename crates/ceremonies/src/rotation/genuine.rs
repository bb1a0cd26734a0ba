//! Rotations as certstore knows them, with plans that the security team signed.

use certseal_client::StoreClient;
use certseal_seal::{VerifyingKey, VerifyingKeys, sha256};
use certseal_wire::{Rotation, RotationId, RotationPlan};

use crate::error::{Error, RotationError};

/// A rotation and its plan, which the security team signed.
#[derive(Debug, Clone)]
pub struct GenuineRotation {
    /// The work that is to be done.
    pub plan: RotationPlan,
    /// How far it has come.
    pub rotation: Rotation,
}

impl GenuineRotation {
    /// The rotation, if its plan is genuine.
    ///
    /// # Errors
    /// When the security team did not sign the plan, or its digest is another one than certstore says.
    pub fn verify(rotation: Rotation, security: &VerifyingKey) -> Result<Self, RotationError> {
        let plan: RotationPlan =
            VerifyingKeys::from_iter([security.clone()]).verify(&rotation.plan).map_err(RotationError::Signature)?;
        let digest = sha256(&rotation.plan.payload.0);
        if digest != rotation.digest {
            return Err(RotationError::Digest { said: rotation.digest, found: digest });
        }
        Ok(Self { plan, rotation })
    }
}

/// The rotation `id`, if its plan is genuine.
///
/// # Errors
/// When there is none, or its plan does not count.
pub async fn read(store: &StoreClient, security: &VerifyingKey, id: RotationId) -> Result<GenuineRotation, Error> {
    let rotation = store.rotation(id).await?.ok_or(RotationError::Unknown(id))?;
    let found = GenuineRotation::verify(rotation, security)?;
    if found.plan.id != id {
        return Err(RotationError::Swapped(found.plan.id).into());
    }
    Ok(found)
}
