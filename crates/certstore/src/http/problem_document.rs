//! Problem documents in the description of the interface.

use std::collections::BTreeMap;

use certseal_wire::Problem;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder},
};

/// The answer that every operation may give instead: an RFC 9457 problem document.
pub(crate) struct ProblemDocument;

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
