//! Older entries of the audit log move into files, one entry on a line, so that the database does not grow for ever.
//!
//! Several certstores with one database may be configured alike: a lease says which of them moves entries. Their
//! directories may be different ones; the files of all of them together are the whole log.
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
use certseal_store::Lease;
use certseal_wire::{AuditAction, ProblemKind};

use super::log::line;
use crate::{
    actor::Actor, audit_note::AuditNote, clock::now, config::AuditFiles, refusal::storage_refusal, vault::Vault,
};

/// Moves entries into files, as long as there are more than `files` says. Of several processes with one database, one
/// does so at a time.
pub(crate) fn move_into_files(vault: &Vault, files: &AuditFiles) -> Result<(), Refusal> {
    if !has_enough(vault, files)? {
        return Ok(());
    }
    let storage = vault.storage();
    let lease = Lease::acquire(storage, LEASE, vault.process(), LEASE_SECONDS, now()).map_err(storage_refusal)?;
    let Some(lease) = lease else { return Ok(()) };
    remove_leftovers(&files.directory);
    // The log is looked at again: another process may have moved entries until a moment ago.
    while has_enough(vault, files)? {
        if !move_one_file(vault, files, &lease)? {
            return Ok(());
        }
    }
    lease.release(storage).map_err(storage_refusal)
}

fn has_enough(vault: &Vault, files: &AuditFiles) -> Result<bool, Refusal> {
    let ends = vault.storage().audit_ends().map_err(storage_refusal)?;
    Ok(ends.head.number - ends.start.number >= files.keep_entries + files.entries_per_file)
}

/// Moves the oldest entries into one file. False, with nothing moved, when another process took the lease over meanwhile:
/// that one writes the same entries into a file of its own.
fn move_one_file(vault: &Vault, files: &AuditFiles, lease: &Lease) -> Result<bool, Refusal> {
    let ends = vault.storage().audit_ends().map_err(storage_refusal)?;
    let (first, last) = (ends.start.number + 1, ends.start.number + files.entries_per_file);
    let name = format!("audit-{first:012}-{last:012}.jsonl");
    let write = || write(vault, &files.directory, &name, first, last);
    write().map_err(|error| Refusal::internal(format!("{}/{name}: {error}", files.directory.display())))??;
    let note = AuditNote::new(&Actor::itself(), AuditAction::RotateAudit).detail(name);
    match vault.commit(note, lease.guard().into()) {
        Ok(_) => {}
        Err(refusal) if refusal.0.kind == ProblemKind::Conflict => return Ok(false),
        Err(refusal) => return Err(refusal),
    }
    // A process that takes the lease over from here on can only drop more: the entries dropped now are in our file.
    vault.storage().drop_audit(last).map_err(storage_refusal)?;
    tracing::info!(first, last, "entries of the audit log moved into a file");
    Ok(true)
}

/// Leaves the file with its name, or nothing.
fn write(vault: &Vault, directory: &Path, name: &str, first: u64, last: u64) -> io::Result<Result<(), Refusal>> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let unfinished = directory.join(format!("{name}.{}.new", std::process::id()));
    let written = write_unfinished(vault, &unfinished, first, last).and_then(|written| {
        if written.is_ok() {
            fs::rename(&unfinished, directory.join(name))?;
            File::open(directory)?.sync_all()?;
        }
        Ok(written)
    });
    if !matches!(written, Ok(Ok(()))) {
        // It may not be there; a file that cannot be removed now is removed before the next one is written.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_unfinished(vault: &Vault, unfinished: &Path, first: u64, last: u64) -> io::Result<Result<(), Refusal>> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(unfinished)?;
    let mut out = BufWriter::new(file);
    let mut after = first - 1;
    while after < last {
        let limit = usize::try_from(last - after).map_or(READ_AT_ONCE, |left| left.min(READ_AT_ONCE));
        let entries = match vault.storage().audit(after, limit) {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(storage_refusal(error))),
        };
        for entry in &entries {
            after += 1;
            if entry.link.number != after {
                // Another process moved them, or one is missing: this file must not take the place of a good one.
                return Ok(Err(Refusal::internal(format!("entry {after} of the audit log is not there any more"))));
            }
            serde_json::to_writer(&mut out, &line(entry))?;
            out.write_all(b"\n")?;
        }
        if entries.is_empty() {
            return Ok(Err(Refusal::internal(format!("entry {} of the audit log is missing", after + 1))));
        }
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(Ok(()))
}

