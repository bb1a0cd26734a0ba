//! Whether a site is there.

use certseal_service::problem::Refusal;

use crate::{
    records::{Presence, ROUTES},
    vault::Vault,
};

/// Whether the site is there, by its newest route; one without a route, or with a damaged one, has not left.
pub(crate) fn of_site(vault: &Vault, site: &str) -> Result<Presence, Refusal> {
    let (route, _) = vault.seen(ROUTES, site.as_bytes())?;
    Ok(route.as_ref().map_or(Presence::Present, Presence::by_route))
}
