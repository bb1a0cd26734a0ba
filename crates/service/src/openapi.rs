//! The common parts of the daemons' descriptions in OpenAPI 3.1.

use std::collections::BTreeMap;

use certseal_wire::Problem;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
        security::{SecurityRequirement, SecurityScheme},
    },
};

/// The answer that every operation may give instead: an RFC 9457 problem document. It refers to the schema of [`Problem`],
/// which the description has among its components.
#[derive(Debug)]
pub struct ProblemDocument;

impl IntoResponses for ProblemDocument {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
        let response = ResponseBuilder::new()
            .description("Refused: what was expected, what came, and what to do")
            .content("application/problem+json", problem)
            .build();
        BTreeMap::from([("default".to_owned(), response.into())])
    }
}

/// A description whose every operation needs a client certificate.
pub fn with_mutual_tls(mut document: OpenApi) -> OpenApi {
    let mutual_tls = SecurityScheme::MutualTls { description: None, deprecated: None, extensions: None };
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("mutualTLS", mutual_tls);
    document.security = Some(vec![SecurityRequirement::new("mutualTLS", Vec::<String>::new())]);
    document
}
