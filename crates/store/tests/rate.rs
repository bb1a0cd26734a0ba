//! How many writes a second the backends acknowledge, in one run: `cargo test --test rate -- --ignored --nocapture`.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use certseal_store::{Storage, Table, Write};

use support::{Backend, PostgresBackend, SledBackend};

#[test]
#[ignore = "a measurement, which needs a quiet machine"]
fn commit_rates() {
    for round in 1..=3 {
        let sled = rate(&*SledBackend::scratch().open());
        let postgres = rate(&*PostgresBackend::scratch().open());
        println!("round {round}: sled {sled:.0}/s, postgres {postgres:.0}/s, ratio {:.2}", postgres / sled);
    }
}

fn rate(store: &dyn Storage) -> f64 {
    let (done, started) = (AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        for writer in 0..THREADS {
            let done = &done;
            scope.spawn(move || {
                for n in 0u64.. {
                    if started.elapsed() > LENGTH {
                        return;
                    }
                    let write = Write::put(TABLE, format!("{writer}-{}", n % 500), n, vec![n as u8; 1500]);
                    store.commit(write.event(vec![1; 150]).into()).unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

const THREADS: usize = 64;
const LENGTH: Duration = Duration::from_secs(8);
const TABLE: Table = Table::new("t");
