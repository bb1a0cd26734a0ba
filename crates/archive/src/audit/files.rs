//! Files into which certstore moved older entries of its audit log.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    slice,
};

use certseal_wire::AuditLine;

use super::log_error::LogError;
use crate::{error::Error, lines::Lines};

/// Files of entries, one on each line, in the order of their numbers.
#[derive(Debug, Clone)]
pub struct AuditFiles {
    files: Vec<PathBuf>,
    first: AuditLine,
}

impl AuditFiles {
    /// The files `audit-*.jsonl` in `dir`.
    ///
    /// # Errors
    /// When there is none, or the first line of one is no entry.
    pub fn in_dir(dir: &Path) -> Result<Self, Error> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(Error::file("list", dir))? {
            let entry = entry.map_err(Error::file("list", dir))?;
            let name = entry.file_name();
            let is_one = name.to_str().is_some_and(|name| name.starts_with("audit-") && name.ends_with(".jsonl"));
            if is_one {
                let path = entry.path();
                found.push((first_line(&path)?, path));
            }
        }
        found.sort_by_key(|(first, _)| first.mark.number);
        let first = found.first().map(|(first, _)| first.clone());
        let first = first.ok_or_else(|| LogError::NoFiles(dir.to_owned()))?;
        Ok(Self { files: found.into_iter().map(|(_, path)| path).collect(), first })
    }

    /// The first entry of all.
    pub fn first(&self) -> &AuditLine {
        &self.first
    }

    /// The entries of all files, one after the other. The first error ends them.
    pub fn entries(&self) -> Entries<'_> {
        Entries { files: self.files.iter(), current: None }
    }
}

/// The entries of [`AuditFiles`].
pub struct Entries<'a> {
    files: slice::Iter<'a, PathBuf>,
    current: Option<(&'a Path, Lines<BufReader<File>>)>,
}

/// An entry, and where it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The entry.
    pub line: AuditLine,
    /// `FILE, line NUMBER`.
    pub place: String,
}

impl Entries<'_> {
    fn read_next(&mut self) -> Result<Option<FileEntry>, Error> {
        loop {
            if let Some((path, lines)) = &mut self.current
                && let Some(line) = lines.next_line().map_err(Error::within(path.display()))?
            {
                let parsed = parse(line);
                let place = format!("{}, line {}", path.display(), lines.number());
                let line = parsed.map_err(Error::within(&place))?;
                return Ok(Some(FileEntry { line, place }));
            }
            let Some(path) = self.files.next() else { return Ok(None) };
            self.current = Some((path, open(path)?));
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<FileEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read_next();
        if next.is_err() {
            (self.files, self.current) = ([].iter(), None);
        }
        next.transpose()
    }
}

fn first_line(path: &Path) -> Result<AuditLine, Error> {
    let mut lines = open(path)?;
    let first = lines.next_line().map_err(Error::within(path.display()))?;
    first.map_or(Err(LogError::EmptyFile), parse).map_err(Error::within(path.display()))
}

fn open(path: &Path) -> Result<Lines<BufReader<File>>, Error> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    Ok(Lines::new(BufReader::new(file)))
}

fn parse(line: &[u8]) -> Result<AuditLine, LogError> {
    serde_json::from_slice(line).map_err(LogError::NoEntry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{NEW_LOG, tests::log};

    fn write(dir: &Path, name: &str, lines: &[AuditLine]) {
        let text: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        fs::write(dir.join(name), text).unwrap();
    }

    fn numbers(files: &AuditFiles) -> Vec<u64> {
        files.entries().map(|entry| entry.unwrap().line.mark.number).collect()
    }

    #[test]
    fn files_are_read_in_the_order_of_their_entries_and_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let lines = log(NEW_LOG, &["a", "b", "c", "d"]);
        write(dir.path(), "audit-b.jsonl", &lines[..1]);
        write(dir.path(), "audit-a.jsonl", &lines[1..]);
        fs::write(dir.path().join("audit-1-2.jsonl.new"), "x").unwrap();
        let files = AuditFiles::in_dir(dir.path()).unwrap();
        assert_eq!(numbers(&files), [1, 2, 3, 4]);
        assert_eq!(*files.first(), lines[0]);
    }

    #[test]
    fn a_damaged_line_is_named_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AuditFiles::in_dir(dir.path()).is_err());
        write(dir.path(), "audit-1-2.jsonl", &log(NEW_LOG, &["a", "b"]));
        let path = dir.path().join("audit-1-2.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text + "{\n").unwrap();
        let files = AuditFiles::in_dir(dir.path()).unwrap();
        let mut entries = files.entries().skip(2);
        let error = entries.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("audit-1-2.jsonl, line 3"), "{error}");
        assert!(entries.next().is_none(), "the entries go on after an error");
    }
}
