//! What platforms hear of their sites: an outbox, written in one transaction with the site, and a history of a week.
//!
//! Each event has a row in the history; those that are still to be sent have one in the outbox, too. Both are in the order of
//! the time; of one site, in the order of its revisions.

use anyhow::Context;
use certseal_issuance::{Site, news};
use certseal_seal::sha256;
use certseal_store::{Storage, Table, Write};
use certseal_wire::{DnsName, EventList, ListedEvent, Replay, SiteEvent};
use jiff::{SignedDuration, Timestamp};

/// An event that is to be sent.
pub(crate) struct Waiting {
    pub(crate) key: Vec<u8>,
    /// The same each time that it is sent.
    pub(crate) id: String,
    pub(crate) event: SiteEvent,
}

/// The writes of what is to be told of a site that was `before`, and is `site` from `revision` on.
pub(crate) fn told(before: Option<&Site>, site: &Site, revision: u64) -> anyhow::Result<Vec<Write>> {
    let now = site.written_at.unwrap_or(Timestamp::UNIX_EPOCH);
    let mut writes = Vec::new();
    for (number, event) in (0..).zip(news(before, site, revision, now)) {
        let key = key(now, revision, number, &site.site);
        writes.push(Write::put(HISTORY, key.clone(), 1, serde_json::to_vec(&event)?));
        writes.push(Write::put(OUTBOX, key, 1, Vec::new()));
    }
    Ok(writes)
}

/// The oldest events that are to be sent, after the one with the key `after`.
pub(crate) fn waiting(storage: &dyn Storage, after: Option<&[u8]>, limit: usize) -> anyhow::Result<Vec<Waiting>> {
    let rows = storage.scan(OUTBOX, after, limit)?;
    let keys: Vec<_> = rows.iter().map(|(key, _)| (HISTORY, key.as_slice())).collect();
    let records = storage.get_all(&keys)?;
    let mut lost = Vec::new();
    let mut found = Vec::new();
    for ((key, _), record) in rows.iter().zip(records) {
        match record.map(|record| serde_json::from_slice(&record.value)) {
            Some(Ok(event)) => found.push(Waiting { key: key.clone(), id: id(key), event }),
            // Of a week ago, or damaged.
            _ => lost.push(key.clone()),
        }
    }
    if !lost.is_empty() {
        tracing::error!(count = lost.len(), "events are not there any more and cannot be sent");
        storage.commit(lost.into_iter().map(|key| Write::purge(OUTBOX, key)).collect::<Vec<_>>().into())?;
    }
    Ok(found)
}

/// Takes what was sent out of the outbox.
pub(crate) fn sent(storage: &dyn Storage, sent: Vec<Waiting>) -> anyhow::Result<()> {
    if !sent.is_empty() {
        storage.commit(sent.into_iter().map(|sent| Write::purge(OUTBOX, sent.key)).collect::<Vec<_>>().into())?;
    }
    Ok(())
}

/// How many are to be sent, as far as it is counted.
pub(crate) fn count_waiting(storage: &dyn Storage) -> anyhow::Result<usize> {
    Ok(storage.scan(OUTBOX, None, MOST_COUNTED)?.len())
}

/// A page of the history, after the place that the page before names.
pub(crate) fn list(storage: &dyn Storage, after: Option<&str>, limit: usize) -> anyhow::Result<Option<EventList>> {
    let after = match after.map(from_hex) {
        Some(None) => return Ok(None),
        after => after.flatten(),
    };
    let rows = storage.scan(HISTORY, after.as_deref(), limit)?;
    let keys: Vec<_> = rows.iter().map(|(key, _)| (OUTBOX, key.as_slice())).collect();
    let waiting = storage.get_all(&keys)?;
    let mut events = Vec::with_capacity(rows.len());
    for ((key, record), waits) in rows.iter().zip(waiting) {
        let event = serde_json::from_slice(&record.value).context("an event of the history")?;
        events.push(ListedEvent { id: id(key), event, waits: waits.is_some() });
    }
    let next = (rows.len() == limit).then(|| rows.last().map(|(key, _)| hex(key))).flatten();
    Ok(Some(EventList { events, next }))
}

/// Has events of the history sent again. Answers how many.
pub(crate) fn replay(storage: &dyn Storage, replay: &Replay) -> anyhow::Result<u64> {
    let until = replay.until.map(nanoseconds);
    let (mut after, mut count) = (nanoseconds(replay.from).to_be_bytes().to_vec(), 0);
    loop {
        let page = storage.scan(HISTORY, Some(&after), AT_ONCE)?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        after = last.clone();
        let is_in_time = |key: &[u8]| until.is_none_or(|until| instant(key).is_some_and(|at| at < until));
        let is_wanted = |key: &[u8]| replay.site.as_ref().is_none_or(|site| site_of(key) == Some(site.as_str()));
        let in_time: Vec<_> = page.into_iter().map(|(key, _)| key).take_while(|key| is_in_time(key)).collect();
        let is_last = in_time.last() != Some(&after);
        let wanted: Vec<Write> = in_time
            .into_iter()
            .filter(|key| is_wanted(key))
            .map(|key| Write::put(OUTBOX, key, 1, Vec::new()))
            .collect();
        count += wanted.len() as u64;
        if !wanted.is_empty() {
            storage.commit(wanted.into())?;
        }
        if is_last {
            return Ok(count);
        }
    }
}

/// Forgets events that are older than a week, sent or not.
pub(crate) fn forget_old(storage: &dyn Storage, now: Timestamp) -> anyhow::Result<()> {
    let Ok(end) = now.checked_sub(KEPT) else { return Ok(()) };
    loop {
        let page = storage.scan(HISTORY, None, AT_ONCE)?;
        let is_old = |key: &[u8]| instant(key).is_some_and(|at| at < nanoseconds(end));
        let old = page.into_iter().map(|(key, _)| key).take_while(|key| is_old(key));
        let old: Vec<Write> = old.map(|key| Write::purge(HISTORY, key)).collect();
        if old.is_empty() {
            return Ok(());
        }
        storage.commit(old.into())?;
    }
}

/// Instant, revision, number, site.
fn key(at: Timestamp, revision: u64, number: u8, site: &DnsName) -> Vec<u8> {
    [&nanoseconds(at).to_be_bytes()[..], &revision.to_be_bytes(), &[number], site.as_str().as_bytes()].concat()
}

fn instant(key: &[u8]) -> Option<u64> {
    key.first_chunk().map(|instant| u64::from_be_bytes(*instant))
}

fn site_of(key: &[u8]) -> Option<&str> {
    key.get(17..).and_then(|site| std::str::from_utf8(site).ok())
}

/// An id without the full stops of a name, as the specification of webhooks wants it.
fn id(key: &[u8]) -> String {
    format!("evt_{}", hex(&sha256(key).0[..16]))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let is_hex =
        text.len() <= 2 * MOST_OCTETS && text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    is_hex.then(|| text.as_bytes().chunks(2).map(octet).collect()).flatten()
}

/// Until the year 2554.
fn nanoseconds(instant: Timestamp) -> u64 {
    instant.as_nanosecond().try_into().unwrap_or(0)
}

const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Events read or written at one time.
const AT_ONCE: usize = 500;
/// Octets of a key: more than any has.
const MOST_OCTETS: usize = 512;
const MOST_COUNTED: usize = 10_000;

/// Events by instant, revision and site.
const HISTORY: Table = Table::new("events");
/// Those of them that are to be sent.
const OUTBOX: Table = Table::new("events outbox");
