//! The lines of a backup.

use std::{collections::BTreeMap, io::BufRead};

use aws_lc_rs::digest::{Context, SHA256};
use certseal_wire::{AuditLine, AuditMark, BackupRecord, Cursor, Digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::damage::Damage;
use crate::{error::Error, lines::Lines, unfinished_file::UnfinishedFile};

/// The first line: the state that the backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The version of the format: 1.
    pub certseal_backup: u32,
    /// When it was begun, by certstore's clock.
    pub at: Timestamp,
    /// Where the feed was then.
    pub feed: Cursor,
    /// The newest entry of the audit log then.
    pub audit: AuditMark,
}

/// The line between the tables and what changed while they were copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Again {
    /// How many records are before it.
    pub(super) again: u64,
}

/// The line before the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditAfter {
    /// The mark before the first entry.
    pub(super) audit_after: AuditMark,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LastLine {
    pub(super) manifest: Manifest,
}

/// The counts and the digest that the file has to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Records before the line `again`, by table. No two of them have the same table and key.
    pub(super) records: BTreeMap<String, u64>,
    /// Records after it. Of these, too, no two have the same table and key; one that is also before it counts instead.
    pub(super) again: u64,
    /// Entries of the audit log.
    pub(super) audit_entries: u64,
    /// Lines before this one.
    pub(super) lines: u64,
    /// SHA-256 of all octets before this line.
    pub(super) sha256: Digest,
}

/// One line of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Head(Head),
    Record(BackupRecord),
    Again(u64),
    AuditAfter(AuditMark),
    Entry(AuditLine),
    Manifest(Manifest),
}

impl Line {
    /// Reads a line by the name of its first member.
    fn parse(line: &[u8]) -> Result<Self, Damage> {
        fn read<T: DeserializeOwned>(line: &[u8], what: &'static str) -> Result<T, Damage> {
            serde_json::from_slice(line).map_err(|source| Damage::Unparsable { what, source })
        }
        match first_member(line) {
            Some(b"table") => read(line, "a record").map(Self::Record),
            Some(b"number") => read(line, "an entry of the audit log").map(Self::Entry),
            Some(b"certseal_backup") => read(line, "the head of a backup").map(Self::Head),
            Some(b"again") => read(line, "the number of records so far").map(|Again { again }| Self::Again(again)),
            Some(b"audit_after") => {
                let read = read(line, "where the audit log begins");
                read.map(|AuditAfter { audit_after }| Self::AuditAfter(audit_after))
            }
            Some(b"manifest") => read(line, "a manifest").map(|LastLine { manifest }| Self::Manifest(manifest)),
            _ => Err(Damage::NoLine),
        }
    }
}

/// The name of the first member of a JSON object that was written without spaces.
fn first_member(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"{\"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    Some(&rest[..end])
}

/// Reads a backup line by line, and takes the digest of it on the way.
pub(super) struct Reader<R> {
    lines: Lines<R>,
    digest: Context,
    octets: u64,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { lines: Lines::new(input), digest: Context::new(&SHA256), octets: 0 }
    }

    /// The number of the line that was read last; the first is 1.
    pub(super) fn number(&self) -> u64 {
        self.lines.number()
    }

    /// The octets of all lines that were read.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// SHA-256 of all lines that were read, the manifest left out.
    pub(super) fn digest(&self) -> Digest {
        finished(self.digest.clone())
    }

    /// The next line; none at the end of the file.
    ///
    /// # Errors
    /// When it is no line of a backup; with its number.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, Error> {
        let number = self.lines.number() + 1;
        let Some(bytes) = self.lines.next_line()? else { return Ok(None) };
        let line = Line::parse(bytes).map_err(Damage::in_line(number))?;
        self.octets += bytes.len() as u64;
        if !matches!(line, Line::Manifest(_)) {
            self.digest.update(bytes);
        }
        Ok(Some(line))
    }
}

/// Puts a backup together line by line.
pub(super) struct Writer<W> {
    out: W,
    digest: Context,
    lines: u64,
    octets: u64,
}

/// Where the lines of a backup go.
pub(super) trait Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error>;
}

impl Sink for UnfinishedFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        UnfinishedFile::write(self, bytes)
    }
}

