//! Older entries of the audit log move into files, one entry on a line, so that the database does not grow for ever.
//!
//! A file is complete and on the disk before its entries leave the database. Each line is an
//! [`AuditLine`](certseal_wire::AuditLine): the chain goes on from file to file, and from the last one into the database.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufWriter, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use certseal_service::problem::Refusal;
use certseal_wire::AuditAction;

use super::{Actor, Entry, line};
use crate::{
    config::AuditFiles,
    vault::{Vault, refusal},
};

/// Moves entries into files, as long as there are more than `files` says.
pub(crate) fn rotate(vault: &Vault, files: &AuditFiles) -> Result<(), Refusal> {
    loop {
        let ends = vault.storage().audit_ends().map_err(refusal)?;
        let kept = ends.head.number - ends.start.number;
        if kept < files.keep_entries + files.entries_per_file {
            return Ok(());
        }
        let (first, last) = (ends.start.number + 1, ends.start.number + files.entries_per_file);
        let name = format!("audit-{first:012}-{last:012}.jsonl");
        let write = || write(vault, &files.directory, &name, first, last);
        write().map_err(|error| Refusal::internal(format!("{}/{name}: {error}", files.directory.display())))??;
        let entry = Entry::new(&Actor::itself(), AuditAction::RotateAudit).detail(name);
        vault.commit(entry, Default::default())?;
        vault.storage().drop_audit(last).map_err(refusal)?;
        tracing::info!(first, last, "entries of the audit log moved into a file");
    }
}

fn write(vault: &Vault, directory: &Path, name: &str, first: u64, last: u64) -> io::Result<Result<(), Refusal>> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let unfinished = directory.join(format!("{name}.new"));
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    let mut out = BufWriter::new(file);
    let mut after = first - 1;
    while after < last {
        let limit = usize::try_from(last - after).map_or(READ_AT_ONCE, |left| left.min(READ_AT_ONCE));
        let entries = match vault.storage().audit(after, limit) {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(refusal(error))),
        };
        for entry in &entries {
            serde_json::to_writer(&mut out, &line(entry))?;
            out.write_all(b"\n")?;
        }
        match entries.last() {
            Some(entry) => after = entry.link.number,
            None => return Ok(Err(Refusal::internal(format!("entry {} of the audit log is missing", after + 1)))),
        }
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(name))?;
    File::open(directory)?.sync_all()?;
    Ok(Ok(()))
}

/// Entries read at one time.
const READ_AT_ONCE: usize = 1000;
