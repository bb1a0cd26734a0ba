//! Visitors that connect all the time.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use certseal_wire::DnsName;

use crate::tls_client::Connection;

/// One visitor that connects to every site in turn, each time with a full handshake that it verifies.
pub struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; 2]>,
    failures: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    pub fn start(address: SocketAddr, roots: PathBuf, sites: Vec<DnsName>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let failures = Arc::new(Mutex::new(Vec::new()));
        let (ended, counted, failed) = (stop.clone(), counts.clone(), failures.clone());
        let task = tokio::spawn(async move {
            for site in sites.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let outcome = Connection::open(address, site, &roots).await;
                counted[usize::from(outcome.is_err())].fetch_add(1, Ordering::Relaxed);
                if let Err(error) = outcome {
                    failed.lock().unwrap().push(format!("{site}: {error:#}"));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { stop, counts, failures, task }
    }

    /// How many handshakes there were, and how many of them failed.
    pub fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.abort();
        for failure in self.failures.lock().unwrap().iter().take(10) {
            println!("{failure}");
        }
        let [good, bad] = &*self.counts;
        let (good, bad) = (good.load(Ordering::Relaxed), bad.load(Ordering::Relaxed));
        (good + bad, bad)
    }
}
