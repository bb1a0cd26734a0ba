//! The books of a CA's limits, in the journal: an entry is written with the site that it is for, in one transaction.
//!
//! Sites that ask at the same time share a transaction: the bucket of new orders is a single row that all of them want.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use certseal_issuance::{
    AccountRef, AuthorityId, Booked, Booking, Lane, Moment, Site,
    budget::{self, Bucket, Entries, LimitName, Limits, Line, Reserved},
};
use certseal_seal::sha256;
use certseal_store::{Expect, Storage, Table, Write};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{
    expiry::{forget_expired, seconds},
    journal::{Entry, Journal, Writer},
    suffixes::Suffixes,
};

/// What CAs allow, and how their limits are counted.
pub(crate) struct Rules {
    /// Others allow everything.
    pub(crate) limits: HashMap<AuthorityId, Limits>,
    pub(crate) suffixes: Arc<Suffixes>,
}

impl Rules {
    fn of(&self, authority: &AuthorityId) -> &Limits {
        static UNLIMITED: LazyLock<Limits> = LazyLock::new(Limits::unlimited);
        self.limits.get(authority).unwrap_or(&UNLIMITED)
    }
}

/// The books, kept by one task.
#[derive(Clone)]
pub(crate) struct Ledger {
    rules: Arc<Rules>,
    journal: Journal,
    queue: mpsc::Sender<Ask>,
}

struct Ask {
    entry: Entry,
    site: Site,
    booking: Booking,
    moment: Moment,
    reply: oneshot::Sender<anyhow::Result<Option<Entry>>>,
}

impl Ledger {
    /// The books, and the task that keeps them, which ends with the last handle.
    pub(crate) fn start(journal: Journal, rules: Rules) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        let rules = Arc::new(rules);
        tokio::spawn(keep(journal.clone(), rules.clone(), waiting));
        Self { rules, journal, queue }
    }

    /// Enters a booking of a site, and writes the site in place of `entry` as it is then. None when somebody else wrote the site
    /// meanwhile, or it is another process's by now: then nothing is entered.
    pub(crate) async fn book(
        &self,
        entry: Entry,
        site: Site,
        booking: Booking,
        moment: Moment,
    ) -> anyhow::Result<Option<Entry>> {
        let (reply, outcome) = oneshot::channel();
        let gone = || anyhow!("the task that keeps the books is gone");
        self.queue.send(Ask { entry, site, booking, moment, reply }).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// The outcome of a booking that needs no books: of a CA without limits.
    pub(crate) fn unlimited(&self, booking: &Booking) -> Option<Booked> {
        let (Booking::Reserve { account, .. } | Booking::Settle { account, .. }) = booking;
        self.limits(&account.authority).is_unlimited().then(|| match booking {
            Booking::Reserve { .. } => Booked::Reserved(Reserved { ready: true, ..Reserved::default() }),
            Booking::Settle { .. } => Booked::Settled,
        })
    }

    /// The limits of a CA.
    pub(crate) fn limits(&self, authority: &AuthorityId) -> &Limits {
        self.rules.of(authority)
    }

    /// What stands in the books of a CA, of all accounts there: of each limit the `most` buckets that are fullest.
    pub(crate) fn standing(&self, authority: &AuthorityId, now: Timestamp, most: usize) -> anyhow::Result<Standing> {
        let storage = self.journal.storage();
        let mut fullest = Vec::new();
        for limit in LimitName::ALL {
            let Some(rule) = self.limits(authority).get(limit) else { continue };
            let found = fullest_below(&*storage, &buckets(authority, limit), now, most)?;
            fullest.extend(
                found
                    .into_iter()
                    .map(|(at, subject)| (Bucket { limit, subject: subject.into() }, rule.left(Some(at), now))),
            );
        }
        let mut lanes = Vec::new();
        for lane in Lane::ALL {
            let promises = lane_lines(authority, "promise", LimitName::NewOrders, lane);
            let last = fullest_below(&*storage, &promises, now, 1)?.pop();
            lanes.push((lane, last.map(|(at, _)| at)));
        }
        Ok(Standing { fullest, lanes })
    }
}

