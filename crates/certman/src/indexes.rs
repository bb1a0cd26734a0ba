//! Lists of sites other than by name: rows that are written with the site, in one transaction.

use certseal_issuance::{Site, Stage};
use certseal_store::{Storage, Table, Write};
use certseal_wire::DnsName;
use jiff::Timestamp;

/// Moves a site's rows to where they belong.
pub(crate) fn moved(before: Option<&Site>, site: &Site) -> Vec<Write> {
    let mut writes = replaced(STAGES, before.and_then(stage_row), stage_row(site));
    writes.extend(replaced(EXPIRING, before.and_then(expiring_row), expiring_row(site)));
    writes
}

/// The sites with an order at a stage, by name, after the name `after`.
pub(crate) fn at_stage(
    storage: &dyn Storage,
    stage: Stage,
    after: Option<&DnsName>,
    limit: usize,
) -> anyhow::Result<Vec<DnsName>> {
    let prefix = [stage_prefix(stage)];
    let start = [&prefix[..], after.map(|name| name.as_str().as_bytes()).unwrap_or_default()].concat();
    let rows = storage.scan(STAGES, Some(&start), limit)?;
    let names = rows.iter().map_while(|(key, _)| key.strip_prefix(&prefix)).filter_map(name);
    Ok(names.collect())
}

/// The sites whose certificates are near their end at `now`, those that are nearest first, after the place `after`. And the place from
/// which to go on, if there may be more.
pub(crate) fn expiring(
    storage: &dyn Storage,
    now: Timestamp,
    after: Option<&[u8]>,
    limit: usize,
) -> anyhow::Result<(Vec<DnsName>, Option<Vec<u8>>)> {
    let rows = storage.scan(EXPIRING, after, limit)?;
    let due = rows.iter().map_while(|(key, _)| {
        let (instant, name) = key.split_first_chunk()?;
        (u64::from_be_bytes(*instant) <= milliseconds(now)).then_some((key, name))
    });
    let due: Vec<_> = due.collect();
    let next = due.last().filter(|_| due.len() == limit).map(|(key, _)| (*key).clone());
    Ok((due.into_iter().filter_map(|(_, octets)| name(octets)).collect(), next))
}

/// Puts a row in another one's place; rows have keys only.
pub(crate) fn replaced(table: Table, old: Option<Vec<u8>>, new: Option<Vec<u8>>) -> Vec<Write> {
    if old == new {
        return Vec::new();
    }
    let old = old.map(|key| Write::delete(table, key));
    let new = new.map(|key| Write::put(table, key, 1, Vec::new()));
    old.into_iter().chain(new).collect()
}

fn stage_row(site: &Site) -> Option<Vec<u8>> {
    Some([&[stage_prefix(site.stage()?)], site.site.as_str().as_bytes()].concat())
}

fn expiring_row(site: &Site) -> Option<Vec<u8>> {
    Some([&milliseconds(site.expiring_at()?).to_be_bytes()[..], site.site.as_str().as_bytes()].concat())
}

fn stage_prefix(stage: Stage) -> u8 {
    match stage {
        Stage::Authorize => b'a',
        Stage::Challenge => b'c',
        Stage::Retrieval => b'r',
        Stage::DeadLetter => b'd',
    }
}

fn name(octets: &[u8]) -> Option<DnsName> {
    std::str::from_utf8(octets).ok()?.parse().ok()
}

fn milliseconds(instant: Timestamp) -> u64 {
    instant.as_millisecond().try_into().unwrap_or(0)
}

/// Sites by the stages of their orders.
const STAGES: Table = Table::new("stages");
/// Sites by when their certificates are near their end.
const EXPIRING: Table = Table::new("expiring");
