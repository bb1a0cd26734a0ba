//! A backup checked from its first line to its last, in one pass and in bounded memory.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use certseal_client::Progress;
use certseal_seal::sha256;
use certseal_wire::{AuditMark, BackupRecord, Digest};
use serde::Serialize;

use super::{
    damage::Damage,
    format::{Head, Line, MAX_AGAIN, Manifest, Reader, VERSION},
};
use crate::{
    audit::chain::{Chain, NEW_LOG},
    error::Error,
};

/// The contents of a sound backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Its first line.
    #[serde(flatten)]
    pub head: Head,
    /// Records of the tables as they were copied first.
    pub records: BTreeMap<String, u64>,
    /// Records that were copied once more, since they changed meanwhile.
    pub again: u64,
    /// Entries of the audit log.
    pub audit_entries: u64,
    /// The mark of the newest of them.
    pub newest: AuditMark,
    /// Lines, the manifest with them.
    pub lines: u64,
    /// Its size.
    pub octets: u64,
    /// SHA-256 of all before the manifest.
    pub sha256: Digest,
    /// The identities of those: their first copies do not count.
    #[serde(skip)]
    pub(super) newer: HashSet<Digest>,
}

/// The identity of a record among all others: a digest of its table and key.
pub(super) fn identity(record: &BackupRecord) -> Digest {
    // No table has a zero octet in its name, so no two can be confused.
    sha256(&[record.table.as_bytes(), &[0], record.key.as_bytes()].concat())
}

/// Reads a whole backup, and finds whatever is damaged or missing.
///
/// # Errors
/// When the file cannot be read, or is no sound backup; with the number of the line.
pub fn verify(path: &Path, progress: &dyn Progress) -> Result<Contents, Error> {
    let open = || -> io::Result<(File, u64)> {
        let file = File::open(path)?;
        let octets = file.metadata()?.len();
        Ok((file, octets))
    };
    let (file, octets) = open().map_err(Error::file("open", path))?;
    progress.begin("checking octets", octets);
    check(BufReader::new(file), progress).map_err(Error::within(path.display()))
}

/// Checks the lines of a backup.
pub(super) fn check(input: impl BufRead, progress: &dyn Progress) -> Result<Contents, Error> {
    let mut reader = Reader::new(input);
    let head = match reader.next_line()? {
        Some(Line::Head(head)) if head.certseal_backup == VERSION => head,
        other => {
            let damage = match other {
                Some(Line::Head(head)) => Damage::Version { expected: VERSION, found: head.certseal_backup },
                Some(_) => Damage::NoHead,
                None => Damage::Empty,
            };
            return Err(Damage::in_line(1)(damage).into());
        }
    };
    let mut tally = Tally::default();
    let mut told = 0;
    let manifest = loop {
        let Some(line) = reader.next_line()? else {
            return Err(Damage::in_line(reader.number() + 1)(Damage::NoManifest).into());
        };
        progress.advance(reader.octets() - told);
        told = reader.octets();
        if let Line::Manifest(manifest) = line {
            break manifest;
        }
        tally.add(line, &head).map_err(Damage::in_line(reader.number()))?;
    };
    let number = reader.number();
    let digest = reader.digest();
    tally.compare(&manifest, number - 1, digest).map_err(Damage::in_line(number))?;
    if reader.next_line()?.is_some() {
        return Err(Damage::in_line(number + 1)(Damage::NoEnd).into());
    }
    let newest = tally.end(&head).map_err(Damage::in_line(number))?;
    let Tally { records, newer, .. } = tally;
    Ok(Contents {
        head,
        records,
        again: manifest.again,
        audit_entries: manifest.audit_entries,
        newest,
        lines: number,
        octets: reader.octets(),
        sha256: digest,
        newer,
    })
}

/// The lines that came so far.
#[derive(Default)]
struct Tally {
    /// Before the line `again`.
    records: BTreeMap<String, u64>,
    /// The table and the key that came last before that line.
    last: Option<(String, String)>,
    /// Whether that line came.
    is_again: bool,
    /// After it.
    newer: HashSet<Digest>,
    audit: Option<Chain>,
}

