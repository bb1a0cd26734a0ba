//! The router of certstore's interface.

use axum::{Extension, Router, extract::DefaultBodyLimit, middleware};
use certseal_seal::Bundle;
use certseal_service::{
    Shutdown,
    admission::within_budget,
    problem::{method_not_allowed, not_found},
};

use super::{accounting::account, openapi::described, service::Service};

/// The router of certstore's interface.
pub(crate) fn router(service: Service, shutdown: Shutdown) -> Router {
    described()
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(Bundle::MAX))
        .layer(middleware::from_fn_with_state(service.bodies.clone(), within_budget))
        .layer(middleware::from_fn_with_state(service.clone(), account))
        .layer(Extension(shutdown))
        .with_state(service)
}
