//! Files into which certstore moved older entries of its audit log.

use std::{
    fs::{self, File},
    io::BufReader,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use certseal_wire::AuditLine;

use crate::{failure::Failure, lines::Lines};

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
    pub fn in_dir(dir: &Path) -> anyhow::Result<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
            let name = entry.file_name();
            let is_one = name.to_str().is_some_and(|name| name.starts_with("audit-") && name.ends_with(".jsonl"));
            if is_one {
                let path = entry.path();
                found.push((first_line(&path)?, path));
            }
        }
        found.sort_by_key(|(first, _)| first.mark.number);
        let first = found.first().map(|(first, _)| first.clone());
        let first = first.ok_or_else(|| {
            Failure::NotFound(format!("expected files audit-*.jsonl of an audit log in {}, got none", dir.display()))
        })?;
        Ok(Self { files: found.into_iter().map(|(_, path)| path).collect(), first })
    }

    /// The first entry of all.
    pub fn first(&self) -> &AuditLine {
        &self.first
    }

    /// Shows `visit` each entry, until it has seen enough.
    ///
    /// # Errors
    /// When a file cannot be read or a line of it is no entry, and what `visit` says; with the file and the line.
    pub fn each(&self, mut visit: impl FnMut(AuditLine) -> anyhow::Result<ControlFlow<()>>) -> anyhow::Result<()> {
        for path in &self.files {
            let mut lines = open(path)?;
            while let Some(line) = lines.next_line().with_context(|| path.display().to_string())? {
                let seen = parse(line).and_then(&mut visit);
                if seen.with_context(|| format!("{}, line {}", path.display(), lines.number()))?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn first_line(path: &Path) -> anyhow::Result<AuditLine> {
    let mut lines = open(path)?;
    let first = lines.next_line().and_then(|line| match line {
        Some(line) => parse(line),
        None => bail!("expected entries of an audit log, but the file is empty"),
    });
    first.with_context(|| path.display().to_string())
}

fn open(path: &Path) -> anyhow::Result<Lines<BufReader<File>>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Lines::new(BufReader::new(file)))
}

fn parse(line: &[u8]) -> anyhow::Result<AuditLine> {
    serde_json::from_slice(line).context("expected an entry of an audit log")
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
        let mut numbers = Vec::new();
        files
            .each(|line| {
                numbers.push(line.mark.number);
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        numbers
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
        let error = format!("{:#}", files.each(|_| Ok(ControlFlow::Continue(()))).unwrap_err());
        assert!(error.contains("audit-1-2.jsonl, line 3"), "{error}");
    }
}