impl Tally {
    fn add(&mut self, line: Line, head: &Head) -> Result<(), Damage> {
        let misplaced = |expected, found| Err(Damage::OutOfPlace { expected, found });
        match line {
            Line::Record(_) if self.audit.is_some() => misplaced("an entry of the audit log", "a record"),
            Line::Record(record) if self.is_again => self.add_again(&record),
            Line::Record(record) => self.add_first(record),
            Line::Again(_) if self.is_again => misplaced("a line `again` once", "another one"),
            Line::Again(expected) => {
                let found = self.records.values().sum();
                Damage::compare(|| "records before this line".to_owned(), expected, found)?;
                self.is_again = true;
                Ok(())
            }
            Line::AuditAfter(_) if !self.is_again => Err(Damage::NoAgain),
            Line::AuditAfter(_) if self.audit.is_some() => misplaced("one audit log", "another one"),
            Line::AuditAfter(start) => {
                if start.number == 0 && start != NEW_LOG {
                    return Err(Damage::NoBeginning);
                }
                let mut chain = Chain::after(start);
                // A log whose entries moved into files meanwhile begins later.
                if head.audit.number >= start.number {
                    chain.expect("the head of the backup", head.audit)?;
                }
                self.audit = Some(chain);
                Ok(())
            }
            Line::Entry(entry) => match &mut self.audit {
                Some(chain) => Ok(chain.push(&entry)?),
                None => misplaced("where the audit log begins", "an entry of it"),
            },
            Line::Head(_) => misplaced("one head", "another one"),
            // The caller ends with it.
            Line::Manifest(_) => Ok(()),
        }
    }

    /// Tables stand together, and their keys ascend: so no record comes twice, and none has to be remembered for that.
    fn add_first(&mut self, record: BackupRecord) -> Result<(), Damage> {
        let BackupRecord { table, key, .. } = record;
        match &self.last {
            Some((last, before)) if *last == table && *before >= key => {
                return Err(Damage::Key { table, before: before.clone(), found: key });
            }
            Some((last, _)) if *last == table => {}
            _ if self.records.contains_key(&table) => return Err(Damage::Table(table)),
            _ => {}
        }
        *self.records.entry(table.clone()).or_default() += 1;
        self.last = Some((table, key));
        Ok(())
    }

    fn add_again(&mut self, record: &BackupRecord) -> Result<(), Damage> {
        if !self.newer.insert(identity(record)) {
            return Err(Damage::Twice { table: record.table.clone(), key: record.key.clone() });
        }
        if self.newer.len() as u64 > MAX_AGAIN { Err(Damage::TooMany(MAX_AGAIN)) } else { Ok(()) }
    }

    /// Compares what came with what the manifest says.
    fn compare(&self, manifest: &Manifest, lines: u64, digest: Digest) -> Result<(), Damage> {
        let Manifest { records, again, audit_entries, lines: expected_lines, sha256 } = manifest;
        let entries = self.audit.as_ref().ok_or(Damage::NoLog)?.entries();
        Damage::compare_tables(records, &self.records)?;
        for (what, expected, found) in [
            ("records after the line `again`", *again, self.newer.len() as u64),
            ("entries of the audit log", *audit_entries, entries),
            ("lines before the manifest", *expected_lines, lines),
        ] {
            Damage::compare(|| what.to_owned(), expected, found)?;
        }
        if *sha256 == digest { Ok(()) } else { Err(Damage::Digest { expected: *sha256, found: digest }) }
    }

    /// The mark of the newest entry.
    fn end(&self, head: &Head) -> Result<AuditMark, Damage> {
        match &self.audit {
            Some(chain) => Ok(chain.finish()?),
            None => Ok(head.audit),
        }
    }
}

#[cfg(test)]
mod tests {
    use certseal_wire::causes;

    use super::*;
    use crate::backup::format::tests::{backup, record};

    fn refused(bytes: &[u8]) -> String {
        causes(&check(bytes, &()).unwrap_err())
    }

