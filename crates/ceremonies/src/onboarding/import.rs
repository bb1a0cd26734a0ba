//! Many sites at once, in calls of a thousand.

use std::{collections::BTreeMap, time::Duration};

use certseal_client::{CertmanClient, Progress};
use certseal_wire::{ChangeKind, DnsName, SiteChange, SiteChanges, Wanted};
use serde::Serialize;

use super::list::NewSite;
use crate::error::Error;

/// What became of an import.
#[derive(Debug, Default, Serialize)]
pub struct Imported {
    /// How many sites are new, were changed, and so on.
    pub counts: BTreeMap<ChangeKind, usize>,
    /// Those that were refused, and why.
    pub refused: BTreeMap<DnsName, String>,
}

/// Adds and changes sites. Each stands for itself: those that are refused hold up no others.
///
/// # Errors
/// When certman does not answer, also when it is asked again, or there is no randomness. What it was given stays with it, and the
/// same import can be made again.
pub async fn import(certman: &CertmanClient, sites: Vec<NewSite>, progress: &dyn Progress) -> Result<Imported, Error> {
    let mut imported = Imported::default();
    progress.begin("importing", sites.len() as u64);
    for sites in sites.chunks(AT_ONCE) {
        let change = |new: &NewSite| SiteChange { site: new.site.clone(), change: Wanted::Put(new.request.clone()) };
        let changes: SiteChanges = sites.iter().map(change).collect();
        // Of this call alone: the same import at another time is another one.
        let key = format!("{:016x}", getrandom::u64().map_err(Error::NoRandomness)?);
        let mut again = 0;
        let report = loop {
            match certman.change_sites(&changes, &key).await {
                Err(error) if error.may_pass() && again < MOST_AGAIN => {
                    again += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                other => break other?,
            }
        };
        for (new, result) in sites.iter().zip(report.results) {
            *imported.counts.entry(result.result).or_default() += 1;
            if result.result == ChangeKind::Refused {
                let why = result.problem.map_or_else(|| "like those before it".to_owned(), |problem| problem.detail);
                imported.refused.insert(new.site.clone(), why);
            }
        }
        progress.advance(sites.len() as u64);
    }
    Ok(imported)
}

/// Sites in one call: so many have their report within a second or so.
const AT_ONCE: usize = 1000;

/// How often a call is made again that had no answer.
const MOST_AGAIN: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);