/// The rows below a prefix that say the latest instants after `now`, with their subjects; of very many rows, of the first ones.
fn fullest_below(
    storage: &dyn Storage,
    prefix: &[u8],
    now: Timestamp,
    most: usize,
) -> anyhow::Result<Vec<(Timestamp, String)>> {
    let (mut found, mut after) = (Vec::new(), prefix.to_vec());
    for _ in 0..MOST_LOOKED_AT / ROWS_AT_ONCE {
        let rows = storage.scan(BUDGET, Some(&after), ROWS_AT_ONCE)?;
        let Some((last, _)) = rows.last() else { break };
        after = last.clone();
        for (key, record) in &rows {
            let Some(rest) = key.strip_prefix(prefix) else { break };
            let row: Row = serde_json::from_slice(&record.value).context("a row of the budget")?;
            let subject = rest.iter().position(|octet| *octet == b'\n').map_or(rest, |at| &rest[at + 1..]);
            let subject = row.subject.unwrap_or_else(|| String::from_utf8_lossy(subject).into_owned());
            found.extend((row.at > now).then_some((row.at, subject)));
        }
        found.sort_by(|a, b| b.cmp(a));
        found.truncate(most);
        if !after.starts_with(prefix) {
            break;
        }
    }
    Ok(found)
}

/// What stands in the books.
pub(crate) struct Standing {
    /// Buckets from which something was taken, and how often another time can be taken from them now.
    pub(crate) fullest: Vec<(Bucket, u32)>,
    /// Until when the last site of each lane waits for room to order.
    pub(crate) lanes: Vec<(Lane, Option<Timestamp>)>,
}

async fn keep(journal: Journal, rules: Arc<Rules>, mut waiting: mpsc::Receiver<Ask>) {
    let (mut asks, mut swept) = (Vec::new(), None::<Instant>);
    while waiting.recv_many(&mut asks, TOGETHER).await > 0 {
        let (taken, journal, rules) = (std::mem::take(&mut asks), journal.clone(), rules.clone());
        let is_time = swept.is_none_or(|swept| swept.elapsed() > SWEEP_EVERY);
        if let Some(now) = taken.iter().map(|ask| ask.moment.now).max().filter(|_| is_time) {
            swept = Some(Instant::now());
            let storage = journal.storage();
            let _ = tokio::task::spawn_blocking(move || forget_expired(&*storage, BUDGET, now)).await;
        }
        // Askers hear of a panic by the end of their channels.
        let _ = tokio::task::spawn_blocking(move || enter_all(&journal, &rules, taken)).await;
    }
}

fn enter_all(journal: &Journal, rules: &Rules, mut asks: Vec<Ask>) {
    rules.suffixes.refresh();
    for race in 0..MAX_RACES {
        match enter(journal, rules, &asks) {
            Ok(Some(entries)) => {
                for (ask, entry) in asks.into_iter().zip(entries) {
                    ask.answer(Ok(Some(entry)));
                }
                return;
            }
            // Somebody changed a site, or another process a row of the books: the others once more.
            Ok(None) => asks = asks.into_iter().filter_map(|ask| ask.unless_outrun(journal)).collect(),
            // One of them may be at fault.
            Err(_) if asks.len() > 1 => return asks.into_iter().for_each(|ask| enter_all(journal, rules, vec![ask])),
            Err(error) => return asks.into_iter().for_each(|ask| ask.answer(Err(anyhow!("{error:#}")))),
        }
        // Two processes at the same row do not meet again and again.
        let random = u64::from(getrandom::u32().unwrap_or_default());
        std::thread::sleep(Duration::from_micros(random % (1_000 << race.min(6))));
    }
    asks.into_iter().for_each(|ask| ask.answer(Err(anyhow!("others change the books all the time"))));
}

impl Ask {
    fn answer(self, outcome: anyhow::Result<Option<Entry>>) {
        // The asker may have gone.
        let _ = self.reply.send(outcome);
    }

    /// The ask, if its site is as it was and still this process's; else its asker is told.
    fn unless_outrun(self, journal: &Journal) -> Option<Self> {
        let site = &self.site.site;
        let is_same = |found: &Entry| found.is_as_in(&self.entry);
        match journal.read(site) {
            Ok(found) if journal.leases().has(site) && found.as_ref().is_some_and(is_same) => Some(self),
            Ok(_) => {
                self.answer(Ok(None));
                None
            }
            Err(error) => {
                self.answer(Err(error));
                None
            }
        }
    }
}

