//! The layer around all operations: rates, notes of refusals, and counters.

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use certseal_service::problem::Refusal;
use certseal_wire::{AuditAction, ProblemKind, Role};

use super::service::Service;
use crate::{actor::Actor, audit_note::AuditNote, metrics::RoleLabel};

/// Holds callers to their rate, notes refusals, and counts every answer.
pub(crate) async fn account(State(service): State<Service>, actor: Actor, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let role = match actor.role {
        Role::Edge(_) => RoleLabel::Edge,
        Role::Issuer => RoleLabel::Issuer,
        Role::Admin => RoleLabel::Admin,
        Role::Platform => RoleLabel::Platform,
        Role::Service => RoleLabel::Service,
    };
    let admitted = if service.vault.is_restoring() && !path.starts_with("/v1/restore") {
        Err(Refusal::new(ProblemKind::Unavailable, "a backup is being restored: come back when that is done"))
    } else {
        service.rates.admit(&actor)
    };
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    if is_noted(&method, response.status()) {
        let detail = format!("{method} {path}: {}", response.status());
        let note = AuditNote::new(&actor, AuditAction::Other).detail(detail);
        if let Err(refusal) = service.note_refusal(&actor, note).await {
            response = refusal.into_response();
        }
    }
    service.vault.metrics.answered(role, response.status().as_u16());
    response
}

/// Whether the audit log says it: refused changes, and requests that a caller has no right to. Requests that are too many
/// are left out, or the log would grow with them.
fn is_noted(method: &Method, status: StatusCode) -> bool {
    match status {
        StatusCode::FORBIDDEN => true,
        StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => *method != Method::GET,
        _ => false,
    }
}
