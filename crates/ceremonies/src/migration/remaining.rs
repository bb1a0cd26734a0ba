//! Which sites are left to migrate.

use std::collections::{BTreeMap, HashMap};

use certseal_client::{CertmanClient, StoreClient};
use certseal_seal::Sealed;
use certseal_wire::{DnsName, SealedQuery, SiteStatus};

use super::pace::Candidate;
use crate::{
    error::{Error, MigrationError},
    sealed_pages::SealedPages,
};

/// Sites whose keys are sealed as before, with what certman says of them.
#[derive(Debug, Clone, Default)]
pub struct Remaining {
    /// Those that are at rest.
    pub candidates: Vec<Candidate>,
    /// Those with an order under way, and those that certman does not know.
    pub busy: Vec<DnsName>,
    /// All of them by suite.
    pub suites: BTreeMap<&'static str, u64>,
}

/// Looks which sites are remaining.
///
/// # Errors
/// When certstore or certman cannot be reached.
pub async fn remaining(store: &StoreClient, certman: &CertmanClient) -> Result<Remaining, Error> {
    let mut statuses: HashMap<DnsName, SiteStatus> = HashMap::new();
    let mut after = None;
    loop {
        let page = certman.sites(after.as_ref()).await?;
        statuses.extend(page.sites.into_iter().map(|status| (status.site.clone(), status)));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let mut remaining = Remaining::default();
    let mut pages = SealedPages::new(store, SealedQuery { legacy: true, ..SealedQuery::default() });
    while let Some(page) = pages.next().await? {
        for entry in page {
            let sealed = Sealed::parse(&entry.sealed.0)
                .map_err(|source| MigrationError::Sealed { site: entry.site.clone(), source })?;
            *remaining.suites.entry(sealed.suite_name()).or_default() += 1;
            match statuses.remove(&entry.site) {
                Some(SiteStatus { order: None, renew_at: Some(renew_at), not_after: Some(not_after), .. }) => {
                    let (site, version) = (entry.site, entry.version);
                    remaining.candidates.push(Candidate { site, version, renew_at, not_after });
                }
                _ => remaining.busy.push(entry.site),
            }
        }
    }
    remaining.candidates.sort_by(|a, b| (a.not_after, &a.site).cmp(&(b.not_after, &b.site)));
    Ok(remaining)
}
