//! Answers to calls that callers may repeat: the header Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07).
//!
//! A call whose answer got lost is made again with the same key, and has the same answer without being made again: by then
//! somebody else may have changed what it would put back. One that broke off in the middle is made again.

use anyhow::Context;
use certseal_seal::sha256;
use certseal_store::{Storage, Table, Write};
use certseal_wire::{Caller, ChangesReport, Digest};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A call with a key.
pub(crate) struct Repeatable {
    /// Of caller and key.
    id: Digest,
    /// Of the body.
    body: Digest,
}

/// What is known of a call.
pub(crate) enum Before {
    /// It is new.
    Nothing,
    /// It was made with this answer, which names no sites: the body does.
    Answer(ChangesReport),
    /// Another one was made with its key.
    Another,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    body: Digest,
    report: ChangesReport,
}

impl Repeatable {
    pub(crate) fn new(caller: &Caller, key: &str, body: &[u8]) -> Self {
        Self { id: sha256(format!("{caller}\n{key}").as_bytes()), body: sha256(body) }
    }

    pub(crate) fn before(&self, storage: &dyn Storage) -> anyhow::Result<Before> {
        let Some(record) = storage.get(ANSWERS, &self.id.0[..])? else { return Ok(Before::Nothing) };
        let kept: Kept = serde_json::from_slice(&record.value).context("the answer to an earlier call")?;
        Ok(if kept.body == self.body { Before::Answer(kept.report) } else { Before::Another })
    }

    /// Keeps the answer for a day.
    pub(crate) fn keep(&self, storage: &dyn Storage, mut report: ChangesReport, now: Timestamp) -> anyhow::Result<()> {
        report.results.iter_mut().for_each(|result| result.site = None);
        let mut kept = serde_json::to_vec(&Kept { body: self.body, report: report.clone() })?;
        if kept.len() > MOST_OCTETS {
            // What became of each change is kept in any case; the reasons were said once.
            report.results.iter_mut().for_each(|result| result.problem = None);
            kept = serde_json::to_vec(&Kept { body: self.body, report })?;
        }
        let by_time = [&milliseconds(now).to_be_bytes()[..], &self.id.0[..]].concat();
        let writes = vec![Write::put(ANSWERS, &self.id.0[..], 1, kept), Write::put(BY_TIME, by_time, 1, Vec::new())];
        storage.commit(writes.into())?;
        Ok(())
    }
}

/// Forgets answers that are older than a day.
pub(crate) fn forget_old(storage: &dyn Storage, now: Timestamp) -> anyhow::Result<()> {
    let Ok(end) = now.checked_sub(KEPT) else { return Ok(()) };
    loop {
        let page = storage.scan(BY_TIME, None, AT_ONCE)?;
        let old = page.into_iter().map_while(|(key, _)| {
            let (instant, id) = key.split_first_chunk()?;
            let gone = [Write::purge(ANSWERS, id), Write::purge(BY_TIME, key.clone())];
            (u64::from_be_bytes(*instant) < milliseconds(end)).then_some(gone)
        });
        let old: Vec<Write> = old.flatten().collect();
        if old.is_empty() {
            return Ok(());
        }
        storage.commit(old.into())?;
    }
}

fn milliseconds(instant: Timestamp) -> u64 {
    instant.as_millisecond().try_into().unwrap_or(0)
}

const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Octets of an answer with its reasons: without them one has 22 for each of 10,000 changes, and a value of the store 256 KiB.
const MOST_OCTETS: usize = 230 * 1024;
/// Answers forgotten at one time.
const AT_ONCE: usize = 500;

/// Answers by caller and key.
const ANSWERS: Table = Table::new("answers");
/// Their keys by when they were given.
const BY_TIME: Table = Table::new("answers by time");

#[cfg(test)]
mod tests {
    use certseal_store::{SledOptions, SledStore};
    use certseal_wire::{ChangeKind, ChangeResult, Problem, ProblemKind, Role};

    use super::*;

    /// The largest answer that a call can have.
    #[test]
    fn an_answer_is_kept_for_its_caller_and_body_whatever_its_length_and_for_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let storage = SledStore::open(dir.path(), SledOptions::default()).unwrap();
        let caller = |name: &str| Caller { role: Role::Platform, name: name.to_owned() };
        let result = |number: usize| {
            let problem = Problem::new(ProblemKind::Malformed, "x".repeat(500));
            ChangeResult { site: None, result: ChangeKind::Unchanged, problem: (number < 1000).then_some(problem) }
        };
        let report = ChangesReport { results: (0..10_000).map(result).collect() };
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let call = Repeatable::new(&caller("shops"), "key", b"body");
        call.keep(&storage, report, now).unwrap();
        let Before::Answer(kept) = call.before(&storage).unwrap() else { panic!("it is not kept") };
        assert!(kept.results.len() == 10_000 && kept.results.iter().all(|it| it.result == ChangeKind::Unchanged));
        let other_body = Repeatable::new(&caller("shops"), "key", b"other");
        assert!(matches!(other_body.before(&storage).unwrap(), Before::Another));
        let other_caller = Repeatable::new(&caller("blogs"), "key", b"body");
        assert!(matches!(other_caller.before(&storage).unwrap(), Before::Nothing));

        forget_old(&storage, now + KEPT).unwrap();
        assert!(matches!(call.before(&storage).unwrap(), Before::Answer(_)));
        forget_old(&storage, now + KEPT + SignedDuration::from_secs(1)).unwrap();
        assert!(matches!(call.before(&storage).unwrap(), Before::Nothing));
    }
}