impl<W: Sink> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, digest: Context::new(&SHA256), lines: 0, octets: 0 }
    }

    pub(super) fn line(&mut self, line: &impl Serialize) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.digest.update(&bytes);
        self.lines += 1;
        self.octets += bytes.len() as u64;
        self.out.write(&bytes)
    }

    /// Ends with the manifest. Answers where it was written to, the octets, and the digest of all before the manifest.
    pub(super) fn end(
        mut self,
        records: BTreeMap<String, u64>,
        again: u64,
        audit_entries: u64,
    ) -> Result<(W, u64, Digest), Error> {
        let sha256 = finished(self.digest.clone());
        let manifest = Manifest { records, again, audit_entries, lines: self.lines, sha256 };
        self.line(&LastLine { manifest })?;
        Ok((self.out, self.octets, sha256))
    }
}

fn finished(digest: Context) -> Digest {
    let mut octets = [0; 32];
    octets.copy_from_slice(digest.finish().as_ref());
    Digest(octets)
}

/// The version of the format.
pub(super) const VERSION: u32 = 1;

/// The most records after the line `again`: the writer or reader of a backup has their keys in memory, some 100 octets
/// each.
pub(super) const MAX_AGAIN: u64 = 1_000_000;

#[cfg(test)]
pub(super) mod tests {
    use certseal_wire::{Base64, causes};

    use super::*;
    use crate::audit::chain::{NEW_LOG, tests::log};

    impl Sink for Vec<u8> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
            self.extend_from_slice(bytes);
            Ok(())
        }
    }

    pub(crate) fn record(table: &str, key: &str, revision: u64) -> BackupRecord {
        let (table, key) = (table.to_owned(), key.to_owned());
        BackupRecord { table, key, revision, value: Base64(vec![7; 40]), expires_at: None }
    }

    /// A sound backup: three bundles and a route, then one of the bundles again and a new one, and two entries.
    pub(crate) fn backup() -> Vec<u8> {
        let log = log(NEW_LOG, &["a", "b"]);
        let mut writer = Writer::new(Vec::<u8>::new());
        let feed = "00000000000000000000000000000007:40".parse().unwrap();
        let at = "2026-11-01T08:00:00Z".parse().unwrap();
        writer.line(&Head { certseal_backup: VERSION, at, feed, audit: log[0].mark }).unwrap();
        for (table, key) in [("bundles", "61"), ("bundles", "6162"), ("bundles", "63"), ("routes", "61")] {
            writer.line(&record(table, key, 1)).unwrap();
        }
        writer.line(&Again { again: 4 }).unwrap();
        for (key, revision) in [("61", 2), ("64", 1)] {
            writer.line(&record("bundles", key, revision)).unwrap();
        }
        writer.line(&AuditAfter { audit_after: NEW_LOG }).unwrap();
        log.iter().for_each(|line| writer.line(line).unwrap());
        let records = [("bundles".to_owned(), 3), ("routes".to_owned(), 1)].into();
        writer.end(records, 2, 2).unwrap().0
    }

    #[test]
    fn a_backup_is_what_the_documentation_shows() {
        let text = String::from_utf8(backup()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(
            r#"{"certseal_backup":1,"at":"2026-11-01T08:00:00Z","feed":"00000000000000000000000000000007:40","audit":{"number":1,"hash":""#
        ));
        assert!(lines[1].starts_with(r#"{"table":"bundles","key":"61","revision":1,"value":""#));
        assert_eq!(lines[5], r#"{"again":4}"#);
        assert!(lines[8].starts_with(r#"{"audit_after":{"number":0,"hash":"0000"#));
        assert!(lines[9].starts_with(r#"{"number":1,"hash":""#) && lines[9].ends_with(r#"","entry":"a"}"#));
        assert!(lines[11].starts_with(
            r#"{"manifest":{"records":{"bundles":3,"routes":1},"again":2,"audit_entries":2,"lines":11,"sha256":""#
        ));
        assert_eq!(lines.len(), 12);
    }

    #[test]
    fn lines_read_back_and_what_is_none_is_named_with_its_number() {
        let bytes = backup();
        let mut reader = Reader::new(bytes.as_slice());
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push(line);
        }
        assert_eq!((lines.len(), reader.octets()), (12, bytes.len() as u64));
        assert_eq!(lines[1], Line::Record(record("bundles", "61", 1)));
        let Some(Line::Manifest(manifest)) = lines.last() else { panic!("{lines:?}") };
        assert_eq!(manifest.sha256, reader.digest());

        let mut reader = Reader::new(b"{\"again\":1}\n{\"agains\":1}\n".as_slice());
        assert_eq!(reader.next_line().unwrap(), Some(Line::Again(1)));
        let error = causes(&reader.next_line().unwrap_err());
        assert!(error.contains("line 2: expected a line of a certseal backup"), "{error}");
    }
}
