//! A question for a certificate that nobody has asked for yet.

use serde::{Deserialize, Serialize};

/// The answer to an edge that met a name without a site: `POST /v1/on-demand/NAME` at certman.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OnDemandAnswer {
    /// What became of the question.
    pub outcome: OnDemandOutcome,
}

/// What became of a question for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnDemandOutcome {
    /// A site has the name already: its route or its certificate is on the way, or is for other pools.
    Known,
    /// There is a site for it from now on, and a certificate when the CA gives one.
    Accepted,
}
