//! Opening a directory: lock, engine, the check against the high-water file, and syncs of all that was created.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    apply::Trees,
    directory::sync_directory,
    high_water::{self, HighWater},
    layout,
    options::SledOptions,
    reached::Reached,
};
use crate::{AuditLink, Position, StoreError};

/// A directory that is locked, verified and durable up to where it has come.
pub(super) struct Opened {
    pub(super) directory: PathBuf,
    pub(super) lock: File,
    pub(super) database: sled::Db,
    pub(super) trees: Trees,
    pub(super) log: Log,
    pub(super) high_water: HighWater,
    pub(super) reached: Reached,
}

impl Opened {
    /// Opens what is there, or creates it, and refuses a database that does not fit its high-water file.
    pub(super) fn verified(directory: &Path, options: &SledOptions) -> Result<Self, StoreError> {
        create_private(directory)?;
        let lock = exclusive_lock(directory)?;
        refuse_marked(directory)?;
        let witness = HighWater::open(directory)?;
        if let Some((_, expected)) = &witness
            && !directory.join(ENGINE_DIRECTORY).exists()
        {
            return Err(behind(directory, *expected, None));
        }
        let (database, trees, log) = open_engine(directory, options)?;
        let found = stored_position(&trees, directory)?;
        let (mut high_water, position) = match (witness, found) {
            (Some((_, expected)), None) => return Err(behind(directory, expected, None)),
            (Some((_, expected)), Some(found)) if found.epoch != expected.epoch => {
                return Err(StoreError::EpochMismatch { directory: directory.to_owned(), expected, found });
            }
            (Some((_, expected)), Some(found)) if found.seq < expected.seq => {
                return Err(behind(directory, expected, Some(found)));
            }
            (Some((high_water, _)), Some(found)) => (high_water, found),
            (None, Some(found)) if found.seq > 0 => {
                let path = directory.join(high_water::FILE_NAME);
                return Err(StoreError::Unvouched { path, problem: "missing" });
            }
            // New, or a creation that was cut short before anything could be acknowledged.
            (None, _) => {
                let position = Position { epoch: random_epoch()?, seq: 0 };
                store_position(&trees, position)?;
                log.persist(&trees)?;
                (HighWater::create(directory, position)?, position)
            }
        };
        let reached = Reached { position, audit: audit_head(&trees)? };
        // Writes that a killed process left in the operating system's cache count as durable from here on.
        log.persist(&trees)?;
        high_water.advance(position)?;
        Ok(Self { directory: directory.to_owned(), lock, database, trees, log, high_water, reached })
    }

    /// Opens what is there under a new epoch.
    pub(super) fn restored(directory: &Path, options: &SledOptions) -> Result<Self, StoreError> {
        create_private(directory)?;
        let lock = exclusive_lock(directory)?;
        refuse_marked(directory)?;
        let (database, trees, log) = open_engine(directory, options)?;
        let seq = match stored_position(&trees, directory) {
            Ok(position) => position.map_or(0, |position| position.seq),
            Err(_) => last_event(&trees)?,
        };
        let position = Position { epoch: random_epoch()?, seq };
        store_position(&trees, position)?;
        log.persist(&trees)?;
        let high_water = HighWater::create(directory, position)?;
        let reached = Reached { position, audit: restored_audit_head(&trees)? };
        Ok(Self { directory: directory.to_owned(), lock, database, trees, log, high_water, reached })
    }
}

impl Opened {
    /// Opens a new directory, or the leftover of a copy, for a copy from `origin`; marks it as unfinished.
    pub(super) fn for_copy(directory: &Path, options: &SledOptions, origin: &str) -> Result<Self, StoreError> {
        create_private(directory)?;
        let lock = exclusive_lock(directory)?;
        let leftover = directory.join(UNFINISHED_FILE).exists();
        if !leftover && (directory.join(ENGINE_DIRECTORY).exists() || directory.join(high_water::FILE_NAME).exists()) {
            let problem = "not empty, so nothing can be copied there: name another directory; what was looked at is";
            return Err(StoreError::Database {
                action: "begin a copy",
                cause: format!("{problem} {}", directory.display()),
            });
        }
        write_marker(directory, UNFINISHED_FILE, origin)?;
        let engine_directory = directory.join(ENGINE_DIRECTORY);
        if engine_directory.exists() {
            fs::remove_dir_all(&engine_directory).map_err(StoreError::io("remove", engine_directory))?;
        }
        let (database, trees, log) = open_engine(directory, options)?;
        let position = Position { epoch: random_epoch()?, seq: 0 };
        let high_water = HighWater::create(directory, position)?;
        let reached = Reached { position, audit: AuditLink::START };
        Ok(Self { directory: directory.to_owned(), lock, database, trees, log, high_water, reached })
    }
}