    /// The sound backup with another line in a place.
    fn with_line(number: usize, line: &str) -> Vec<u8> {
        let text = String::from_utf8(backup()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines[number - 1] = line;
        lines.join("\n").into_bytes().into_iter().chain(*b"\n").collect()
    }

    #[test]
    fn a_sound_backup_is_found_with_its_counts_and_the_lines_that_count() {
        let found = check(backup().as_slice(), &()).unwrap();
        assert_eq!(found.records, BTreeMap::from([("bundles".to_owned(), 3), ("routes".to_owned(), 1)]));
        assert_eq!((found.again, found.audit_entries, found.lines), (2, 2, 12));
        assert_eq!((found.newest.number, found.octets), (2, backup().len() as u64));
        let newer = ["61", "64"].map(|key| identity(&record("bundles", key, 9)));
        assert_eq!(found.newer, HashSet::from(newer));
    }

    #[test]
    fn a_backup_that_was_cut_off_is_refused_wherever_that_is() {
        let bytes = backup();
        for end in 0..bytes.len() {
            assert!(check(&bytes[..end], &()).is_err(), "{end} of {} octets", bytes.len());
        }
        let without_manifest = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        let error = refused(&bytes[..without_manifest]);
        assert!(error.contains("line 12: expected a manifest, but the file ends"), "{error}");
        let error = refused(&bytes[..without_manifest + 9]);
        assert!(error.contains("line 12") && error.contains("cut off"), "{error}");
    }

    #[test]
    fn a_flipped_bit_is_found_in_whatever_octet_it_is() {
        let sound = backup();
        for index in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[index] ^= 1;
            assert!(check(bytes.as_slice(), &()).is_err(), "octet {index}");
        }
    }

    #[test]
    fn wrong_counts_are_named_with_what_was_expected() {
        let text = String::from_utf8(backup()).unwrap();
        for (from, to, said) in [
            (r#""bundles":3"#, r#""bundles":4"#, "expected 4 records of table bundles, got 3"),
            (r#""routes":1"#, r#""edges":1"#, "expected 1 records of table edges, got 0"),
            (r#""again":2,"#, r#""again":3,"#, "expected 3 records after the line `again`, got 2"),
            (r#""audit_entries":2"#, r#""audit_entries":3"#, "expected 3 entries of the audit log, got 2"),
            (r#""lines":11"#, r#""lines":10"#, "expected 10 lines before the manifest, got 11"),
        ] {
            let error = refused(text.replace(from, to).as_bytes());
            assert!(error.contains("line 12") && error.contains(said), "{error}");
        }
    }

    #[test]
    fn damage_is_named_with_its_line() {
        for (number, line, said) in [
            (1, r#"{"again":1}"#, "line 1: expected the head"),
            (3, r#"{"table":"bundles","key":"61","revision":1,"value":""}"#, "line 3: expected a key"),
            (4, r#"{"table":"bundles","key":"63","revision":1}"#, "line 4: expected a record"),
            (
                4,
                r#"{"table":"edges","key":"63","revision":1,"value":""}"#,
                "line 12: expected 3 records of table bundles, got 2",
            ),
            (
                5,
                r#"{"table":"bundles","key":"64","revision":1,"value":""}"#,
                "line 12: expected 3 records of table bundles, got 4",
            ),
            (6, r#"{"again":3}"#, "line 6: expected 3 records before this line, got 4"),
            (
                8,
                r#"{"table":"bundles","key":"61","revision":3,"value":""}"#,
                "line 8: expected key 61 of table bundles once",
            ),
            (10, r#"{"again":4}"#, "line 10: expected a line `again` once"),
            (11, "", "line 11: expected a line of a certseal backup"),
        ] {
            let error = refused(&with_line(number, line));
            assert!(error.contains(said), "{number}: {error}");
        }
        let twice = [backup(), backup()].concat();
        assert!(refused(&twice).contains("line 13: expected the file's end"), "{}", refused(&twice));
    }

    #[test]
    fn an_altered_entry_of_the_audit_log_is_found_as_such() {
        let text = String::from_utf8(backup()).unwrap();
        let error = refused(text.replace(r#""entry":"b""#, r#""entry":"B""#).as_bytes());
        assert!(error.contains("line 11: entry 2 does not fit the chain"), "{error}");
    }
}
