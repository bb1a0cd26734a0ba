//! Sites on disk. A site's record expires when it is due: the store's list of what has expired is the agenda.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use certseal_seal::{RingMark, sha256};
use certseal_store::{Expect, SledOptions, SledStore, Storage, StoreError, Table, Transaction, Write};
use certseal_wire::{AuditMark, DnsName, KeyRing, Signed};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::site::Site;

/// The durable state of certman.
#[derive(Clone)]
pub(crate) struct Journal(Arc<dyn Storage>);

/// A site as it was read: writing it back succeeds only if nobody else has meanwhile.
pub(crate) struct Entry {
    pub(crate) site: Site,
    revision: u64,
}

impl Journal {
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(SledStore::open(dir, SledOptions::default())?)))
    }

    pub(crate) fn healthy(&self) -> Result<(), StoreError> {
        self.0.healthy()
    }

    pub(crate) fn read(&self, name: &DnsName) -> anyhow::Result<Option<Entry>> {
        let Some(record) = self.0.get(SITES, name.as_str().as_bytes())? else { return Ok(None) };
        let site = parse(&record.value)?;
        Ok(Some(Entry { site, revision: record.version }))
    }

    /// Sites after the name `after`, in the order of their names.
    pub(crate) fn list(&self, after: Option<&DnsName>, limit: usize) -> anyhow::Result<Vec<Site>> {
        let records = self.0.scan(SITES, after.map(|name| name.as_str().as_bytes()), limit)?;
        records.iter().map(|(_, record)| parse(&record.value)).collect()
    }

    /// Has everything that certstore should have looked at again, after it came back from a backup. Answers how many sites
    /// that are.
    pub(crate) fn doubt_all(&self) -> anyhow::Result<u64> {
        let (mut after, mut count) = (None::<Vec<u8>>, 0);
        loop {
            let records = self.0.scan(SITES, after.as_deref(), DOUBTED_AT_ONCE)?;
            let Some((last, _)) = records.last() else { return Ok(count) };
            after = Some(last.clone());
            // One record that cannot be read must not hold up the others.
            let read = |(key, record): &(Vec<u8>, certseal_store::Record)| {
                let logged = parse(&record.value)
                    .inspect_err(|error| tracing::error!(site = %key.escape_ascii(), %error, "unreadable site"));
                logged.ok().map(|site| Entry { site, revision: record.version })
            };
            let entries: Vec<Entry> = records.iter().filter_map(read).collect();
            count += entries.len() as u64;
            let doubted = |entry: &Entry| put(&entry.site.clone().unconfirmed(), Some(entry));
            match self.0.commit(entries.iter().map(doubted).collect::<Result<Vec<_>, _>>()?.into()) {
                Ok(_) => {}
                // Somebody changed one of them, or all together are too large.
                Err(StoreError::Conflict { .. } | StoreError::TooLarge { .. }) => {
                    entries.iter().try_for_each(|entry| self.doubt(&entry.site.site))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn doubt(&self, name: &DnsName) -> anyhow::Result<()> {
        // Somebody who changes it at the same time comes to an end.
        while let Some(entry) = self.read(name)? {
            let doubted = entry.site.clone().unconfirmed();
            if self.write(Some(&entry), &doubted)? {
                break;
            }
        }
        Ok(())
    }

    /// The names of sites that are due at `now`, longest first.
    pub(crate) fn due(&self, now: Timestamp, limit: usize) -> anyhow::Result<Vec<DnsName>> {
        let records = self.0.expired(SITES, seconds(now), limit)?;
        // One record that cannot be read must not hold up the others.
        let read = |(key, record): &(Vec<u8>, certseal_store::Record)| {
            let site = parse(&record.value);
            let logged =
                site.inspect_err(|error| tracing::error!(site = %key.escape_ascii(), %error, "unreadable site"));
            logged.ok().map(|site| site.site)
        };
        Ok(records.iter().filter_map(read).collect())
    }

    /// Which site a name leads to.
    pub(crate) fn holder(&self, name: &DnsName) -> anyhow::Result<Option<DnsName>> {
        let Some(record) = self.0.get(NAMES, name.as_str().as_bytes())? else { return Ok(None) };
        Ok(Some(std::str::from_utf8(&record.value)?.parse()?))
    }

    /// Writes a site in place of `before`, with the names that lead to it. False when somebody else came first.
    pub(crate) fn write(&self, before: Option<&Entry>, site: &Site) -> anyhow::Result<bool> {
        let key = site.site.as_str().as_bytes();
        let held: Vec<_> =
            before.filter(|entry| !entry.site.departed).map(|entry| &entry.site.names).into_iter().collect();
        let holds = |name: &DnsName| held.iter().any(|names| names.iter().any(|held| held == name));
        let keeps = |name: &DnsName| !site.departed && site.names.iter().any(|kept| kept == name);
        let mut transaction = Transaction::from(put(site, before)?);
        for name in site.names.iter().filter(|name| keeps(name) && !holds(name)) {
            transaction = transaction.with(Write::put(NAMES, name.as_str(), 1, key).expect(Expect::Absent));
        }
        for name in held.iter().flat_map(|names| names.iter()).filter(|name| !keeps(name)) {
            transaction = transaction.with(Write::delete(NAMES, name.as_str()));
        }
        match self.0.commit(transaction) {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The newest key ring that was ever accepted.
    pub(crate) fn ring_seen(&self) -> anyhow::Result<RingMark> {
        let Some(record) = self.0.get(META, RING)? else { return Ok(RingMark::default()) };
        let signed: Signed = serde_json::from_slice(&record.value).context("the journal's key ring")?;
        Ok(RingMark { version: record.version, digest: Some(sha256(&signed.payload.0)) })
    }

    /// What was seen last of certstore's audit log.
    pub(crate) fn audit_seen(&self) -> anyhow::Result<Option<AuditSeen>> {
        let record = self.0.get(META, AUDIT)?;
        Ok(record.map(|record| serde_json::from_slice(&record.value)).transpose()?)
    }

    /// Remembers what was seen of certstore's audit log: it must never be less again.
    pub(crate) fn see_audit(&self, seen: &AuditSeen) -> anyhow::Result<()> {
        self.0.commit(Write::put(META, AUDIT, seen.head.number, serde_json::to_vec(seen)?).into())?;
        Ok(())
    }

    /// Remembers an accepted key ring, so that an older one is never accepted again.
    pub(crate) fn see_ring(&self, ring: &KeyRing, signed: &Signed) -> anyhow::Result<()> {
        if self.ring_seen()?.version < ring.version {
            self.0.commit(Write::put(META, RING, ring.version, serde_json::to_vec(signed)?).into())?;
        }
        Ok(())
    }
}

/// How far certstore's audit log was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditSeen {
    /// The epoch of the feed then.
    pub(crate) epoch: [u8; 16],
    pub(crate) head: AuditMark,
}

/// The write of a site in place of `before`.
fn put(site: &Site, before: Option<&Entry>) -> anyhow::Result<Write> {
    let (expect, revision) = match before {
        Some(entry) => (Expect::Version(entry.revision), entry.revision + 1),
        None => (Expect::Absent, 1),
    };
    let put = Write::put(SITES, site.site.as_str(), revision, serde_json::to_vec(site)?).expect(expect);
    Ok(match site.due() {
        Some(due) => put.expires_at(seconds(due)),
        None => put,
    })
}

fn parse(value: &[u8]) -> anyhow::Result<Site> {
    let site: Site = serde_json::from_slice(value).context("the journal holds a site that this version cannot read")?;
    if site.route_version == 0 {
        bail!("the journal holds a site without a route");
    }
    Ok(site)
}

/// Whole seconds since 1970, rounded down: nothing is done late because of the rounding.
fn seconds(instant: Timestamp) -> u64 {
    instant.as_second().try_into().unwrap_or(0)
}

/// Sites in one transaction.
const DOUBTED_AT_ONCE: usize = 200;

const SITES: Table = Table::new("sites");
const NAMES: Table = Table::new("names");
const META: Table = Table::new("meta");
const AUDIT: &[u8] = b"audit";
const RING: &[u8] = b"ring";

#[cfg(test)]
mod tests {
    use certseal_wire::{NameSet, SiteRequest};

    use super::*;

    #[test]
    fn every_site_is_doubted_whatever_else_is_in_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let count = 2 * DOUBTED_AT_ONCE as u64 + 1;
        for n in 0..count {
            let name: DnsName = format!("site-{n}.example").parse().unwrap();
            let request = SiteRequest {
                names: NameSet::try_from(vec![name.clone()]).unwrap(),
                upstream: "http://127.0.0.1:1".parse().unwrap(),
                pools: vec!["eu".parse().unwrap()],
            };
            let site = Site { route_stored: true, order: None, ..Site::new(name, request) };
            assert!(journal.write(None, &site).unwrap());
        }
        journal.0.commit(Write::put(SITES, "unreadable", 1, "{}").into()).unwrap();
        let due = || journal.due(Timestamp::now(), usize::MAX).unwrap().len() as u64;
        assert_eq!(due(), 0);
        assert_eq!(journal.doubt_all().unwrap(), count);
        assert_eq!(due(), count);
    }
}