/// Leaves a durable word in the directory.
pub(super) fn write_marker(directory: &Path, name: &str, text: &str) -> Result<(), StoreError> {
    let path = directory.join(name);
    fs::write(&path, format!("{text}\n")).map_err(StoreError::io("write", &path))?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", path))?;
    sync_directory(directory)
}

/// Refuses a directory whose data is elsewhere, or not all here yet.
fn refuse_marked(directory: &Path) -> Result<(), StoreError> {
    let word = |name| match fs::read_to_string(directory.join(name)) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", directory.join(name))(error)),
    };
    if let Some(to) = word(MOVED_FILE)? {
        return Err(StoreError::Moved { place: directory.display().to_string(), to });
    }
    match word(UNFINISHED_FILE)? {
        Some(origin) => Err(StoreError::Unfinished { origin }),
        None => Ok(()),
    }
}

/// The engine's log file, opened once more to be synced.
pub(super) struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Brings everything applied so far onto the device.
    ///
    /// The engine's flush writes its log with `sync_file_range`, which leaves the device's cache and the file's size
    /// unsynced: only the sync after it survives a power cut.
    pub(super) fn persist(&self, trees: &Trees) -> Result<(), StoreError> {
        trees.meta.flush().map_err(StoreError::engine("flush"))?;
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))
    }
}

fn create_private(directory: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> =
        directory.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(StoreError::io("create", directory))?;
    let mode = fs::metadata(directory).map_err(StoreError::io("read the mode of", directory))?.permissions().mode();
    if mode & 0o077 != 0 {
        let private = Permissions::from_mode(0o700);
        fs::set_permissions(directory, private).map_err(StoreError::io("make private", directory))?;
    }
    for created in missing {
        let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

fn exclusive_lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK_FILE);
    let lock = File::options().write(true).create(true).truncate(false).open(&path);
    let lock = lock.map_err(StoreError::io("open", &path))?;
    let give_up = Instant::now() + LOCK_RELEASE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            // A process that this one is just starting holds a copy of a lock that was dropped, until it has started.
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => thread::sleep(Duration::from_millis(20)),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { directory: directory.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path)(error)),
        }
    }
}

fn open_engine(directory: &Path, options: &SledOptions) -> Result<(sled::Db, Trees, Log), StoreError> {
    let engine_directory = directory.join(ENGINE_DIRECTORY);
    let config = sled::Config::new()
        .path(&engine_directory)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(options.cache_bytes.max(MIN_CACHE_BYTES));
    let give_up = Instant::now() + ENGINE_RELEASE;
    let database = loop {
        // The engine gives up on some damage with a panic.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        let opened = opened.map_err(|_| damaged(directory, "the engine panicked; its message stands before this"))?;
        match opened {
            // Threads of an engine that was just dropped may hold its file a moment longer than our lock.
            Err(error) if is_locked(&error) && Instant::now() < give_up => thread::sleep(Duration::from_millis(20)),
            Err(error) if is_locked(&error) => return Err(StoreError::Locked { directory: directory.to_owned() }),
            Err(
                error @ (sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) | sled::Error::Unsupported(_)),
            ) => {
                return Err(damaged(directory, error));
            }
            other => break other.map_err(StoreError::engine("open"))?,
        }
    };
    let trees = Trees::open(&database).map_err(StoreError::engine("open"))?;

    let path = engine_directory.join("db");
    let file = File::options().read(true).write(true).open(&path).map_err(StoreError::io("open", &path))?;
    let log = Log { file, path };
    log.persist(&trees)?;
    let settings = engine_directory.join("conf");
    File::open(&settings).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", settings))?;
    sync_directory(&engine_directory)?;
    sync_directory(directory)?;
    Ok((database, trees, log))
}

fn damaged(directory: &Path, problem: impl ToString) -> StoreError {
    StoreError::Damaged { directory: directory.to_owned(), problem: problem.to_string() }
}

