//! The queue of sites by what goes before what and when: rows that are written with the site, in one transaction.

use certseal_issuance::{Due, Lane, Site};
use certseal_store::{Storage, Table, Write};
use certseal_wire::DnsName;
use jiff::Timestamp;

/// The site's row: lane, instant in milliseconds, name. A site that is due at once stands where it was written.
fn row(site: &Site) -> Option<Vec<u8>> {
    let Due { lane, at } = site.due()?;
    let at = at.or(site.written_at).unwrap_or(Timestamp::UNIX_EPOCH);
    Some([&prefix(lane), &milliseconds(at).to_be_bytes()[..], site.site.as_str().as_bytes()].concat())
}

/// Moves a site from its place to its next one.
pub(crate) fn moved(before: Option<&Site>, site: &Site) -> Vec<Write> {
    let (old, new) = (before.and_then(row), row(site));
    if old == new {
        return Vec::new();
    }
    let old = old.map(|key| Write::delete(QUEUE, key));
    let new = new.map(|key| Write::put(QUEUE, key, 1, Vec::new()));
    old.into_iter().chain(new).collect()
}

/// The names of at most `limit` sites that are due at `now` and wanted, the most urgent lane first, and in a lane those
/// that wait longest.
pub(crate) fn due(
    storage: &dyn Storage,
    now: Timestamp,
    limit: usize,
    is_wanted: impl Fn(&DnsName) -> bool,
) -> anyhow::Result<Vec<DnsName>> {
    let mut found = Vec::new();
    for lane in Lane::ALL {
        let mut after = prefix(lane).to_vec();
        'lane: while found.len() < limit {
            let rows = storage.scan(QUEUE, Some(&after), ROWS_AT_ONCE)?;
            let Some((last, _)) = rows.last() else { break };
            let next = last.clone();
            for (key, _) in &rows {
                let Some((instant, name)) = key.strip_prefix(&prefix(lane)).and_then(|rest| rest.split_first_chunk())
                else {
                    break 'lane;
                };
                if u64::from_be_bytes(*instant) > milliseconds(now) {
                    break 'lane;
                }
                let name = std::str::from_utf8(name).ok().and_then(|name| name.parse::<DnsName>().ok());
                found.extend(name.filter(&is_wanted));
                if found.len() >= limit {
                    break 'lane;
                }
            }
            after = next;
        }
    }
    Ok(found)
}

fn prefix(lane: Lane) -> [u8; 1] {
    [match lane {
        Lane::Incident => 1,
        Lane::Asked => 2,
        Lane::Planned => 3,
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
