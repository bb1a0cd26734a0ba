//! Snapshots: a reader without a cursor begins with one.
//!
//! A snapshot is the feed's events with their records, cut into immutable segments named by their SHA-256, and the cursor
//! from which the feed goes on. It is made once for all edges of a pool, kept in files, and made anew when it is old.
//!
//! A record that changes while it is made is in it in its old or new state, or not at all: the feed after the cursor tells
//! of the change.

mod space;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use certseal_seal::sha256;
use certseal_service::problem::Refusal;
use certseal_store::Position;
use certseal_wire::{Base64, Cursor, Digest, Event, ProblemKind, Role, Segment, Snapshot};

use crate::{
    actor::Actor,
    admission::Admission,
    blocking::blocking,
    events::{MAX_INLINE, MAX_PAGE, READ_TOGETHER, with_records},
    records::Stored,
    refusal::storage_refusal,
    vault::Vault,
    visibility::{is_for, may_read},
};
use space::Space;

pub(crate) struct Snapshots {
    vault: Arc<Vault>,
    admission: Arc<Admission>,
    directory: PathBuf,
    space: Space,
    scopes: Mutex<HashMap<Scope, Arc<Scoped>>>,
    cache: quick_cache::sync::Cache<Digest, Bytes, Octets>,
}

/// The pool whose events are in a snapshot; none for readers that see all.
type Scope = Option<String>;

#[derive(Default)]
struct Scoped {
    /// Held while a snapshot is made, for as long as that takes: the ones that are there are handed out meanwhile.
    making: Arc<tokio::sync::Mutex<()>>,
    /// Locked for a moment at a time.
    kept: Mutex<Kept>,
}

/// The snapshots of a scope that are there.
#[derive(Default)]
struct Kept {
    newest: Option<Made>,
    /// Readers of the one before may still be under way.
    before: Option<Made>,
}

struct Made {
    snapshot: Snapshot,
    at: Instant,
    took: Duration,
}

