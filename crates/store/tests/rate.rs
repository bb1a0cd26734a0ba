//! How many writes a second the backends acknowledge, in one run; `CERTSEAL_RATE_SECONDS=8` measures for longer than the
//! normal run does. It judges only that what 64 threads wrote at one time is there.
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
fn what_many_threads_write_at_one_time_is_there() {
    let sled = rate(&*SledBackend::scratch().open());
    let postgres = rate(&*PostgresBackend::scratch().open());
    println!("sled {sled:.0}/s, postgres {postgres:.0}/s, ratio {:.2}", postgres / sled);
}

fn rate(store: &dyn Storage) -> f64 {
    let seconds = std::env::var("CERTSEAL_RATE_SECONDS").map_or(1, |seconds| seconds.parse().unwrap());
    let length = Duration::from_secs(seconds);
    let (done, started) = (AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        for writer in 0..THREADS {
            let done = &done;
            scope.spawn(move || {
                for n in 0u64.. {
                    if started.elapsed() > length {
                        let last = format!("{writer}-{}", (n - 1) % 500);
                        assert_eq!(store.get(TABLE, last.as_bytes()).unwrap().unwrap().version, n - 1);
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
const TABLE: Table = Table::new("t");
