//! The HTTP interface for the platform and for operators.

mod accounts;
mod budget;
mod bulk;
mod events;
mod import;
mod names;
mod on_demand;
mod openapi;
mod orders;
mod request;
mod revocation;
mod sites;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, middleware};
use certseal_service::{
    admission::{Bodies, BodyLimits, Rates, within_budget, within_rate},
    problem::{method_not_allowed, not_found},
};

use crate::worker::Worker;
use bulk::MAX_CHANGES;
use openapi::described;

/// The router of certman's interface. Its description is for every role, questions on demand are for edges, and all else needs role
/// platform or admin.
pub(crate) fn router(worker: Arc<Worker>, rates: Rates) -> Router {
    described()
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(64 * 1024))
        .layer(middleware::from_fn_with_state(Bodies::new(BodyLimits::new(MAX_CHANGES)), within_budget))
        .layer(middleware::from_fn_with_state(Arc::new(rates), within_rate))
        .with_state(worker)
}
