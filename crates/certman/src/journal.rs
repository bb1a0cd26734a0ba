//! Sites on disk. A site's record expires when it is due: the store's list of what has expired is the agenda.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
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

    /// Has everything that certstore should have looked at again, after it came back from a backup.
    pub(crate) fn doubt_all(&self) -> anyhow::Result<u64> {
        let (mut after, mut count) = (None, 0);
        loop {
            let sites = self.list(after.as_ref(), DOUBTED_AT_ONCE)?;
            for name in sites.iter().map(|site| &site.site) {
                // Somebody who changes it at the same time comes to an end.
                while let Some(entry) = self.read(name)? {
                    let doubted = entry.site.clone().unconfirmed();
                    if self.write(Some(&entry), &doubted)? {
                        count += 1;
                        break;
                    }
                }
            }
            let Some(last) = sites.last() else { return Ok(count) };
            after = Some(last.site.clone());
        }
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
        let (expect, revision) = match before {
            Some(entry) => (Expect::Version(entry.revision), entry.revision + 1),
            None => (Expect::Absent, 1),
        };
        let mut put = Write::put(SITES, key, revision, serde_json::to_vec(site)?).expect(expect);
        if let Some(due) = site.due() {
            put = put.expires_at(seconds(due));
        }
        let held: Vec<_> =
            before.filter(|entry| !entry.site.departed).map(|entry| &entry.site.names).into_iter().collect();
        let holds = |name: &DnsName| held.iter().any(|names| names.iter().any(|held| held == name));
        let keeps = |name: &DnsName| !site.departed && site.names.iter().any(|kept| kept == name);
        let mut transaction = Transaction::from(put);
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

    /// The newest version of the key ring that was ever accepted.
    pub(crate) fn ring_seen(&self) -> anyhow::Result<u64> {
        Ok(self.0.get(META, RING)?.map_or(0, |record| record.version))
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
        if self.ring_seen()? < ring.version {
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

/// Sites that are read at one time.
const DOUBTED_AT_ONCE: usize = 500;

const SITES: Table = Table::new("sites");
const NAMES: Table = Table::new("names");
const META: Table = Table::new("meta");
const AUDIT: &[u8] = b"audit";
const RING: &[u8] = b"ring";
