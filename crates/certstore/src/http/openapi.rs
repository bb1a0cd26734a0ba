//! The description of the HTTP interface in OpenAPI 3.1, made from the handlers and the types that they speak.

use axum::{Json, routing::get};
use certseal_service::openapi::with_mutual_tls;
use certseal_wire::Problem;
use utoipa::OpenApi;

use super::{operations::routes, service::Service};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "certstore",
        description = "Keeps sealed TLS keys, signed documents and their feed, and can open none of it. Callers show a \
            certificate of the platform's private CA; its SPIFFE ID says who they are."
    ),
    components(schemas(Problem, certseal_wire::AuditRecord, certseal_wire::RotationId))
)]
struct Description;

/// The routes, with one more that hands out their description.
pub(crate) fn described() -> axum::Router<Service> {
    let (router, document) = routes(Description::openapi()).split_for_parts();
    let document = with_mutual_tls(document);
    router.route("/v1/openapi.json", get(async move || Json(document)))
}

/// The description as JSON.
///
/// # Panics
/// Never: a description has no maps with other than text keys.
pub fn openapi() -> String {
    let (_, document) = routes(Description::openapi()).split_for_parts();
    let text = with_mutual_tls(document).to_pretty_json();
    text.expect("a description serializes") + "\n"
}

#[cfg(test)]
mod tests {
    /// `CERTSEAL_WRITE_OPENAPI=1` writes the file anew.
    #[test]
    fn the_committed_description_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let described = super::openapi();
        if std::env::var_os("CERTSEAL_WRITE_OPENAPI").is_some() {
            std::fs::write(path, &described).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(described == committed, "docs/openapi.json is old: run this test with CERTSEAL_WRITE_OPENAPI=1");
    }
}