fn is_locked(error: &sled::Error) -> bool {
    // The engine wraps the operating system's answer in a text of its own.
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn stored_position(trees: &Trees, directory: &Path) -> Result<Option<Position>, StoreError> {
    let stored = trees.meta.get(layout::POSITION_KEY).map_err(StoreError::engine("read"))?;
    let Some(bytes) = stored else { return Ok(None) };
    let damaged = || StoreError::Unvouched { path: directory.join(ENGINE_DIRECTORY), problem: "without a position" };
    layout::decode_position(&bytes).map(Some).ok_or_else(damaged)
}

/// The last link of the audit log, which has to be that of the last entry.
///
/// The whole chain is verified by who reads it; a missing end shows here, before anything is appended to it.
fn audit_head(trees: &Trees) -> Result<AuditLink, StoreError> {
    let read = || StoreError::engine("read");
    let start = stored_link(trees, layout::AUDIT_START_KEY)?.unwrap_or(AuditLink::START);
    let head = stored_link(trees, layout::AUDIT_HEAD_KEY)?.unwrap_or(AuditLink::START);
    let last = match trees.audit.last().map_err(read())? {
        None => start,
        Some((key, bytes)) => last_link(&key, &bytes).filter(|last| last.number >= start.number).unwrap_or(start),
    };
    if last != head {
        return Err(StoreError::AuditDamaged { number: head.number.max(last.number) });
    }
    if let Some((link, body)) = entry_at(trees, head.number)?
        && let Some((before, _)) = entry_at(trees, head.number - 1)?
        && before.number >= start.number
        && before.next(&body) != link
    {
        return Err(StoreError::AuditDamaged { number: head.number });
    }
    Ok(head)
}

/// Where the log of a restored copy goes on: at its last entry that can be read. Damage before it stays to be seen.
fn restored_audit_head(trees: &Trees) -> Result<AuditLink, StoreError> {
    let last = trees.audit.last().map_err(StoreError::engine("read"))?;
    let last = last.and_then(|(key, bytes)| last_link(&key, &bytes));
    let start = stored_link(trees, layout::AUDIT_START_KEY).ok().flatten();
    let head = last.or(start).unwrap_or(AuditLink::START);
    let stored = trees.meta.insert(layout::AUDIT_HEAD_KEY, layout::encode_link(&head).as_slice());
    stored.map_err(StoreError::engine("write"))?;
    Ok(head)
}

fn last_link(key: &[u8], bytes: &[u8]) -> Option<AuditLink> {
    let number = u64::from_be_bytes(key.try_into().ok()?);
    layout::decode_audit(number, bytes).map(|(link, _)| link)
}

fn entry_at(trees: &Trees, number: u64) -> Result<Option<(AuditLink, Vec<u8>)>, StoreError> {
    let stored = trees.audit.get(number.to_be_bytes()).map_err(StoreError::engine("read"))?;
    let decoded = stored.as_ref().and_then(|bytes| layout::decode_audit(number, bytes));
    Ok(decoded.map(|(link, body)| (link, body.to_vec())))
}

fn stored_link(trees: &Trees, key: &[u8]) -> Result<Option<AuditLink>, StoreError> {
    let stored = trees.meta.get(key).map_err(StoreError::engine("read"))?;
    let damaged = StoreError::AuditDamaged { number: 0 };
    stored.map(|bytes| layout::decode_link(&bytes).ok_or(damaged)).transpose()
}

/// The highest sequence of the feed: where to go on if the position is damaged.
fn last_event(trees: &Trees) -> Result<u64, StoreError> {
    let last = trees.feed.last().map_err(StoreError::engine("read"))?;
    Ok(last.and_then(|(key, _)| <[u8; 8]>::try_from(&*key).ok()).map_or(0, u64::from_be_bytes))
}

fn store_position(trees: &Trees, position: Position) -> Result<(), StoreError> {
    let stored = trees.meta.insert(layout::POSITION_KEY, &layout::encode_position(position));
    stored.map(drop).map_err(StoreError::engine("write"))
}

fn random_epoch() -> Result<[u8; 16], StoreError> {
    let mut epoch = [0; 16];
    getrandom::fill(&mut epoch)
        .map_err(|error| StoreError::io("read", "the system's randomness")(io::Error::other(error.to_string())))?;
    Ok(epoch)
}

fn behind(directory: &Path, expected: Position, found: Option<Position>) -> StoreError {
    StoreError::Behind { directory: directory.to_owned(), expected, found }
}

/// The engine's own directory, inside the store's.
pub(super) const ENGINE_DIRECTORY: &str = "sled";

/// Says where a directory's data went.
pub(super) const MOVED_FILE: &str = "moved";

/// Says that a copy into the directory is not complete, and where it comes from.
pub(super) const UNFINISHED_FILE: &str = "unfinished";

const LOCK_FILE: &str = "lock";

/// Large enough that no value leaves the log; see [`layout::CHUNK_BYTES`]. Fixed at creation.
const SEGMENT_BYTES: usize = 4 << 20;

const MIN_CACHE_BYTES: u64 = 16 << 20;

const LOCK_RELEASE: Duration = Duration::from_secs(1);

const ENGINE_RELEASE: Duration = Duration::from_secs(5);
