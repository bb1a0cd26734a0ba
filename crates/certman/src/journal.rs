//! Sites on disk, the names that lead to them, and their places in the queue: records that belong together are written
//! in one transaction. Several processes may share a journal.

pub(crate) mod claims;
mod held;

use std::{collections::VecDeque, path::Path, sync::Arc};

use anyhow::{Context, anyhow};
use certseal_issuance::{Site, Stage, Turns, budget::Limit};
use certseal_seal::{RingMark, Sealed, sha256};
use certseal_store::{
    Expect, PostgresOptions, PostgresStore, Record, SledOptions, SledStore, Storage, StoreError, Table, Write,
};
use certseal_wire::{AuditMark, Change, DnsName, KeyRing, KeyType, PoolName, Signed, SignerId};
use jiff::{SignedDuration, Timestamp};
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};

use self::held::{Held, under};
use crate::{
    events, indexes,
    leases::Leases,
    metrics::Trouble,
    queue::{self, Place},
    repeats,
};

/// The durable state of certman.
#[derive(Clone)]
pub(crate) struct Journal {
    storage: Arc<dyn Storage>,
    leases: Arc<Leases>,
    commits: Counter,
    /// What happens to sites is told to somebody.
    tells: bool,
}

/// A site as it was read: writing it back succeeds only if nobody else has meanwhile.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) site: Site,
    revision: u64,
}

impl Entry {
    fn read(record: Record) -> anyhow::Result<Self> {
        Ok(Self { site: parse(&record.value)?, revision: record.version })
    }

    /// Whether nobody wrote the site between the two.
    pub(crate) fn is_as_in(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

/// The writer of a site.
#[derive(Clone, Copy)]
pub(crate) enum Writer {
    /// Somebody's request, which any process takes.
    Request,
    /// The work on it, of the process that holds the site's shard.
    Work,
}

impl Journal {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let storage = Arc::new(SledStore::open(dir, SledOptions::default())?);
        // The engine lets one process have it.
        Self::on(storage, true)
    }

    /// A journal that several processes share.
    pub(crate) fn open_shared(options: PostgresOptions) -> anyhow::Result<Self> {
        Self::on(Arc::new(PostgresStore::open(options)?), false)
    }

    pub(crate) fn on(storage: Arc<dyn Storage>, is_alone: bool) -> anyhow::Result<Self> {
        let leases = Leases::new(storage.clone(), is_alone).map_err(|error| anyhow!("no randomness: {error}"))?;
        let journal = Self { storage, leases: Arc::new(leases), commits: Counter::default(), tells: false };
        if is_alone {
            repeats::forget_begun(&*journal.storage)?;
        }
        journal.index_names()?;
        journal.take_over()?;
        journal.leases.renew(Timestamp::now())?;
        Ok(journal)
    }

    /// The journal, with what happens to sites written down for somebody who wants to hear of it.
    pub(crate) fn telling(self, tells: bool) -> Self {
        Self { tells, ..self }
    }

    pub(crate) fn tells(&self) -> bool {
        self.tells
    }

    /// The shards of this process.
    pub(crate) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// Where it is kept: other records can be written in one transaction with a site.
    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        self.storage.clone()
    }

    /// How many transactions with sites or bookings there were.
    pub(crate) fn commits(&self) -> &Counter {
        &self.commits
    }

    pub(crate) fn healthy(&self) -> Result<(), StoreError> {
        self.storage.healthy()
    }

    pub(crate) fn read(&self, name: &DnsName) -> anyhow::Result<Option<Entry>> {
        self.storage.get(SITES, name.as_str().as_bytes())?.map(Entry::read).transpose()
    }

    /// Sites after the name `after`, in the order of their names.
    pub(crate) fn list(&self, after: Option<&DnsName>, limit: usize) -> anyhow::Result<Vec<Site>> {
        let records = self.storage.scan(SITES, after.map(|name| name.as_str().as_bytes()), limit)?;
        records.iter().map(|(_, record)| parse(&record.value)).collect()
    }

    /// Sites with an order at a stage, by name.
    pub(crate) fn at_stage(&self, stage: Stage, after: Option<&DnsName>, limit: usize) -> anyhow::Result<Vec<Site>> {
        self.all(&indexes::at_stage(&*self.storage, stage, after, limit)?)
    }

