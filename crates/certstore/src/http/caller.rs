//! The caller's identity, and the roles that an operation lets pass.

use std::net::SocketAddr;

use axum::{extract::FromRequestParts, http::request::Parts};
use certseal_service::{problem::Refusal, server::PeerAddress};
use certseal_wire::{Caller, Role};

use crate::{actor::Actor, refusal::forbidden};

impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Refusal::internal("a request without a caller"))?;
        let from = parts.extensions.get::<PeerAddress>().map(|PeerAddress(address)| SocketAddr::ip(address));
        Ok(Self { caller, from })
    }
}

/// Lets only the issuer pass. An operation with a body names this before the body: nothing is read from callers that may
/// not send one.
pub(crate) struct IssuerOnly(pub(crate) Actor);

impl<S: Send + Sync> FromRequestParts<S> for IssuerOnly {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let actor = Actor::from_request_parts(parts, state).await?;
        match actor.role {
            Role::Issuer => Ok(Self(actor)),
            _ => Err(forbidden(&actor, "issuer")),
        }
    }
}

/// Lets only administrators pass.
pub(crate) struct AdminOnly(pub(crate) Actor);

impl<S: Send + Sync> FromRequestParts<S> for AdminOnly {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let actor = Actor::from_request_parts(parts, state).await?;
        match actor.role {
            Role::Admin => Ok(Self(actor)),
            _ => Err(forbidden(&actor, "admin")),
        }
    }
}

/// Lets admins and the issuer pass, who read the audit log.
pub(crate) struct AuditorOnly(pub(crate) Actor);

impl<S: Send + Sync> FromRequestParts<S> for AuditorOnly {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let actor = Actor::from_request_parts(parts, state).await?;
        match actor.role {
            Role::Admin | Role::Issuer => Ok(Self(actor)),
            _ => Err(forbidden(&actor, "admin or issuer")),
        }
    }
}

/// Lets edges, the issuer and admins pass, who read records and their feed.
pub(crate) struct ReaderOnly(pub(crate) Actor);

impl<S: Send + Sync> FromRequestParts<S> for ReaderOnly {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let actor = Actor::from_request_parts(parts, state).await?;
        readers_only(&actor).map(|()| Self(actor))
    }
}

/// Lets admins and edges pass, who add stanzas; whether it is an edge's own pool shows by the rotation.
pub(crate) struct RewrapperOnly(pub(crate) Actor);

impl<S: Send + Sync> FromRequestParts<S> for RewrapperOnly {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let actor = Actor::from_request_parts(parts, state).await?;
        match actor.role {
            Role::Admin | Role::Edge(_) => Ok(Self(actor)),
            _ => Err(forbidden(&actor, "admin or edge")),
        }
    }
}

/// Refuses callers other than edges, the issuer and admins.
pub(crate) fn readers_only(caller: &Caller) -> Result<(), Refusal> {
    match caller.role {
        Role::Edge(_) | Role::Issuer | Role::Admin => Ok(()),
        Role::Platform | Role::Service => Err(forbidden(caller, "edge, issuer or admin")),
    }
}
