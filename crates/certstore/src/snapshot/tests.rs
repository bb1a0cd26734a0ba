use std::sync::atomic::{AtomicU64, Ordering};

use certseal_seal::sha256;
use certseal_wire::{Caller, Kind, PutOutcome};

use super::*;
use crate::{
    documents::Checked,
    records::BUNDLES,
    tests::{faulty, put_waiting},
    vault::Trusted,
};

#[tokio::test]
async fn a_damaged_record_is_left_out_of_the_snapshot_and_the_others_are_in_it() {
    let world = World::new(0);
    for name in ["a.example", "b.example", "c.example"] {
        world.put(name, 1, 10);
    }
    world.faulty.damage(BUNDLES, b"b.example");
    assert_eq!(names(&world.snapshot().await), ["a.example", "c.example"]);
    // The control: a good record in its place brings it back.
    world.put("b.example", 2, 10);
    world.forget();
    assert_eq!(names(&world.snapshot().await), ["a.example", "c.example", "b.example"]);
}

#[tokio::test]
async fn no_snapshot_is_begun_that_would_need_the_reserve() {
    let world = World::new(1000);
    world.put("a.example", 1, 10);
    world.free.store(999, Ordering::Relaxed);
    let refused = world.newest().await.unwrap_err();
    assert_eq!((refused.0.kind, refused.0.status), (ProblemKind::Full, 507));
    world.free.store(2000, Ordering::Relaxed);
    let made = world.newest().await.unwrap();
    assert!(made.segments[0].octets < 1000);
    // The next one is expected to need as much as this one again.
    world.age();
    world.free.store(1000 + 2 * made.segments[0].octets - 1, Ordering::Relaxed);
    let before = world.files();
    assert_eq!(world.newest().await.unwrap_err().0.kind, ProblemKind::Full);
    assert_eq!(world.files(), before, "the one that is there stays");
    world.free.fetch_add(1, Ordering::Relaxed);
    world.newest().await.unwrap();
}

/// Others fill the disk too, and a snapshot is larger than the one before.
#[tokio::test]
async fn a_snapshot_that_meets_the_reserve_on_its_way_leaves_nothing_behind() {
    let world = World::new(1000);
    for n in 0..200 {
        world.put(&format!("s{n}.example"), 1, MAX_INLINE);
    }
    // Each segment has a megabyte and a bit; the third of them does not fit any more.
    world.free.store(1000 + 3 * MAX_PAGE as u64, Ordering::Relaxed);
    let refused = world.newest().await.unwrap_err();
    assert_eq!(refused.0.kind, ProblemKind::Full, "{}", refused.0.detail);
    assert!(world.files().is_empty(), "{:?}", world.files());
    // The control: with room for all of them.
    world.free.store(u64::MAX, Ordering::Relaxed);
    assert!(world.newest().await.unwrap().segments.len() > 2);
}

/// A reader of the snapshot before must not meet a file that is being written.
#[tokio::test]
async fn a_segment_that_both_snapshots_have_is_written_once() {
    let world = World::new(0);
    world.put("a.example", 1, 10);
    let made = world.newest().await.unwrap();
    let path = world.snapshots.path(&Role::Admin, made.segments[0].digest);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    world.age();
    assert_eq!(world.newest().await.unwrap().segments, made.segments);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), std::time::UNIX_EPOCH);
    // The control: one that is not whole is replaced.
    file.set_len(1).unwrap();
    world.age();
    world.newest().await.unwrap();
    assert_eq!(sha256(&fs::read(&path).unwrap()), made.segments[0].digest);
}

/// Making one of a large store takes long. A reader of the one before must not stand still for so long.
#[tokio::test]
async fn what_is_there_is_handed_out_while_another_snapshot_is_made() {
    let world = World::new(0);
    world.put("a.example", 1, 10);
    let before = world.newest().await.unwrap();
    world.age();
    let (begun, is_begun) = tokio::sync::oneshot::channel();
    let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
    world.faulty.meanwhile(faulty::At::AfterGet(BUNDLES), move || {
        begun.send(()).unwrap();
        goes_on.recv().unwrap();
    });
    let maker = world.snapshots.clone();
    let making = tokio::spawn(async move { maker.newest(&admin()).await });
    is_begun.await.unwrap();
    let digest = before.segments[0].digest;
    let moment = Duration::from_secs(5);
    let read = tokio::time::timeout(moment, world.snapshots.clone().segment(&admin(), digest)).await;
    assert_eq!(sha256(&read.expect("waited for the new snapshot").unwrap().0), digest);
    // The control: a reader that needs the new one waits for it.
    let waiting = world.snapshots.clone();
    let newest = tokio::spawn(async move { waiting.newest(&admin()).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!newest.is_finished() && !making.is_finished());
    go_on.send(()).unwrap();
    let made = making.await.unwrap().unwrap();
    assert_eq!(newest.await.unwrap().unwrap().cursor, made.cursor);
    assert_eq!(made.cursor.epoch, world.vault.storage().head().unwrap().epoch);
}

struct World {
    vault: Arc<Vault>,
    faulty: Arc<faulty::Faulty>,
    snapshots: Arc<Snapshots>,
    /// Octets that are free, from which the snapshots' own are taken.
    free: Arc<AtomicU64>,
    dir: tempfile::TempDir,
}

impl World {
    fn new(reserve: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (vault, faulty) = faulty::vault(&dir.path().join("data"));
        let (directory, free) = (dir.path().join("snapshots"), Arc::new(AtomicU64::new(u64::MAX)));
        let mut snapshots = Snapshots::new(vault.clone(), Arc::new(Admission::new()), &directory, reserve).unwrap();
        let left = free.clone();
        snapshots.space =
            Space::of(reserve, move || left.load(Ordering::Relaxed).saturating_sub(octets_in(&directory)));
        Self { vault, faulty, snapshots: Arc::new(snapshots), free, dir }
    }

    fn put(&self, name: &str, version: u64, octets: usize) -> PutOutcome {
        let (name, bytes) = (name.to_owned(), vec![version as u8; octets]);
        let check = move |_: &Trusted| {
            let pools = vec!["eu".parse().unwrap()];
            Ok(Checked::new(Kind::Bundle, name.clone(), version, pools, bytes.clone()))
        };
        put_waiting(&self.vault, Actor::itself(), check).unwrap()
    }

    async fn newest(&self) -> Result<Snapshot, Refusal> {
        self.snapshots.clone().newest(&admin()).await
    }

    /// All events of the newest snapshot, in their order.
    async fn snapshot(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for segment in self.newest().await.unwrap().segments {
            let (bytes, ..) = self.snapshots.clone().segment(&admin(), segment.digest).await.unwrap();
            events.extend(serde_json::from_slice::<Vec<Event>>(&bytes).unwrap());
        }
        events
    }

    /// As if nothing had been made yet.
    fn forget(&self) {
        self.snapshots.scopes.lock().unwrap().clear();
    }

    /// As if much had come since.
    fn age(&self) {
        let scopes = self.snapshots.scopes.lock().unwrap();
        for scoped in scopes.values() {
            if let Some(made) = &mut scoped.kept().newest {
                made.snapshot.cursor.epoch = [9; 16];
            }
        }
    }

    fn files(&self) -> Vec<std::ffi::OsString> {
        let entries = fs::read_dir(self.dir.path().join("snapshots")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

fn octets_in(directory: &Path) -> u64 {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn admin() -> Actor {
    Actor { caller: Caller { role: Role::Admin, name: "alice".into() }, from: None }
}
