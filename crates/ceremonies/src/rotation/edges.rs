//! Waiting for edges.

use std::time::Duration;

use certseal_client::{Progress, StoreClient};
use certseal_wire::{EdgeReport, PoolName};
use tokio::time::{Instant, sleep};

use crate::error::{Error, RotationError};

/// Waits until every edge of the pool has said that it has what is needed.
pub(super) async fn await_edges_of_pool(
    store: &StoreClient,
    pool: &PoolName,
    what: &str,
    deadline: Instant,
    progress: &dyn Progress,
    has_it: impl Fn(&EdgeReport) -> bool,
) -> Result<(), Error> {
    loop {
        let edges = store.edges().await?.edges.into_iter().map(|edge| edge.report);
        let missing: Vec<String> =
            edges.filter(|edge| edge.pool == *pool && !has_it(edge)).map(|edge| edge.name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let what = format!("edges {} {what}", missing.join(", "));
        if Instant::now() >= deadline {
            return Err(RotationError::EdgesLate(what).into());
        }
        progress.waiting(&what);
        sleep(POLL).await;
    }
}

/// From one question to the next while waiting.
const POLL: Duration = Duration::from_secs(1);
