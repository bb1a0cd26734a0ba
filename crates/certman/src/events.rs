//! What platforms hear of their sites: an outbox, written in one transaction with the site, and a history of a week.
//!
//! Each event has a row in the history; those that are still to be sent have one in the outbox, too, and those that the receiver does
//! not want one among those that were put aside. All are in the order of the time; of one site, in the order of its revisions.

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

/// Takes what was sent, and what the receiver does not want, out of the outbox. The latter is put aside.
pub(crate) fn settle(storage: &dyn Storage, sent: &[Waiting], unwanted: &[Waiting]) -> anyhow::Result<()> {
    let put_aside = unwanted.iter().map(|event| Write::put(ASIDE, event.key.clone(), 1, Vec::new()));
    let gone = sent.iter().chain(unwanted).map(|event| Write::purge(OUTBOX, event.key.clone()));
    let writes: Vec<Write> = put_aside.chain(gone).collect();
    if !writes.is_empty() {
        storage.commit(writes.into())?;
    }
    Ok(())
}

/// How many are to be sent, as far as it is counted.
pub(crate) fn count_waiting(storage: &dyn Storage) -> anyhow::Result<usize> {
    Ok(storage.scan(OUTBOX, None, MOST_COUNTED)?.len())
}

/// How many were put aside, as far as it is counted.
pub(crate) fn count_put_aside(storage: &dyn Storage) -> anyhow::Result<usize> {
    Ok(storage.scan(ASIDE, None, MOST_COUNTED)?.len())
}

/// A page of the history, after the place that the page before names.
pub(crate) fn list(storage: &dyn Storage, after: Option<&str>, limit: usize) -> anyhow::Result<Option<EventList>> {
    let after = match after.map(from_hex) {
        Some(None) => return Ok(None),
        after => after.flatten(),
    };
    let rows = storage.scan(HISTORY, after.as_deref(), limit)?;
    let keys = |table| rows.iter().map(|(key, _)| (table, key.as_slice())).collect::<Vec<_>>();
    let (waiting, aside) = (storage.get_all(&keys(OUTBOX))?, storage.get_all(&keys(ASIDE))?);
    let mut events = Vec::with_capacity(rows.len());
    for ((key, record), (waits, aside)) in rows.iter().zip(waiting.into_iter().zip(aside)) {
        let event = serde_json::from_slice(&record.value).context("an event of the history")?;
        events.push(ListedEvent { id: id(key), event, waits: waits.is_some(), put_aside: aside.is_some() });
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
        let wanted: Vec<Vec<u8>> = in_time.into_iter().filter(|key| is_wanted(key)).collect();
        count += wanted.len() as u64;
        let back = |key: Vec<u8>| [Write::purge(ASIDE, key.clone()), Write::put(OUTBOX, key, 1, Vec::new())];
        let writes: Vec<Write> = wanted.into_iter().flat_map(back).collect();
        if !writes.is_empty() {
            storage.commit(writes.into())?;
        }
        if is_last {
            return Ok(count);
        }
    }
}

/// Forgets events that are older than a week, sent or not.
pub(crate) fn forget_old(storage: &dyn Storage, now: Timestamp) -> anyhow::Result<()> {
    let Ok(end) = now.checked_sub(KEPT) else { return Ok(()) };
    forget_before(storage, HISTORY, end)?;
    // An event may come into these just as its row in the history goes: each is swept by its own keys.
    forget_before(storage, ASIDE, end)?;
    let unsent = forget_before(storage, OUTBOX, end)?;
    if unsent > 0 {
        tracing::error!(count = unsent, "events of more than a week ago were never sent, and are forgotten");
    }
    Ok(())
}

/// Purges the rows of `table` with an instant before `end`. Answers how many.
fn forget_before(storage: &dyn Storage, table: Table, end: Timestamp) -> anyhow::Result<usize> {
    let is_old = |key: &[u8]| instant(key).is_some_and(|at| at < nanoseconds(end));
    let mut count = 0;
    loop {
        let page = storage.scan(table, None, AT_ONCE)?;
        let old = page.into_iter().map(|(key, _)| key).take_while(|key| is_old(key));
        let old: Vec<Write> = old.map(|key| Write::purge(table, key)).collect();
        if old.is_empty() {
            return Ok(count);
        }
        count += old.len();
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
/// Events read or written at one time, each with two writes at most.
const AT_ONCE: usize = 500;
/// Octets of a key: more than any has.
const MOST_OCTETS: usize = 512;
const MOST_COUNTED: usize = 10_000;

/// Events by instant, revision and site.
const HISTORY: Table = Table::new("events");
/// Those of them that are to be sent.
const OUTBOX: Table = Table::new("events outbox");
/// Those of them that the receiver refused for so long that nobody sends them any more.
const ASIDE: Table = Table::new("events aside");

#[cfg(test)]
pub(crate) mod tests {
    use certseal_store::{SledOptions, SledStore};
    use certseal_wire::SiteRequest;

    use super::*;

    /// The writes of an event: the CA rejected an order of the site.
    pub(crate) fn failing(site: &str, at: Timestamp, revision: u64) -> Vec<Write> {
        let name: DnsName = site.parse().unwrap();
        let (upstream, pools) = ("http://127.0.0.1:1".parse().unwrap(), vec!["eu".parse().unwrap()]);
        let names = vec![name.clone()].try_into().unwrap();
        let mut site = Site::new(name, SiteRequest::new(names, upstream, pools));
        site.attempts.order.rejected = 1;
        site.written_at = Some(at);
        told(None, &site, revision).unwrap()
    }

    #[test]
    fn an_event_that_was_put_aside_is_listed_and_sent_again_when_somebody_asks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let storage = SledStore::open(dir.path(), SledOptions::default()).unwrap();
        let at: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        storage.commit(failing("a.example", at, 1).into()).unwrap();
        let put_aside = || settle(&storage, &[], &waiting(&storage, None, 9).unwrap()).unwrap();
        let counted = || (count_waiting(&storage).unwrap(), count_put_aside(&storage).unwrap());
        let listed = || {
            let [event] = list(&storage, None, 9).unwrap().unwrap().events.try_into().unwrap();
            let ListedEvent { waits, put_aside, .. } = event;
            (waits, put_aside)
        };
        assert_eq!((counted(), listed()), ((1, 0), (true, false)));
        put_aside();
        assert_eq!((counted(), listed()), ((0, 1), (false, true)));
        assert_eq!(replay(&storage, &Replay { from: at, until: None, site: None }).unwrap(), 1);
        assert_eq!((counted(), listed()), ((1, 0), (true, false)));
        put_aside();
        forget_old(&storage, at + KEPT + SignedDuration::from_secs(1)).unwrap();
        assert_eq!(counted(), (0, 0));
    }

    #[test]
    fn an_event_that_is_put_aside_just_as_its_history_ends_is_forgotten_too() {
        let dir = tempfile::tempdir().unwrap();
        let storage = SledStore::open(dir.path(), SledOptions::default()).unwrap();
        let at: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let end = at + KEPT + SignedDuration::from_secs(1);
        storage.commit(failing("a.example", at, 1).into()).unwrap();
        let under_way = waiting(&storage, None, 9).unwrap();
        forget_old(&storage, end).unwrap();
        assert_eq!(count_waiting(&storage).unwrap(), 0, "it would be lost at the next look");
        settle(&storage, &[], &under_way).unwrap();
        assert_eq!(count_put_aside(&storage).unwrap(), 1);
        forget_old(&storage, end).unwrap();
        assert_eq!(count_put_aside(&storage).unwrap(), 0);
    }
}