    /// Sites whose certificates are near their end, those that are nearest first.
    pub(crate) fn expiring(&self, now: Timestamp, limit: usize) -> anyhow::Result<Vec<Site>> {
        self.all(&indexes::expiring(&*self.storage, now, None, limit)?.0)
    }

    /// How many sites somebody should look at.
    pub(crate) fn trouble(&self, now: Timestamp) -> anyhow::Result<Trouble> {
        Ok(Trouble {
            expiring: indexes::expiring(&*self.storage, now, None, MOST_COUNTED)?.0.len(),
            dead_letters: indexes::at_stage(&*self.storage, Stage::DeadLetter, None, MOST_COUNTED)?.len(),
            untold: events::count_waiting(&*self.storage)?,
            put_aside: events::count_put_aside(&*self.storage)?,
        })
    }

    /// Tells of certificates that came near their end, each once: of as many sites after the place `after` as are looked at at one
    /// time. Answers the place from which to go on; none at the end of all.
    pub(crate) fn tell_expiring(&self, now: Timestamp, after: Option<Vec<u8>>) -> anyhow::Result<Option<Vec<u8>>> {
        self.tell_expiring_of(now, after, MOST_COUNTED)
    }

    fn tell_expiring_of(
        &self,
        now: Timestamp,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        if !self.tells {
            return Ok(None);
        }
        let (names, next) = indexes::expiring(&*self.storage, now, after.as_deref(), limit)?;
        let mut news = self.all(&names)?;
        news.retain(|site| site.clone().expiry_told(now) != *site);
        for site in news.iter().take(TOLD_AT_ONCE) {
            self.change(&site.site, |site| site.expiry_told(now))?;
        }
        // Those that are left are told from the same place on.
        Ok(if news.len() > TOLD_AT_ONCE { after } else { next })
    }

    fn all(&self, names: &[DnsName]) -> anyhow::Result<Vec<Site>> {
        let keys: Vec<_> = names.iter().map(|name| (SITES, name.as_str().as_bytes())).collect();
        self.storage.get_all(&keys)?.iter().flatten().map(|record| parse(&record.value)).collect()
    }