/// Enters all of them, or nothing: none when a row was changed by others.
fn enter(journal: &Journal, rules: &Rules, asks: &[Ask]) -> anyhow::Result<Option<Vec<Entry>>> {
    let storage = journal.storage();
    let page = Page::new(&*storage, rules);
    let (mut writes, mut entries) = (Vec::new(), Vec::new());
    for ask in asks {
        let booked = page.booked(ask);
        page.failed()?;
        let site = ask.site.clone().booked(&ask.booking, booked);
        let Some((more, entry)) = journal.writes(Some(&ask.entry), &site, Writer::Work, &[])? else { return Ok(None) };
        writes.extend(more);
        entries.push(entry);
    }
    writes.extend(page.into_writes());
    Ok(journal.committed(writes)?.then_some(entries))
}

/// The rows that one transaction reads and writes.
struct Page<'a> {
    storage: &'a dyn Storage,
    rules: &'a Rules,
    rows: RefCell<HashMap<Vec<u8>, Known>>,
    failed: RefCell<Option<anyhow::Error>>,
}

#[derive(Clone, Default)]
struct Known {
    version: Option<u64>,
    at: Option<Timestamp>,
    /// The subject, where the key has its digest.
    subject: Option<String>,
    is_new: bool,
}

/// A row as it is stored.
#[derive(Serialize, Deserialize)]
struct Row {
    at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
}

impl<'a> Page<'a> {
    fn new(storage: &'a dyn Storage, rules: &'a Rules) -> Self {
        Self { storage, rules, rows: RefCell::default(), failed: RefCell::default() }
    }

    fn booked(&self, ask: &Ask) -> Booked {
        let suffixes = &self.rules.suffixes;
        match &ask.booking {
            Booking::Reserve { account, kind, lane, again } => {
                let mut cost = budget::order_cost(*kind, &ask.site.names, |name| suffixes.registered(name));
                if *again {
                    cost.certificate.clear();
                    cost.counted.clear();
                }
                let at = |line: &Line| self.at(account, line);
                match budget::take(&cost, *lane, self.rules.of(&account.authority), at, ask.moment) {
                    Ok(taken) => {
                        self.enter(account, taken.entries);
                        let (order, certificate) = (cost.order, taken.certificate);
                        Booked::Reserved(Reserved { ready: true, order, certificate })
                    }
                    Err(delay) => {
                        self.enter(account, delay.entries.clone());
                        Booked::Delayed(delay)
                    }
                }
            }
            Booking::Settle { account, settlement } => {
                let at = |line: &Line| self.at(account, line);
                let entries = budget::settle(settlement, self.rules.of(&account.authority), at, ask.moment.now);
                self.enter(account, entries);
                Booked::Settled
            }
        }
    }

    /// What stands in a line. Where that cannot be read, it is full.
    fn at(&self, account: &AccountRef, line: &Line) -> Option<Timestamp> {
        let (key, subject) = key(account, line);
        if let Some(known) = self.rows.borrow().get(&key) {
            return known.at;
        }
        let known = match read(self.storage, &key) {
            Ok(known) => known,
            Err(error) => {
                *self.failed.borrow_mut() = Some(error);
                return Some(Timestamp::MAX);
            }
        };
        let at = known.at;
        self.rows.borrow_mut().insert(key, Known { subject, ..known });
        at
    }

    fn enter(&self, account: &AccountRef, entries: Entries) {
        for (line, at) in entries {
            // It was read before it was decided; a line that was not is read now, for its version.
            self.at(account, &line);
            let (key, subject) = key(account, &line);
            let mut rows = self.rows.borrow_mut();
            let row = rows.entry(key).or_default();
            if row.at != Some(at) {
                *row = Known { version: row.version, at: Some(at), subject, is_new: true };
            }
        }
    }

    fn failed(&self) -> anyhow::Result<()> {
        self.failed.borrow_mut().take().map_or(Ok(()), Err)
    }