/// Removes the unfinished files of processes that died. Only the holder of the lease may call it: another
/// process that still writes one has lost it, and then finds its file gone instead of giving it its name.
fn remove_leftovers(directory: &Path) {
    // Without the directory there are none.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| is_unfinished(&entry.file_name().to_string_lossy())) {
        match fs::remove_file(entry.path()) {
            Ok(()) => tracing::info!(path = %entry.path().display(), "an unfinished file of the audit log removed"),
            Err(error) => {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove an unfinished file of the audit log");
            }
        }
    }
}

/// Whether a file has the name that [`write`] gives one before it is finished: the directory may hold other things.
fn is_unfinished(name: &str) -> bool {
    let parts = || {
        let (file, process) = name.strip_suffix(".new")?.rsplit_once('.')?;
        let (first, last) = file.strip_prefix("audit-")?.strip_suffix(".jsonl")?.split_once('-')?;
        Some([first, last, process])
    };
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts().is_some_and(|[first, last, process]| {
        first.len() >= 12 && last.len() >= 12 && [first, last, process].into_iter().all(is_number)
    })
}

/// Entries read at one time.
const READ_AT_ONCE: usize = 1000;

/// The lease of the process that moves entries.
const LEASE: &str = "audit-files";

/// Longer than a file takes. When its holder dies, nothing moves for so long.
const LEASE_SECONDS: u64 = 600;

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use certseal_seal::SigningKey;
    use certseal_store::{SledOptions, SledStore, Storage, Transaction};
    use certseal_wire::{AuditLine, AuditRecord};

    use super::*;
    use crate::{config::Retention, metrics::Metrics};

    /// Two processes with one database, and where their files go.
    struct Two {
        first: Vault,
        second: Vault,
        files: AuditFiles,
        _directory: tempfile::TempDir,
    }

    impl Two {
        fn new(entries: usize) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let storage: Arc<dyn Storage> =
                Arc::new(SledStore::open(&directory.path().join("data"), SledOptions::default()).unwrap());
            let security = SigningKey::generate().unwrap().verifying_key();
            let vault =
                || Vault::new(storage.clone(), security.clone(), Retention::default(), Metrics::default()).unwrap();
            let (first, second) = (vault(), vault());
            for n in 0..entries {
                let note = AuditNote::new(&Actor::itself(), AuditAction::Other).detail(n.to_string());
                first.commit(note, Transaction::default()).unwrap();
            }
            let files = directory.path().join("files");
            let files = AuditFiles { directory: files, keep_entries: 10, entries_per_file: 20 };
            Self { first, second, files, _directory: directory }
        }

        fn names(&self) -> Vec<PathBuf> {
            let Ok(entries) = fs::read_dir(&self.files.directory) else { return Vec::new() };
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names
        }

        /// The number of the first entry that is kept, less one, and the number of files that certstore noted.
        fn state(&self) -> (u64, usize) {
            let start = self.first.storage().audit_ends().unwrap().start.number;
            let kept = self.first.storage().audit(start, 10_000).unwrap();
            let moved = self.names().into_iter().flat_map(|name| {
                let text = fs::read_to_string(name).unwrap();
                let entry = |line: &str| serde_json::from_str::<AuditLine>(line).unwrap().entry;
                text.lines().map(entry).collect::<Vec<_>>()
            });
            let entries = moved.chain(kept.into_iter().map(|entry| String::from_utf8(entry.body).unwrap()));
            let is_note =
                |entry: &String| serde_json::from_str::<AuditRecord>(entry).unwrap().action == AuditAction::RotateAudit;
            (start, entries.filter(is_note).count())
        }
    }

    #[test]
    fn nobody_moves_entries_while_another_process_does() {
        let two = Two::new(100);
        let storage = two.first.storage();
        let lease = Lease::acquire(storage, LEASE, two.first.process(), LEASE_SECONDS, now()).unwrap().unwrap();
        move_into_files(&two.second, &two.files).unwrap();
        assert_eq!((two.state(), two.names().len()), ((0, 0), 0));
        lease.release(storage).unwrap();
        move_into_files(&two.second, &two.files).unwrap();
        // Each file is noted with one more entry: 80 and 20 are enough for one more.
        assert_eq!((two.state(), two.names().len()), ((80, 4), 4));
    }

    /// A file with a hole would take the place of a good one, and its entries would leave the database.
    #[test]
    fn no_file_is_made_of_entries_of_which_some_are_missing() {
        let directory = tempfile::tempdir().unwrap();
        let (vault, faulty) = crate::tests::faulty::vault(&directory.path().join("data"));
        for n in 0..40 {
            let note = AuditNote::new(&Actor::itself(), AuditAction::Other).detail(n.to_string());
            vault.commit(note, Transaction::default()).unwrap();
        }
        let files = directory.path().join("files");
        let written =
            |first, last| write(&vault, &files, "file", first, last).unwrap().is_ok() && files.join("file").exists();
        // Another process moved the first ones meanwhile.
        vault.storage().drop_audit(4).unwrap();
        assert!(!written(1, 20) && !files.join("file").exists());
        faulty.lose_audit_entry(12);
        assert!(!written(5, 24) && !files.join("file").exists());
        faulty.lose_audit_entry(40);
        assert!(!written(25, 40) && !files.join("file").exists());
        let configured = AuditFiles { directory: files.clone(), keep_entries: 10, entries_per_file: 20 };
        assert!(move_into_files(&vault, &configured).is_err());
        assert_eq!(fs::read_dir(&files).unwrap().count(), 0, "what was refused lies there unfinished");
        assert_eq!(vault.storage().audit_ends().unwrap().start.number, 4, "entries left the database");
        // The control: between the holes.
        assert!(written(13, 32));
    }

    /// It may be there no longer than the process that writes it: each would hold as many octets as a whole one.
    #[test]
    fn unfinished_files_of_dead_processes_are_removed_and_nothing_else() {
        let two = Two::new(40);
        let directory = &two.files.directory;
        fs::create_dir(directory).unwrap();
        let others = [
            "audit-000000000001-000000000020.jsonl",
            "audit-000000000001-000000000020.jsonl.gz.new",
            "audit-1-20.jsonl.7.new",
            "audit-000000000001-000000000020.jsonl.new",
            "notes.7.new",
        ];
        let dead =
            ["audit-000000000001-000000000020.jsonl.7.new", "audit-000000000021-1000000000040.jsonl.4194304.new"];
        others.iter().chain(&dead).for_each(|name| fs::write(directory.join(name), "{").unwrap());
        // The control: another process may be writing one as long as it holds the lease.
        let storage = two.first.storage();
        let lease = Lease::acquire(storage, LEASE, two.first.process(), LEASE_SECONDS, now()).unwrap().unwrap();
        move_into_files(&two.second, &two.files).unwrap();
        assert!(dead.iter().all(|name| directory.join(name).exists()));
        lease.release(storage).unwrap();
        move_into_files(&two.second, &two.files).unwrap();
        assert!(dead.iter().all(|name| !directory.join(name).exists()), "{:?}", two.names());
        assert!(others.iter().all(|name| directory.join(name).exists()), "{:?}", two.names());
    }

    #[test]
    fn a_file_that_cannot_get_its_name_leaves_nothing() {
        let two = Two::new(40);
        let name = two.files.directory.join("audit-000000000001-000000000020.jsonl");
        fs::create_dir_all(name.join("in the way")).unwrap();
        assert!(move_into_files(&two.first, &two.files).is_err());
        assert_eq!((two.names(), two.first.storage().audit_ends().unwrap().start.number), (vec![name], 0));
    }

    #[test]
    fn who_lost_the_lease_meanwhile_drops_nothing() {
        let two = Two::new(100);
        let storage = two.first.storage();
        let late = Lease::acquire(storage, LEASE, two.first.process(), 1, now()).unwrap().unwrap();
        // To the second one the first seems to be dead.
        let taken = Lease::acquire(storage, LEASE, two.second.process(), LEASE_SECONDS, now() + 2).unwrap().unwrap();
        assert!(!move_one_file(&two.first, &two.files, &late).unwrap());
        assert_eq!(two.state(), (0, 0));
        assert!(move_one_file(&two.second, &two.files, &taken).unwrap());
        assert_eq!(two.state(), (20, 1));
    }

    #[test]
    fn processes_that_sweep_at_one_time_move_each_entry_once() {
        let two = Two::new(400);
        std::thread::scope(|scope| {
            for vault in [&two.first, &two.second] {
                scope.spawn(|| (0..20).for_each(|_| move_into_files(vault, &two.files).unwrap()));
            }
        });
        let (start, notes) = two.state();
        let numbers: Vec<u64> = (two.names().into_iter())
            .flat_map(|name| {
                let text = fs::read_to_string(name).unwrap();
                let number = |line: &str| serde_json::from_str::<AuditLine>(line).unwrap().mark.number;
                text.lines().map(number).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(numbers, (1..=start).collect::<Vec<_>>());
        assert_eq!(notes, two.names().len(), "a file that is written twice is noted twice");
        assert!(start >= 380, "{start}");
    }
}