impl Snapshots {
    /// Snapshots in `directory`, without those of an earlier run. They leave `reserve` octets of its file system free.
    pub(crate) fn new(
        vault: Arc<Vault>,
        admission: Arc<Admission>,
        directory: &Path,
        reserve: u64,
    ) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // Nothing but segments: the directory may hold other things, by mistake.
            if is_segment(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
            }
        }
        let cache = quick_cache::sync::Cache::with_weighter(64, CACHED, Octets);
        let (space, scopes) = (Space::new(directory, reserve), Mutex::default());
        Ok(Self { vault, admission, directory: directory.to_owned(), space, scopes, cache })
    }

    /// The newest snapshot for `actor`'s role; made now, when there is none or it is old. Others wait for it meanwhile.
    pub(crate) async fn newest(self: Arc<Self>, actor: &Actor) -> Result<Snapshot, Refusal> {
        let (role, scope) = (actor.role.clone(), scope(&actor.role));
        let scoped = self.scopes.lock().unwrap_or_else(PoisonError::into_inner).entry(scope).or_default().clone();
        if let Some(fresh) = self.fresh(&scoped).await? {
            return Ok(fresh);
        }
        // Patience of its own: the maker holds a place among the large requests, those that wait for it hold none.
        let waited = tokio::time::timeout(PATIENCE, scoped.making.clone().lock_owned()).await;
        let turn = waited.map_err(|_| Refusal::busy("a snapshot is being made: come back for it"))?;
        // Somebody else may have made it.
        if let Some(fresh) = self.fresh(&scoped).await? {
            return Ok(fresh);
        }
        let permit = self.admission.heavy(&actor.caller).await?;
        let snapshots = self.clone();
        // It goes on when the caller gives up: the next one finds it.
        let making = tokio::task::spawn_blocking(move || {
            let (_turn, _permit) = (turn, permit);
            // It will be about as large as the one before.
            let octets = scoped.kept().newest.as_ref().map_or(0, Made::octets);
            snapshots.space.check(octets)?;
            let mut begun = Snapshot { cursor: Cursor { epoch: [0; 16], seq: 0 }, segments: Vec::new() };
            let made = match snapshots.make(&role, &mut begun) {
                Ok(took) => Made { snapshot: begun, at: Instant::now(), took },
                Err(refusal) => {
                    let begun = Made { snapshot: begun, at: Instant::now(), took: Duration::ZERO };
                    snapshots.remove(&role, Some(begun), &scoped.kept());
                    return Err(refusal);
                }
            };
            let snapshot = made.snapshot.clone();
            let mut kept = scoped.kept();
            let dropped = kept.before.take();
            kept.before = kept.newest.replace(made);
            snapshots.remove(&role, dropped, &kept);
            Ok(snapshot)
        });
        making.await.map_err(Refusal::internal)?
    }

    /// The newest snapshot that is there, if it is not old.
    async fn fresh(&self, scoped: &Scoped) -> Result<Option<Snapshot>, Refusal> {
        let vault = self.vault.clone();
        let head = blocking(move || vault.storage().head().map_err(storage_refusal)).await?;
        let kept = scoped.kept();
        Ok(kept.newest.as_ref().filter(|made| made.is_fresh(head)).map(|made| made.snapshot.clone()))
    }

    /// The bytes of a segment of `actor`'s snapshots, and the cursor of the snapshot.
    pub(crate) async fn segment(
        self: Arc<Self>,
        actor: &Actor,
        digest: Digest,
    ) -> Result<(Bytes, Segment, Cursor), Refusal> {
        let gone = || Refusal::new(ProblemKind::Gone, "there is no such segment any more: begin again with a snapshot");
        let scoped = self.scopes.lock().unwrap_or_else(PoisonError::into_inner).get(&scope(&actor.role)).cloned();
        let scoped = scoped.ok_or_else(gone)?;
        let (segment, cursor) = scoped.kept().segment(digest).ok_or_else(gone)?;
        if let Some(bytes) = self.cache.get(&digest) {
            return Ok((bytes, segment, cursor));
        }
        let path = self.path(&actor.role, digest);
        let snapshots = self.clone();
        let bytes = tokio::task::spawn_blocking(move || {
            snapshots.cache.get_or_insert_with(&digest, || fs::read(&path).map(Bytes::from))
        });
        match bytes.await.map_err(Refusal::internal)? {
            Ok(bytes) => Ok((bytes, segment, cursor)),
            Err::<_, io::Error>(error) => {
                let mut kept = scoped.kept();
                // It may have gone with its snapshot, a moment ago. Otherwise somebody else removed the file: the next
                // reader gets another snapshot.
                if kept.segment(digest).is_some() {
                    tracing::error!(%error, "a segment of a snapshot is gone");
                    kept.newest = None;
                }
                Err(gone())
            }
        }
    }

    /// Fills in a snapshot. Answers how long that took.
    fn make(&self, role: &Role, snapshot: &mut Snapshot) -> Result<Duration, Refusal> {
        let begun = Instant::now();
        let storage = self.vault.storage();
        let Position { epoch, seq: head } = storage.head().map_err(storage_refusal)?;
        snapshot.cursor = Cursor { epoch, seq: head };
        let (mut events, mut count, mut after) = (vec![b'['], 0, 0);
        loop {
            let entries = storage.feed(after, READ_AT_ONCE).map_err(storage_refusal)?;
            let Some(last) = entries.last() else { break };
            after = last.seq;
            for part in entries.chunks(READ_TOGETHER) {
                let told = with_records(&self.vault, part, |event| !event.deleted && is_for(role, &event.pools))?;
                for (_, event, stored) in told.into_iter().filter(|(seq, ..)| *seq <= head) {
                    let Some(stored) = stored else { continue };
                    if count > 0 {
                        events.push(b',');
                    }
                    let event = complete(role, event, stored);
                    serde_json::to_writer(&mut events, &event).map_err(Refusal::internal)?;
                    count += 1;
                    if events.len() >= MAX_PAGE {
                        self.finish(role, snapshot, &mut events, &mut count)?;
                    }
                }
            }
            if after >= head {
                break;
            }
        }
        if count > 0 {
            self.finish(role, snapshot, &mut events, &mut count)?;
        }
        let took = begun.elapsed();
        tracing::info!(segments = snapshot.segments.len(), ?took, "snapshot made");
        Ok(took)
    }

    fn finish(
        &self,
        role: &Role,
        snapshot: &mut Snapshot,
        events: &mut Vec<u8>,
        count: &mut u64,
    ) -> Result<(), Refusal> {
        events.push(b']');
        let digest = sha256(events);
        let path = self.path(role, digest);
        let octets = events.len() as u64;
        // A segment that an older snapshot shares is there, and is not put at risk.
        if fs::metadata(&path).map_or(true, |there| there.len() != octets) {
            self.space.check(octets)?;
            fs::write(&path, &events).map_err(|error| {
                // Part of it may be there. When that cannot be removed either, the next start does so.
                let _ = fs::remove_file(&path);
                space::write_refusal(&path, &error)
            })?;
        }
        snapshot.segments.push(Segment { digest, octets, events: *count });
        *count = 0;
        events.truncate(1);
        Ok(())
    }

    /// Pools have files of their own, also where they are equal: each goes with its own snapshot.
    fn path(&self, role: &Role, digest: Digest) -> PathBuf {
        let scope = scope(role);
        self.directory.join(format!("{}-{digest}", scope.as_deref().unwrap_or("all pools")))
    }

    /// Removes the files of a snapshot that no other one shares.
    fn remove(&self, role: &Role, dropped: Option<Made>, kept: &Kept) {
        for segment in dropped.iter().flat_map(|made| &made.snapshot.segments) {
            let is_shared = kept.segment(segment.digest).is_some();
            if !is_shared && let Err(error) = fs::remove_file(self.path(role, segment.digest)) {
                tracing::warn!(%error, "cannot remove a segment of an old snapshot");
            }
        }
    }
}

