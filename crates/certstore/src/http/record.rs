//! One stored record, as an answer.

use axum::response::Response;
use certseal_service::problem::Refusal;
use certseal_wire::{AuditAction, Kind, ProblemKind};

use super::{answer::document, caller::readers_only, service::Service};
use crate::{actor::Actor, audit_note::AuditNote, visibility::may_read};

/// One document, if this caller may see it. To others it is not there.
pub(crate) async fn record(service: &Service, actor: &Actor, kind: Kind, name: String) -> Result<Response, Refusal> {
    Ok(document(record_bytes(service, actor, kind, name).await?))
}

/// The bytes of one record, if this caller may see it.
pub(crate) async fn record_bytes(
    service: &Service,
    actor: &Actor,
    kind: Kind,
    name: String,
) -> Result<Vec<u8>, Refusal> {
    readers_only(actor)?;
    let missing = format!("there is no {kind} {name} that {actor} may see");
    let stored = service.lookups.get(kind, name.clone()).await?.filter(|stored| !stored.is_tombstone());
    match stored {
        Some(stored) if may_read(&actor.role, kind, &stored.pools) => return Ok(stored.bytes),
        // The caller is not told that it is there; the log says who asked.
        Some(_) => {
            let note = AuditNote::new(actor, AuditAction::Other).target(&name);
            service.note_refusal(actor, note.detail(format!("the {kind} of another pool"))).await?;
        }
        None => {}
    }
    Err(Refusal::new(ProblemKind::NotFound, missing))
}
