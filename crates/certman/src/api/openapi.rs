//! The description of the HTTP interface in OpenAPI 3.1, made from the handlers and the types that they speak.

use std::sync::Arc;

use axum::{Json, Router, routing::get};
use certseal_service::openapi::with_mutual_tls;
use certseal_wire::Problem;
use utoipa::{OpenApi, openapi::OpenApi as Document};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    api::{accounts, budget, bulk, events, import, names, on_demand, orders, revocation, sites},
    worker::Worker,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "certman",
        description = "Takes a platform's sites, has certificates issued for them, and seals each key as it is born. \
            Callers show a certificate of the platform's private CA; its SPIFFE ID says who they are."
    ),
    components(schemas(Problem))
)]
struct Description;

/// The routes, with one more that hands out their description.
pub(crate) fn described() -> Router<Arc<Worker>> {
    let (router, document) = operations();
    router.route("/v1/openapi.json", get(async move || Json(document)))
}

/// All operations, family by family, and their description.
fn operations() -> (Router<Arc<Worker>>, Document) {
    let routes = OpenApiRouter::with_openapi(Description::openapi())
        .merge(sites::operations())
        .merge(bulk::operations())
        .merge(events::operations())
        .merge(orders::operations())
        .merge(names::operations())
        .merge(on_demand::operations())
        .merge(import::operations())
        .merge(revocation::operations())
        .merge(budget::operations())
        .merge(accounts::operations());
    let (router, document) = routes.split_for_parts();
    (router, with_mutual_tls(document))
}

#[cfg(test)]
mod tests {
    /// `CERTSEAL_WRITE_OPENAPI=1` writes the file anew.
    #[test]
    fn the_committed_description_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi-certman.json");
        let (_, document) = super::operations();
        let described = document.to_pretty_json().unwrap() + "\n";
        if std::env::var_os("CERTSEAL_WRITE_OPENAPI").is_some() {
            std::fs::write(path, &described).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            described == committed,
            "docs/openapi-certman.json is old: run this test with CERTSEAL_WRITE_OPENAPI=1"
        );
    }
}
