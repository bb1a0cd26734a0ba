//! The queue of sites by what goes before what and when: rows that are written with the site, in one transaction.

use std::collections::{BTreeMap, VecDeque};

use certseal_issuance::{Due, Lane, Site, Turns};
use certseal_store::{Storage, Table, Write};
use certseal_wire::DnsName;
use jiff::Timestamp;

use crate::indexes;

/// The site's row: lane, instant in milliseconds, name. A site that is due at once stands where it was written.
fn row(site: &Site) -> Option<Vec<u8>> {
    let Due { lane, at } = site.due()?;
    let at = at.or(site.written_at).unwrap_or(Timestamp::UNIX_EPOCH);
    Some([&prefix(lane), &milliseconds(at).to_be_bytes()[..], site.site.as_str().as_bytes()].concat())
}

/// Moves a site from its place to its next one.
pub(crate) fn moved(before: Option<&Site>, site: &Site) -> Vec<Write> {
    indexes::replaced(QUEUE, before.and_then(row), row(site))
}

/// A site's place in the queue.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) site: DnsName,
    key: Vec<u8>,
}

impl Place {
    /// Takes the place away, unless it is the one of the site as it is.
    pub(crate) fn remove_unless_of(self, site: &Site) -> Option<Write> {
        (row(site).as_ref() != Some(&self.key)).then(|| Write::delete(QUEUE, self.key))
    }
}

/// At most `limit` sites that are due at `now` and wanted: in each lane those that wait longest, and of the lanes as many as
/// it is their turn.
pub(crate) fn due(
    storage: &dyn Storage,
    now: Timestamp,
    limit: usize,
    turns: &mut Turns,
    is_wanted: impl Fn(&DnsName) -> bool,
) -> anyhow::Result<Vec<Place>> {
    let mut waiting = BTreeMap::new();
    for lane in Lane::ALL {
        waiting.insert(lane, VecDeque::from(due_in(storage, lane, now, limit, &is_wanted)?));
    }
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(lane) = turns.next(|lane| waiting.get(&lane).is_some_and(|lane| !lane.is_empty())) else { break };
        found.extend(waiting.get_mut(&lane).and_then(VecDeque::pop_front));
    }
    Ok(found)
}

fn due_in(
    storage: &dyn Storage,
    lane: Lane,
    now: Timestamp,
    limit: usize,
    is_wanted: impl Fn(&DnsName) -> bool,
) -> anyhow::Result<Vec<Place>> {
    let (mut found, mut after) = (Vec::new(), prefix(lane).to_vec());
    while found.len() < limit {
        let rows = storage.scan(QUEUE, Some(&after), ROWS_AT_ONCE)?;
        let Some((last, _)) = rows.last() else { break };
        after = last.clone();
        for (key, _) in rows {
            let Some((instant, name)) = key.strip_prefix(&prefix(lane)).and_then(|rest| rest.split_first_chunk())
            else {
                return Ok(found);
            };
            if u64::from_be_bytes(*instant) > milliseconds(now) {
                return Ok(found);
            }
            let name = std::str::from_utf8(name).ok().and_then(|name| name.parse::<DnsName>().ok());
            let name = name.filter(&is_wanted);
            found.extend(name.map(|site| Place { site, key }));
            if found.len() >= limit {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// Earlier releases had three lanes, with the numbers 1 to 3 for what is urgent, what was asked for, and what has its time.
fn prefix(lane: Lane) -> [u8; 1] {
    [match lane {
        Lane::Incident => 1,
        Lane::OnDemand => 2,
        Lane::Renewal => 3,
        Lane::Expiring => 4,
        Lane::NewSite => 5,
        Lane::Backfill => 6,
    }]
}

/// Rounded up: a site whose row says so is due.
fn milliseconds(instant: Timestamp) -> u64 {
    let whole = instant.as_millisecond();
    let is_beyond = instant.subsec_nanosecond().rem_euclid(1_000_000) > 0;
    (whole + i64::from(is_beyond)).try_into().unwrap_or(0)
}

/// The table of rows; their values are empty.
const QUEUE: Table = Table::new("queue");

const ROWS_AT_ONCE: usize = 200;