    fn into_writes(self) -> Vec<Write> {
        let new = self.rows.into_inner().into_iter().filter(|(_, known)| known.is_new);
        let write = |(key, known): (Vec<u8>, Known)| {
            let Known { version, at: Some(at), subject, .. } = known else { return None };
            let expect = version.map_or(Expect::Absent, Expect::Version);
            // Serialization fails for maps with other than text keys only; this has none.
            let value = serde_json::to_vec(&Row { at, subject }).expect("an instant and a text serialize");
            let write = Write::put(BUDGET, key, version.map_or(1, |version| version + 1), value).expect(expect);
            Some(write.expires_at(seconds(at).saturating_add(1)))
        };
        new.filter_map(write).collect()
    }
}

fn read(storage: &dyn Storage, key: &[u8]) -> anyhow::Result<Known> {
    let Some(record) = storage.get(BUDGET, key)? else { return Ok(Known::default()) };
    let row: Row = serde_json::from_slice(&record.value).context("a row of the budget")?;
    Ok(Known { version: Some(record.version), at: Some(row.at), subject: row.subject, is_new: false })
}

/// The key of a line's row; and its subject, where the key has only a digest of it.
fn key(account: &AccountRef, line: &Line) -> (Vec<u8>, Option<String>) {
    let authority = &account.authority;
    let (prefix, limit, subject) = match line {
        Line::Bucket(bucket) => (buckets(authority, bucket.limit), bucket.limit, &*bucket.subject),
        Line::Share(limit, lane) => (lane_lines(authority, "share", *limit, *lane), *limit, ""),
        Line::Promise(bucket, lane) => {
            (lane_lines(authority, "promise", bucket.limit, *lane), bucket.limit, &*bucket.subject)
        }
    };
    let (subject, whole) = short(subject);
    ([prefix, subject_of(account, limit, &subject)].concat(), whole)
}

/// The beginning of the keys of a limit's buckets at a CA.
fn buckets(authority: &AuthorityId, limit: LimitName) -> Vec<u8> {
    format!("{}\nbucket\n{limit}\n", authority.0).into_bytes()
}

/// The beginning of the keys of a lane's lines of a kind.
fn lane_lines(authority: &AuthorityId, kind: &str, limit: LimitName, lane: Lane) -> Vec<u8> {
    format!("{}\n{kind}\n{limit}\n{}\n", authority.0, lane.as_str()).into_bytes()
}

/// The end of a key: the account, which limits of all accounts together do not have, and the subject.
fn subject_of(account: &AccountRef, limit: LimitName, subject: &str) -> Vec<u8> {
    let thumbprint = account.thumbprint.as_deref().filter(|_| limit.is_of_account()).unwrap_or_default();
    format!("{thumbprint}\n{subject}").into_bytes()
}

/// A subject as it stands in a key; and as it is, where that is another one.
fn short(subject: &str) -> (String, Option<String>) {
    if subject.len() <= LONG_SUBJECT {
        return (subject.to_owned(), None);
    }
    let shown: String = subject.chars().take(LONG_SUBJECT).collect();
    (format!("sha256 {}", sha256(subject.as_bytes())), Some(format!("{shown}...")))
}

/// The rows of all books.
const BUDGET: Table = Table::new("budget");

/// Bookings that wait; further ones wait for a place among them.
const WAITING: usize = 1024;

/// Bookings that share a transaction.
const TOGETHER: usize = 64;

/// Others' changes that a booking is made again for.
const MAX_RACES: usize = 20;

/// The most octets of a subject in a key: a set of a hundred names has more than a database's index takes.
const LONG_SUBJECT: usize = 256;

const ROWS_AT_ONCE: usize = 500;

/// Between two looks for buckets that are empty again.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Buckets of a limit that are looked at for a report: there may be millions, and anybody of the platform may ask.
const MOST_LOOKED_AT: usize = 10_000;

/// What [`Ledger::book`] does, at once and alone.
#[cfg(test)]
pub(crate) fn book_alone(
    journal: &Journal,
    rules: &Rules,
    entry: Entry,
    site: Site,
    booking: Booking,
    moment: Moment,
) -> anyhow::Result<Option<Entry>> {
    let (reply, _) = oneshot::channel();
    let ask = Ask { entry, site, booking, moment, reply };
    Ok(enter(journal, rules, &[ask])?.and_then(|mut entries| entries.pop()))
}

#[cfg(test)]
mod tests;
