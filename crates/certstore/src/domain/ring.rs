//! The key ring, which lists the issuers whose signatures count and the keys that bundles may be sealed to.

use certseal_service::problem::Refusal;
use certseal_store::Transaction;
use certseal_wire::{Kind, PutOutcome};

use super::{put, rotation};
use crate::{
    actor::Actor,
    documents::Checked,
    records::{LATE, Presence},
    vault::Vault,
};

/// Stores the ring; from then on its issuers count. A change of unseal keys needs a rotation that two people agreed on; that
/// rotation moves on in the same transaction.
pub(crate) fn put(vault: &Vault, actor: &Actor, bytes: Vec<u8>) -> Result<PutOutcome, Refusal> {
    let (checked, ring) = Checked::ring(bytes, vault.security())?;
    let trusted = vault.refresh()?;
    let (version, mut changed) = (checked.version, false);
    // Read before any bundle is looked at: one that comes meanwhile, sealed to a key on its way out, moves the mark.
    let late = vault.mark_guard(LATE)?;
    if let Some(write) = put::prepare(vault, &checked, &trusted.ring, Presence::Present)? {
        let moved = rotation::moved_by_ring(vault, actor, &trusted.ring, &ring)?;
        let writes = [trusted.guard(), late].into_iter().chain(moved).chain([write]).collect();
        let transaction = Transaction { writes, audit: put::note_of(actor, &checked).bytes()? };
        let position = vault.commit_unaudited(transaction)?;
        vault.trust_after(&trusted, ring);
        vault.news().announce(position);
        changed = true;
    }
    vault.metrics.written(Kind::Ring, changed);
    Ok(PutOutcome { version, changed })
}
