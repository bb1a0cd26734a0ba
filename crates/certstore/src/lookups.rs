//! Lookups of single records: those that wait together are handed over to a blocking thread together.
//!
//! A hand-over wakes a thread, which costs more than a lookup in memory. So one worker takes all lookups that wait, as long as
//! it is quick; while it waits for the disk, others come to its help.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use certseal_service::problem::Refusal;
use certseal_wire::Kind;
use tokio::sync::oneshot;

use crate::{blocking::blocking, records::Stored, vault::Vault};

pub(crate) struct Lookups {
    vault: Arc<Vault>,
    queue: Mutex<Queue>,
}

struct Queue {
    waiting: VecDeque<Lookup>,
    workers: usize,
    /// When a worker last took lookups.
    taken_at: Instant,
}

struct Lookup {
    kind: Kind,
    name: String,
    found: oneshot::Sender<Result<Option<Stored>, Refusal>>,
}

/// Answers lookups until none waits.
struct Worker {
    lookups: Arc<Lookups>,
    is_counted: bool,
}

impl Lookups {
    pub(crate) fn new(vault: Arc<Vault>) -> Self {
        let queue = Queue { waiting: VecDeque::new(), workers: 0, taken_at: Instant::now() };
        Self { vault, queue: Mutex::new(queue) }
    }

    /// The record, or the tombstone that is left of it.
    pub(crate) async fn get(self: &Arc<Self>, kind: Kind, name: String) -> Result<Option<Stored>, Refusal> {
        let (found, answer) = oneshot::channel();
        if let Some(mut worker) = self.enqueue(Lookup { kind, name, found }) {
            // It goes on when this caller has gone: it answers the others too.
            tokio::spawn(blocking(move || {
                worker.run();
                Ok(())
            }));
        }
        answer.await.map_err(|_| Refusal::internal("a lookup ended without an answer"))?
    }

    /// Adds a lookup, and a worker if there is none, or if those that are there take nothing.
    fn enqueue(self: &Arc<Self>, lookup: Lookup) -> Option<Worker> {
        let mut queue = self.queue();
        queue.waiting.push_back(lookup);
        let is_needed = queue.workers == 0 || (queue.workers < WORKERS && queue.taken_at.elapsed() > QUICK);
        is_needed.then(|| {
            // It takes some a moment from now.
            queue.taken_at = Instant::now();
            queue.workers += 1;
            Worker { lookups: self.clone(), is_counted: true }
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change leaves it valid.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    fn run(&mut self) {
        loop {
            let together = self.next();
            if together.is_empty() {
                return;
            }
            let keys: Vec<_> = together.iter().map(|lookup| (lookup.kind, lookup.name.as_str())).collect();
            let found = self.lookups.vault.get_all(&keys);
            for (lookup, found) in together.into_iter().zip(found) {
                // The caller may have gone.
                let _ = lookup.found.send(found);
            }
        }
    }

    /// The lookups that are next. With none this worker counts no longer, in the same moment: the next lookup gets another.
    fn next(&mut self) -> Vec<Lookup> {
        let mut queue = self.lookups.queue();
        let count = queue.waiting.len().min(TOGETHER);
        let next: Vec<_> = queue.waiting.drain(..count).collect();
        queue.taken_at = Instant::now();
        if next.is_empty() {
            queue.workers -= 1;
            self.is_counted = false;
        }
        next
    }
}

impl Drop for Worker {
    /// A worker that panics, or is dropped before it runs, counts no longer either.
    fn drop(&mut self) {
        if self.is_counted {
            self.lookups.queue().workers -= 1;
        }
    }
}

/// Workers at one time: other work that blocks finds turns beside them.
const WORKERS: usize = 12;

/// The time in which a worker answers what it took from memory, and takes more.
const QUICK: Duration = Duration::from_millis(1);

/// Lookups that a worker takes at one time.
const TOGETHER: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        records::{BUNDLES, ROUTES},
        tests::{
            faulty::{self, At},
            put,
        },
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn each_lookup_gets_its_own_answer_however_many_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, faulty) = faulty::vault(dir.path());
        put(&vault, Kind::Bundle, 7, &["eu"]);
        put(&vault, Kind::Route, 3, &["eu"]);
        faulty.damage(ROUTES, b"a.example");
        let lookups = Arc::new(Lookups::new(vault));
        let ask = |kind, name: &str| {
            let (lookups, name) = (lookups.clone(), name.to_owned());
            tokio::spawn(async move { lookups.get(kind, name).await })
        };
        let asked: Vec<_> = (0..500)
            .map(|_| [ask(Kind::Bundle, "a.example"), ask(Kind::Bundle, "b.example"), ask(Kind::Route, "a.example")])
            .collect();
        for [there, missing, damaged] in asked {
            assert_eq!(there.await.unwrap().unwrap().unwrap().version, 7);
            assert!(missing.await.unwrap().unwrap().is_none());
            assert!(damaged.await.unwrap().is_err(), "a damaged record is none that is missing");
        }
        // The last answer comes a moment before its worker is gone.
        while lookups.queue().workers > 0 {
            tokio::time::sleep(QUICK).await;
        }
    }

    /// A disk that is slow for some must not hold up all.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_lookup_that_takes_long_leaves_the_others_their_workers() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, faulty) = faulty::vault(dir.path());
        put(&vault, Kind::Bundle, 7, &["eu"]);
        let lookups = Arc::new(Lookups::new(vault));
        let (go_on, held) = std::sync::mpsc::channel::<()>();
        let (begun, is_begun) = oneshot::channel();
        faulty.meanwhile(At::AfterGet(BUNDLES), move || {
            begun.send(()).unwrap();
            held.recv().unwrap();
        });
        let ask = || {
            let lookups = lookups.clone();
            tokio::spawn(async move { lookups.get(Kind::Bundle, "a.example".into()).await })
        };
        let slow = ask();
        is_begun.await.unwrap();
        for _ in 0..2 * TOGETHER {
            tokio::time::sleep(2 * QUICK).await;
            assert!(ask().await.unwrap().unwrap().is_some());
        }
        assert!(!slow.is_finished());
        go_on.send(()).unwrap();
        assert!(slow.await.unwrap().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_worker_that_never_runs_leaves_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let lookups = Arc::new(Lookups::new(crate::tests::vault(dir.path())));
        for _ in 0..2 * WORKERS {
            let (found, _) = oneshot::channel();
            drop(lookups.enqueue(Lookup { kind: Kind::Bundle, name: "a.example".into(), found }));
        }
        assert_eq!(lookups.queue().workers, 0);
        assert!(lookups.get(Kind::Bundle, "a.example".into()).await.unwrap().is_none());
    }
}
