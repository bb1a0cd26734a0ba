//! All operations, family by family.

use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::{audit, backup, bundles, challenges, documents, edges, feed, rotations, service::Service};

/// All operations, with their description.
pub(crate) fn routes(description: OpenApi) -> OpenApiRouter<Service> {
    OpenApiRouter::with_openapi(description)
        .merge(bundles::operations())
        .merge(documents::operations())
        .merge(challenges::operations())
        .merge(feed::operations())
        .merge(audit::operations())
        .merge(rotations::operations())
        .merge(edges::operations())
        .merge(backup::operations())
}