/// The event with its record, if `role` may see it. A record that is too large for that is fetched by name.
fn complete(role: &Role, event: Event, stored: Stored) -> Event {
    if !may_read(role, event.kind, &stored.pools) || stored.bytes.len() > MAX_INLINE {
        return event;
    }
    Event { body: Some(Base64(stored.bytes)), ..event }
}

impl Scoped {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each change leaves it valid.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn segment(&self, digest: Digest) -> Option<(Segment, Cursor)> {
        self.newest.iter().chain(&self.before).find_map(|Made { snapshot, .. }| {
            let segment = snapshot.segments.iter().find(|segment| segment.digest == digest)?;
            Some((*segment, snapshot.cursor))
        })
    }
}

impl Made {
    fn octets(&self) -> u64 {
        self.snapshot.segments.iter().map(|segment| segment.octets).sum()
    }

    /// A snapshot is old when many would have to read much after it. One that took long to make is kept longer.
    fn is_fresh(&self, head: Position) -> bool {
        let Cursor { epoch, seq } = self.snapshot.cursor;
        // One that was made meanwhile may be ahead of that head.
        let is_near = head.seq.saturating_sub(seq) <= NEAR;
        epoch == head.epoch && (is_near || self.at.elapsed() < LEAST_AGE.max(20 * self.took))
    }
}

/// Pools have segments of their own: the records in them differ.
fn scope(role: &Role) -> Scope {
    match role {
        Role::Edge(pool) => Some(pool.to_string()),
        _ => None,
    }
}

/// Whether a file has the name of a segment: a scope, a hyphen, a digest.
fn is_segment(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, digest)| digest.parse::<Digest>().is_ok())
}

#[derive(Clone)]
struct Octets;

impl quick_cache::Weighter<Digest, Bytes> for Octets {
    fn weight(&self, _: &Digest, bytes: &Bytes) -> u64 {
        bytes.len() as u64
    }
}

/// Events read from the storage at one time.
const READ_AT_ONCE: usize = 500;
/// Octets of segments in memory.
const CACHED: u64 = 64 * 1024 * 1024;
/// A snapshot is used again for at least so long,
const LEAST_AGE: Duration = Duration::from_secs(60);
/// or while no more than so many sequences came after it.
const NEAR: u64 = 1000;
/// How long one waits for a snapshot that is being made.
const PATIENCE: Duration = Duration::from_secs(25);