    /// Changes every site: has what certstore should have looked at again, say. Answers how many sites that are.
    pub(crate) fn change_all(&self, change: impl Fn(Site) -> Site) -> anyhow::Result<u64> {
        let (mut after, mut count) = (None::<Vec<u8>>, 0);
        loop {
            let records = self.storage.scan(SITES, after.as_deref(), DOUBTED_AT_ONCE)?;
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
            let changed = |entry: &Entry| put(&written(change(entry.site.clone())), Some(entry));
            let writes = entries.iter().map(changed).collect::<Result<Vec<_>, _>>()?;
            match self.storage.commit(writes.concat().into()) {
                Ok(_) => {}
                // Somebody changed one of them, or all together are too large.
                Err(StoreError::Conflict { .. } | StoreError::TooLarge { .. }) => {
                    entries.iter().try_for_each(|entry| self.change(&entry.site.site, &change))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn change(&self, name: &DnsName, change: impl Fn(Site) -> Site) -> anyhow::Result<()> {
        // Somebody who changes it at the same time comes to an end.
        while let Some(entry) = self.read(name)? {
            let changed = change(entry.site.clone());
            if self.write(Some(&entry), &changed, Writer::Request, &[])?.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// The places of sites that are due at `now`, that this process holds and that `is_wanted` takes.
    pub(crate) fn due(
        &self,
        now: Timestamp,
        limit: usize,
        turns: &mut Turns,
        is_wanted: impl Fn(&DnsName) -> bool,
    ) -> anyhow::Result<Vec<Place>> {
        queue::due(&*self.storage, now, limit, turns, |name| self.leases.has(name) && is_wanted(name))
    }

    /// Takes a place out of the queue that is not the site's own: an earlier release gave it another one.
    pub(crate) fn remove_stray(&self, place: Place, entry: &Entry) -> anyhow::Result<()> {
        let Some(delete) = place.remove_unless_of(&entry.site) else { return Ok(()) };
        // Not if somebody wrote the site meanwhile: the place may be its own by now. Then it is looked at again.
        let as_read = Write::require(SITES, entry.site.site.as_str(), Expect::Version(entry.revision));
        self.committed(vec![delete, as_read]).map(drop)
    }

    /// Writes the sites of an earlier release's journal in this format, once, and gives each its place in the queue and in the
    /// indexes.
    fn take_over(&self) -> anyhow::Result<()> {
        if self.storage.get(META, QUEUED)?.is_some() {
            return Ok(());
        }
        let mut after = None::<Vec<u8>>;
        loop {
            let records = self.storage.scan(SITES, after.as_deref(), DOUBTED_AT_ONCE)?;
            let Some((last, _)) = records.last() else { break };
            after = Some(last.clone());
            for (key, record) in records {
                let site = match parse(&record.value) {
                    Ok(site) => site,
                    Err(error) => {
                        tracing::error!(site = %key.escape_ascii(), %error, "unreadable site");
                        continue;
                    }
                };
                let entry = Entry { site: site.clone(), revision: record.version };
                let mut writes = put(&written(site.clone()), Some(&entry))?;
                // As if it were new: it has no such rows yet.
                writes.extend(indexes::moved(None, &site));
                // Another process that begins at the same time does the same.
                self.committed(writes)?;
            }
        }
        self.storage.commit(Write::put(META, QUEUED, 1, Vec::new()).into())?;
        Ok(())
    }

    /// Files names by what they lie under, once, for a journal of an earlier release.
    fn index_names(&self) -> Result<(), StoreError> {
        if self.storage.get(META, INDEXED)?.is_some() {
            return Ok(());
        }
        let mut after = None::<Vec<u8>>;
        loop {
            let page = self.storage.scan(NAMES, after.as_deref(), NAMES_AT_ONCE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let file = |(name, record): &(Vec<u8>, certseal_store::Record)| {
                let parse = |octets: &[u8]| std::str::from_utf8(octets).ok()?.parse::<DnsName>().ok();
                let (name, site) = (parse(name)?, parse(&record.value)?);
                Some(Write::put(UNDER, under(&name)?, 1, Held { site, owner: None }.to_bytes()))
            };
            self.storage.commit(page.iter().filter_map(file).collect::<Vec<_>>().into())?;
        }
        self.storage.commit(Write::put(META, INDEXED, 1, Vec::new()).into()).map(drop)
    }

    /// Writes a site in place of `before`, with the names that lead to it, its place in the queue and what certstore took.
    /// None when somebody else came first, or the site is another process's by now.
    pub(crate) fn write(
        &self,
        before: Option<&Entry>,
        site: &Site,
        writer: Writer,
        stored: &[StoredChange],
    ) -> anyhow::Result<Option<Entry>> {
        let Some((writes, entry)) = self.writes(before, site, writer, stored)? else { return Ok(None) };
        Ok(self.committed(writes)?.then_some(entry))
    }

    /// Writes what became of a site by work, and answers it as it is now: merged with what somebody else wrote meanwhile.
    pub(crate) fn write_work(&self, mut before: Entry, site: &Site, stored: &[StoredChange]) -> anyhow::Result<Entry> {
        let mut next = site.clone();
        for _ in 0..MAX_RACES {
            if let Some(entry) = self.write(Some(&before), &next, Writer::Work, stored)? {
                return Ok(entry);
            }
            anyhow::ensure!(self.leases.has(&site.site), "another process works on it now");
            let found = self.read(&site.site)?.ok_or_else(|| anyhow!("its record is gone"))?;
            // Their change counts; an order of ours that it leaves at the CA is given up. Or only the lease was renewed.
            if !found.is_as_in(&before) {
                next = site.clone().outrun_by(found.site.clone());
            }
            before = found;
        }
        anyhow::bail!("somebody changes it all the time")
    }

    /// Makes writes together. False when somebody else came first: then none is made.
    pub(crate) fn committed(&self, writes: Vec<Write>) -> anyhow::Result<bool> {
        self.commits.inc();
        match self.storage.commit(writes.into()) {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The writes that [`Self::write`] makes, and the site as it is then. None when the site is another process's.
    pub(crate) fn writes(
        &self,
        before: Option<&Entry>,
        site: &Site,
        writer: Writer,
        stored: &[StoredChange],
    ) -> anyhow::Result<Option<(Vec<Write>, Entry)>> {
        let guard = match writer {
            Writer::Request => None,
            Writer::Work => match self.leases.guard(&site.site) {
                Some(guard) => Some(guard),
                None => return Ok(None),
            },
        };
        let site = written(site.clone());
        let key = site.site.as_str().as_bytes();
        let held = before.map(|entry| claimed(&entry.site)).unwrap_or_default();
        let holds = |name: &DnsName| held.contains(&name);
        let kept = claimed(&site);
        let mut writes = put(&site, before)?;
        writes.extend(guard);
        writes.extend(stored.iter().map(StoredChange::to_write));
        if self.tells {
            writes.extend(events::told(before.map(|entry| &entry.site), &site, revision_after(before))?);
        }
        let same_owner = before.is_some_and(|entry| entry.site.owner == site.owner);
        for name in kept.iter().copied().filter(|name| !(holds(name) && same_owner)) {
            if !holds(name) {
                writes.push(Write::put(NAMES, name.as_str(), 1, key).expect(Expect::Absent));
            }
            if let Some(place) = under(name) {
                let held = Held { site: site.site.clone(), owner: site.owner.clone() };
                writes.push(Write::put(UNDER, place, 1, held.to_bytes()));
            }
        }
        for name in held.iter().copied().filter(|name| !kept.contains(name)) {
            writes.push(Write::delete(NAMES, name.as_str()));
            if let Some(place) = under(name) {
                writes.push(Write::delete(UNDER, place));
            }
        }
        drop(kept);
        writes.extend(self.companion_writes(before, &site)?);
        Ok(Some((writes, Entry { revision: revision_after(before), site })))
    }

    /// The writes of the companion of a site that was `before`: it follows in the site's own transaction. Sites that have none are
    /// asked about it when they leave, or get another type of key.
    fn companion_writes(&self, before: Option<&Entry>, site: &Site) -> anyhow::Result<Vec<Write>> {
        let state = |site: &Site| (site.key_type, site.departed);
        let stays = site.key_type != KeyType::Both && before.is_none_or(|entry| state(&entry.site) == state(site));
        if stays || site.site.companion_of().is_some() {
            return Ok(Vec::new());
        }
        let Some(name) = site.site.companion() else { return Ok(Vec::new()) };
        let found = self.read(&name)?;
        let Some(companion) = site.companion(found.as_ref().map(|entry| &entry.site)) else { return Ok(Vec::new()) };
        // Whoever works on it meanwhile reads it again, as after a request.
        let written = self.writes(found.as_ref(), &companion, Writer::Request, &[])?;
        Ok(written.map(|(writes, _)| writes).unwrap_or_default())
    }

    /// The changes that certstore took since `since`, the oldest first; of very many, the newest. And the instant from
    /// which they are complete.
    pub(crate) fn changes(&self, since: Timestamp) -> anyhow::Result<(Vec<StoredChange>, Timestamp)> {
        let begun = self.storage.get(META, CHANGES_BEGIN)?;
        let begun = begun.and_then(|record| std::str::from_utf8(&record.value).ok()?.parse().ok());
        let mut complete = since.max(begun.unwrap_or(Timestamp::MIN));
        let (mut found, mut after) = (VecDeque::new(), milliseconds(since).to_be_bytes().to_vec());
        loop {
            let page = self.storage.scan(CHANGES, Some(&after), CHANGES_AT_ONCE)?;
            let Some((last, _)) = page.last() else { break };
            after = last.clone();
            for (_, record) in &page {
                found.push_back(serde_json::from_slice::<StoredChange>(&record.value)?);
                if found.len() > MAX_CHANGES {
                    complete = complete.max(found.pop_front().map_or(complete, |left_out: StoredChange| left_out.at));
                }
            }
        }
        Ok((found.into(), complete))
    }

    /// Says that what certstore took before `now` may be unknown: a process may have died between its word and ours.
    pub(crate) fn begin_changes(&self, now: Timestamp) -> anyhow::Result<()> {
        self.storage.commit(Write::put(META, CHANGES_BEGIN, 1, now.to_string()).into())?;
        Ok(())
    }

    /// Forgets what certstore took before `before`.
    pub(crate) fn forget_changes(&self, before: Timestamp) -> anyhow::Result<()> {
        let end = milliseconds(before).to_be_bytes();
        loop {
            let page = self.storage.scan(CHANGES, None, CHANGES_AT_ONCE)?;
            let old: Vec<_> = page.iter().take_while(|(key, _)| key.as_slice() < &end[..]).collect();
            if old.is_empty() {
                return Ok(());
            }
            let gone: Vec<_> = old.into_iter().map(|(key, _)| Write::purge(CHANGES, key.clone())).collect();
            self.storage.commit(gone.into())?;
        }
    }

    /// The newest key ring that was ever accepted.
    pub(crate) fn ring_seen(&self) -> anyhow::Result<RingMark> {
        let Some(record) = self.storage.get(META, RING)? else { return Ok(RingMark::default()) };
        let signed: Signed = serde_json::from_slice(&record.value).context("the journal's key ring")?;
        Ok(RingMark { version: record.version, digest: Some(sha256(&signed.payload.0)) })
    }

    /// Takes the room to order one certificate again of which certstore says that it lost it; or tells how long to wait.
    /// A bucket of `per_day`, which fills up within a day.
    pub(crate) fn take_reorder(&self, now: Timestamp, per_day: u32) -> anyhow::Result<Option<SignedDuration>> {
        let Some(limit) = Limit::new(per_day, per_day, DAY) else { return Ok(Some(DAY)) };
        loop {
            let record = self.storage.get(META, REORDERS)?;
            // In seconds since 1970.
            let instant =
                record.as_ref().and_then(|record| Some(i64::from_be_bytes(record.value[..].try_into().ok()?)));
            let instant = instant.and_then(|instant| Timestamp::from_second(instant).ok());
            let full_at = match limit.take(instant, now) {
                Ok(full_at) => full_at.as_second(),
                Err(until) => return Ok(Some(until.duration_since(now))),
            };
            let (expect, version) = match &record {
                Some(record) => (Expect::Version(record.version), record.version + 1),
                None => (Expect::Absent, 1),
            };
            let taken = Write::put(META, REORDERS, version, full_at.to_be_bytes()).expect(expect);
            match self.storage.commit(taken.into()) {
                Ok(_) => return Ok(None),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The issuer whose signature all that certstore has of ours carries, and the issuers of the ring then.
    pub(crate) fn issuers_seen(&self) -> anyhow::Result<Option<IssuersSeen>> {
        let record = self.storage.get(META, ISSUERS)?;
        Ok(record.map(|record| serde_json::from_slice(&record.value)).transpose()?)
    }

    pub(crate) fn see_issuers(&self, seen: &IssuersSeen) -> anyhow::Result<()> {
        self.storage.commit(Write::put(META, ISSUERS, 1, serde_json::to_vec(seen)?).into())?;
        Ok(())
    }

    /// The state of certstore's audit log that was seen last.
    pub(crate) fn audit_seen(&self) -> anyhow::Result<Option<AuditSeen>> {
        let record = self.storage.get(META, AUDIT)?;
        Ok(record.map(|record| serde_json::from_slice(&record.value)).transpose()?)
    }

    /// Remembers what was seen of certstore's audit log: it must never be less again.
    pub(crate) fn see_audit(&self, seen: &AuditSeen) -> anyhow::Result<()> {
        self.storage.commit(Write::put(META, AUDIT, seen.head.number, serde_json::to_vec(seen)?).into())?;
        Ok(())
    }

    /// Remembers an accepted key ring, so that an older one is never accepted again.
    pub(crate) fn see_ring(&self, ring: &KeyRing, signed: &Signed) -> anyhow::Result<()> {
        if self.ring_seen()?.version < ring.version {
            self.storage.commit(Write::put(META, RING, ring.version, serde_json::to_vec(signed)?).into())?;
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

/// Under which issuers everything was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IssuersSeen {
    /// Ours.
    pub(crate) own: SignerId,
    /// Those of the key ring.
    pub(crate) listed: Vec<SignerId>,
}

/// A version of a record that certstore took, for the checkpoints of the pools that it concerns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredChange {
    pub(crate) at: Timestamp,
    pub(crate) pools: Vec<PoolName>,
    pub(crate) change: Change,
}

impl StoredChange {
    fn to_write(&self) -> Write {
        // One site has one change of a kind in a millisecond.
        let key = format!("{} {}", self.change.kind, self.change.name);
        let key = [&milliseconds(self.at).to_be_bytes()[..], key.as_bytes()].concat();
        // Serialization fails for maps with other than text keys only; this has none.
        Write::put(CHANGES, key, 1, serde_json::to_vec(self).expect("a change serializes"))
    }
}

/// The names that a site keeps from others.
fn claimed(site: &Site) -> Vec<&DnsName> {
    // Its name tells a companion, whatever became of its record.
    let claims = !site.departed && site.site.companion_of().is_none();
    site.names.iter().filter(|_| claims).collect()
}

/// A site as it is written now.
fn written(site: Site) -> Site {
    Site { written_at: Some(Timestamp::now()), ..site }.in_its_format()
}

/// The writes of a site and of its place in the queue, instead of `before`.
fn put(site: &Site, before: Option<&Entry>) -> anyhow::Result<Vec<Write>> {
    let expect = before.map_or(Expect::Absent, |entry| Expect::Version(entry.revision));
    let put = Write::put(SITES, site.site.as_str(), revision_after(before), serde_json::to_vec(site)?).expect(expect);
    let mut writes = queue::moved(before.map(|entry| &entry.site), site);
    writes.extend(indexes::moved(before.map(|entry| &entry.site), site));
    writes.push(put);
    Ok(writes)
}

fn revision_after(before: Option<&Entry>) -> u64 {
    before.map_or(1, |entry| entry.revision + 1)
}

fn parse(value: &[u8]) -> anyhow::Result<Site> {
    let is_envelope = |key: &[u8]| Sealed::parse(key).is_ok_and(|sealed| sealed.envelope().is_some());
    // As it is: the handler of a request tells a later format from damage.
    Ok(certseal_issuance::read(value, is_envelope)?)
}

fn milliseconds(instant: Timestamp) -> u64 {
    instant.as_millisecond().try_into().unwrap_or(0)
}

/// Names read at one time.
const NAMES_AT_ONCE: usize = 500;

/// Changes read or forgotten at one time.
const CHANGES_AT_ONCE: usize = 500;

/// Others' changes that one write is made again for.
const MAX_RACES: usize = 20;

/// The most changes that are listed, of all pools together: a few megabytes.
const MAX_CHANGES: usize = 20_000;

/// Sites that are counted for a metric.
const MOST_COUNTED: usize = 10_000;

/// Ends that the platform is told of between two renewals of leases: each is a transaction.
const TOLD_AT_ONCE: usize = 100;

/// Sites in one transaction.
const DOUBTED_AT_ONCE: usize = 100;

const SITES: Table = Table::new("sites");
const NAMES: Table = Table::new("names");
/// Names by the name that they lie under.
const UNDER: Table = Table::new("names under");
/// A mark for each name that others lie under, which each claim of one of them changes. It stays when they leave.
const BELOW: Table = Table::new("claims below");
const META: Table = Table::new("meta");
/// The changes that certstore took, by the instant.
const CHANGES: Table = Table::new("changes");
/// Every site has its rows in the queue and in the indexes. Earlier releases noted `sites queued` for the queue alone.
const QUEUED: &[u8] = b"sites queued and indexed";
const CHANGES_BEGIN: &[u8] = b"changes begin";
const INDEXED: &[u8] = b"names indexed";
/// Changed by each claim of a wildcard.
const CLAIMS: &[u8] = b"claims";
const AUDIT: &[u8] = b"audit";
const RING: &[u8] = b"ring";
const ISSUERS: &[u8] = b"issuers";
const REORDERS: &[u8] = b"reorders";

const DAY: SignedDuration = SignedDuration::from_hours(24);

#[cfg(test)]
mod scale;

#[cfg(test)]
mod tests;
