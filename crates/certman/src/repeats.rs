//! Answers to calls that callers may repeat: the header Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07).
//!
//! A call whose answer got lost is made again with the same key, and has the same answer without being made again: by then
//! somebody else may have changed what it would put back. One that broke off in the middle is made again; one that is still being
//! made is not.

use anyhow::Context;
use certseal_seal::sha256;
use certseal_store::{Expect, Storage, StoreError, Table, Write};
use certseal_wire::{Caller, ChangesReport, Digest};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A call with a key.
pub(crate) struct Repeatable {
    /// Of the caller.
    caller: Digest,
    /// Of caller and key.
    id: Digest,
    /// Of the body.
    body: Digest,
}

/// What is known of a call that is to be made.
pub(crate) enum Before {
    /// It is new. From now on it is under way, until its answer is kept or it is given up.
    Nothing,
    /// It is being made.
    UnderWay,
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
        let caller = caller.to_string();
        Self {
            caller: sha256(caller.as_bytes()),
            id: sha256(format!("{caller}\n{key}").as_bytes()),
            body: sha256(body),
        }
    }

    /// Begins the call, unless it was made, or somebody makes it now.
    pub(crate) fn begin(&self, storage: &dyn Storage, now: Timestamp) -> anyhow::Result<Before> {
        let id = &self.id.0[..];
        loop {
            if let Some(record) = storage.get(ANSWERS, id)? {
                let kept: Kept = serde_json::from_slice(&record.value).context("the answer to an earlier call")?;
                return Ok(if kept.body == self.body { Before::Answer(kept.report) } else { Before::Another });
            }
            let under_way = storage.get(UNDER_WAY, id)?;
            let expect = match &under_way {
                None => Expect::Absent,
                // Its process died.
                Some(record) if record.expires_at.is_none_or(|at| at <= seconds(now)) => {
                    Expect::Version(record.version)
                }
                Some(record) if record.value == self.body.0 => return Ok(Before::UnderWay),
                Some(_) => return Ok(Before::Another),
            };
            let version = under_way.map_or(1, |record| record.version + 1);
            let begun = Write::put(UNDER_WAY, id, version, &self.body.0[..]).expect(expect);
            let begun = begun.expires_at(seconds(now) + MOST_SECONDS);
            // The one before may have had its answer since.
            let unanswered = Write::require(ANSWERS, id, Expect::Absent);
            match storage.commit(vec![begun, unanswered].into()) {
                Ok(_) => return Ok(Before::Nothing),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the call without an answer: it can be made again.
    pub(crate) fn give_up(&self, storage: &dyn Storage) -> anyhow::Result<()> {
        storage.commit(Write::purge(UNDER_WAY, &self.id.0[..]).into())?;
        Ok(())
    }

    /// Ends the call, and keeps its answer for a day. Of the caller's earlier answers the oldest go, if all together are too many.
    pub(crate) fn keep(&self, storage: &dyn Storage, mut report: ChangesReport, now: Timestamp) -> anyhow::Result<()> {
        report.results.iter_mut().for_each(|result| result.site = None);
        let mut kept = serde_json::to_vec(&Kept { body: self.body, report: report.clone() })?;
        if kept.len() > MOST_OCTETS {
            // What became of each change is kept in any case; the reasons were said once.
            report.results.iter_mut().for_each(|result| result.problem = None);
            kept = serde_json::to_vec(&Kept { body: self.body, report })?;
        }
        self.make_room(storage, kept.len())?;
        storage.commit(self.kept(kept, now).into())?;
        Ok(())
    }

    fn kept(&self, answer: Vec<u8>, now: Timestamp) -> Vec<Write> {
        let by_time = [&milliseconds(now).to_be_bytes()[..], &self.id.0[..]].concat();
        let by_caller = [&self.caller.0[..], &by_time].concat();
        let octets = (answer.len() as u64).to_be_bytes();
        vec![
            Write::put(ANSWERS, &self.id.0[..], 1, answer),
            Write::put(BY_TIME, by_time, 1, &self.caller.0[..]),
            Write::put(BY_CALLER, by_caller, 1, &octets[..]),
            Write::purge(UNDER_WAY, &self.id.0[..]),
        ]
    }

    /// Forgets the caller's oldest answers, until there is room for one more of so many octets.
    fn make_room(&self, storage: &dyn Storage, octets: usize) -> anyhow::Result<()> {
        // Calls of one caller that end at the same moment may leave some more.
        let mut rows = storage.scan_prefix(BY_CALLER, &self.caller.0[..], 2 * MOST_KEPT)?;
        let size = |octets: &[u8]| octets.try_into().map_or(0, u64::from_be_bytes);
        let (mut count, mut all) = (rows.len() + 1, octets as u64);
        all += rows.iter().map(|(_, record)| size(&record.value)).sum::<u64>();
        let too_many = rows.iter().position(|(_, record)| {
            let fits = count <= MOST_KEPT && all <= MOST_KEPT_OCTETS;
            count -= 1;
            all -= size(&record.value);
            fits
        });
        rows.truncate(too_many.unwrap_or(rows.len()));
        for rows in rows.chunks(AT_ONCE) {
            let gone = rows.iter().flat_map(|(key, _)| forgotten(&self.caller, &key[self.caller.0.len()..]));
            storage.commit(gone.collect::<Vec<_>>().into())?;
        }
        Ok(())
    }
}

/// The writes that forget the answer of a caller with this key by the time.
fn forgotten(caller: &Digest, by_time: &[u8]) -> Vec<Write> {
    let id = by_time.get(INSTANT..).unwrap_or_default();
    let by_caller = [&caller.0[..], by_time].concat();
    vec![Write::purge(ANSWERS, id), Write::purge(BY_TIME, by_time), Write::purge(BY_CALLER, by_caller)]
}

/// Forgets the calls that were under way in a process that is gone: nobody else has this storage.
pub(crate) fn forget_begun(storage: &dyn Storage) -> anyhow::Result<()> {
    loop {
        let page = storage.scan(UNDER_WAY, None, AT_ONCE)?;
        if page.is_empty() {
            return Ok(());
        }
        storage.commit(page.into_iter().map(|(id, _)| Write::purge(UNDER_WAY, id)).collect::<Vec<_>>().into())?;
    }
}

/// Forgets answers that are older than a day, and calls whose processes died.
pub(crate) fn forget_old(storage: &dyn Storage, now: Timestamp) -> anyhow::Result<()> {
    loop {
        let died = storage.expired(UNDER_WAY, seconds(now), AT_ONCE)?;
        if died.is_empty() {
            break;
        }
        let gone =
            died.into_iter().map(|(id, record)| Write::purge(UNDER_WAY, id).expect(Expect::Version(record.version)));
        match storage.commit(gone.collect::<Vec<_>>().into()) {
            Ok(_) => {}
            // One of them is made again; the others go next time.
            Err(StoreError::Conflict { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let Ok(end) = now.checked_sub(KEPT) else { return Ok(()) };
    loop {
        let page = storage.scan(BY_TIME, None, AT_ONCE)?;
        let old = page.into_iter().map_while(|(key, record)| {
            let instant: &[u8; INSTANT] = key.first_chunk()?;
            // One that an earlier release kept is in no list of its caller.
            let caller = Digest(record.value.try_into().unwrap_or_default());
            (u64::from_be_bytes(*instant) < milliseconds(end)).then(|| forgotten(&caller, &key))
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

/// In Unix seconds.
fn seconds(instant: Timestamp) -> u64 {
    instant.as_second().try_into().unwrap_or(0)
}

/// Octets of an instant in a key.
const INSTANT: usize = 8;
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Octets of an answer with its reasons: without them one has 22 for each of 10,000 changes, and a value of the store 256 KiB.
const MOST_OCTETS: usize = 230 * 1024;
/// Answers of one caller, and their octets.
const MOST_KEPT: usize = 1000;
const MOST_KEPT_OCTETS: u64 = 32 * 1024 * 1024;
/// A call that is under way for so long is one whose process died: the largest call takes a part of this.
const MOST_SECONDS: u64 = 300;
/// Answers forgotten at one time, each with three writes.
const AT_ONCE: usize = 300;

/// Answers by caller and key.
const ANSWERS: Table = Table::new("answers");
/// Their keys by when they were given.
const BY_TIME: Table = Table::new("answers by time");
/// Their sizes by caller, and by when they were given.
const BY_CALLER: Table = Table::new("answers by caller");
/// Calls that are being made.
const UNDER_WAY: Table = Table::new("calls under way");

#[cfg(test)]
mod tests {
    use certseal_store::{SledOptions, SledStore};
    use certseal_wire::{ChangeKind, ChangeResult, Problem, ProblemKind, Role};

    use super::*;

    fn call(caller: &str, key: &str, body: &[u8]) -> Repeatable {
        Repeatable::new(&Caller { role: Role::Platform, name: caller.to_owned() }, key, body)
    }

    fn storage() -> (tempfile::TempDir, SledStore) {
        let dir = tempfile::tempdir().unwrap();
        let storage = SledStore::open(dir.path(), SledOptions::default()).unwrap();
        (dir, storage)
    }

    fn start() -> Timestamp {
        "2026-11-01T00:00:00Z".parse().unwrap()
    }

    /// An answer of so many octets and some more.
    fn answer(octets: usize) -> ChangesReport {
        let problem = Some(Problem::new(ProblemKind::Malformed, "x".repeat(octets)));
        ChangesReport { results: vec![ChangeResult { site: None, result: ChangeKind::Refused, problem }] }
    }

    #[test]
    fn a_call_is_made_once_while_it_is_under_way_and_again_after_it_broke_off() {
        let ((_dir, storage), now) = (storage(), start());
        let first = call("shops", "key", b"body");
        let begin = |call: &Repeatable, now| call.begin(&storage, now).unwrap();
        assert!(matches!(begin(&first, now), Before::Nothing));
        assert!(matches!(begin(&first, now), Before::UnderWay));
        assert!(matches!(begin(&call("shops", "key", b"other"), now), Before::Another));
        assert!(matches!(begin(&call("blogs", "key", b"body"), now), Before::Nothing));
        first.give_up(&storage).unwrap();
        assert!(matches!(begin(&first, now), Before::Nothing), "it failed");
        let died = now + SignedDuration::from_secs(300);
        assert!(matches!(begin(&first, died - SignedDuration::from_secs(1)), Before::UnderWay));
        assert!(matches!(begin(&first, died), Before::Nothing), "its process died");
        forget_begun(&storage).unwrap();
        assert!(matches!(begin(&first, died), Before::Nothing), "the only process died");
        first.keep(&storage, answer(1), died).unwrap();
        assert!(matches!(begin(&first, died), Before::Answer(_)));
        let left = |storage: &SledStore| storage.scan(UNDER_WAY, None, 9).unwrap().len();
        assert_eq!(left(&storage), 0);
        begin(&call("shops", "another", b"body"), died);
        forget_old(&storage, died + SignedDuration::from_secs(299)).unwrap();
        assert_eq!(left(&storage), 1);
        forget_old(&storage, died + SignedDuration::from_secs(300)).unwrap();
        assert_eq!(left(&storage), 0);
    }

    #[test]
    fn of_one_callers_answers_the_oldest_go_when_there_are_too_many() {
        let ((_dir, storage), now) = (storage(), start());
        let at = |number: usize| now + SignedDuration::from_millis(number as i64);
        let is_kept = |caller: &str, number: usize| {
            let call = call(caller, &number.to_string(), b"body");
            let before = call.begin(&storage, now).unwrap();
            call.give_up(&storage).unwrap();
            matches!(before, Before::Answer(_))
        };
        let keep = |caller: &str, number: usize, octets: usize| {
            call(caller, &number.to_string(), b"body").keep(&storage, answer(octets), at(number)).unwrap();
        };
        // As if they had been kept one by one.
        let fill = |caller: &str, count: usize, octets: usize| {
            let numbers: Vec<usize> = (0..count).collect();
            for numbers in numbers.chunks(15) {
                let kept = |number: &usize| {
                    let answer = Kept { body: sha256(b"body"), report: answer(octets) };
                    let answer = serde_json::to_vec(&answer).unwrap();
                    call(caller, &number.to_string(), b"body").kept(answer, at(*number))
                };
                storage.commit(numbers.iter().flat_map(kept).collect::<Vec<_>>().into()).unwrap();
            }
        };
        keep("blogs", 0, 1);
        fill("shops", MOST_KEPT, 1);
        assert!(is_kept("shops", 0));
        keep("shops", MOST_KEPT, 1);
        assert!(!is_kept("shops", 0) && is_kept("shops", 1) && is_kept("shops", MOST_KEPT));
        assert!(is_kept("blogs", 0), "another caller's stay");
        // Few that are large.
        let large = 200 * 1024;
        let many = MOST_KEPT_OCTETS as usize / large;
        fill("files", many, large);
        assert!(is_kept("files", 0));
        keep("files", many, large);
        assert!(!is_kept("files", 0) && is_kept("files", 1) && is_kept("files", many));
        forget_old(&storage, at(MOST_KEPT) + KEPT + SignedDuration::from_secs(1)).unwrap();
        for table in [ANSWERS, BY_TIME, BY_CALLER] {
            assert!(storage.scan(table, None, 9).unwrap().is_empty(), "{table}");
        }
    }

    /// The largest answer that a call can have.
    #[test]
    fn an_answer_is_kept_for_its_caller_and_body_whatever_its_length_and_for_a_day() {
        let ((_dir, storage), now) = (storage(), start());
        let result = |number: usize| {
            let problem = Problem::new(ProblemKind::Malformed, "x".repeat(500));
            ChangeResult { site: None, result: ChangeKind::Unchanged, problem: (number < 1000).then_some(problem) }
        };
        let report = ChangesReport { results: (0..10_000).map(result).collect() };
        let made = call("shops", "key", b"body");
        made.keep(&storage, report, now).unwrap();
        let begin = |call: &Repeatable| call.begin(&storage, now).unwrap();
        let Before::Answer(kept) = begin(&made) else { panic!("it is not kept") };
        assert!(kept.results.len() == 10_000 && kept.results.iter().all(|it| it.result == ChangeKind::Unchanged));
        assert!(matches!(begin(&call("shops", "key", b"other")), Before::Another));
        assert!(matches!(begin(&call("blogs", "key", b"body")), Before::Nothing));

        forget_old(&storage, now + KEPT).unwrap();
        assert!(matches!(begin(&made), Before::Answer(_)));
        forget_old(&storage, now + KEPT + SignedDuration::from_secs(1)).unwrap();
        assert!(matches!(begin(&made), Before::Nothing));
    }
}
