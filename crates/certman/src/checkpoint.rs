//! Signed, dated lists of what certstore acknowledged lately: they show edges when certstore withholds news.

use std::{collections::HashMap, sync::Arc, time::Duration};

use certseal_issuance::Failure;
use certseal_service::Shutdown;
use certseal_wire::PoolName;
use tokio::time::MissedTickBehavior;

use crate::{certstore::Certstore, journal::Journal};

/// Puts a checkpoint for each pool into certstore, once in each `interval`, until the shutdown begins. Of several processes
/// one does.
pub(crate) async fn run(certstore: Arc<Certstore>, journal: Journal, interval: Duration, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut versions = HashMap::new();
    let mut is_failing = false;
    loop {
        let round = async {
            ticks.tick().await;
            if !journal.leases().leads() {
                return Ok(());
            }
            // Before any checkpoint: one of an issuer that is not listed counts for nobody.
            let stored = match certstore.follow_issuers().await {
                Ok(()) => put_all(&certstore, &mut versions).await,
                Err(failure) => Err(failure),
            };
            // Also when a checkpoint of the feed failed: that would be a way to keep this one away.
            certstore.witness_audit().await.and(stored)
        };
        let outcome = tokio::select! {
            outcome = round => outcome,
            () = shutdown.begun() => return,
        };
        // Once for each time that it begins or ends, not for each attempt.
        match &outcome {
            Err(Failure { detail, .. }) if !is_failing => tracing::warn!(detail, "checkpoints cannot be stored"),
            Ok(()) if is_failing => tracing::info!("checkpoints are stored again"),
            _ => {}
        }
        is_failing = outcome.is_err();
    }
}

/// Tries every pool, whatever happens to the others. Answers the last failure.
async fn put_all(certstore: &Certstore, versions: &mut HashMap<PoolName, u64>) -> Result<(), Failure> {
    let (ring, pools) = certstore.active_pools().await?;
    let mut recent = certstore.recent_changes().await?;
    let mut outcome = Ok(());
    for pool in pools {
        // After a failure nobody knows which version certstore has: it is asked next time.
        match certstore.put_checkpoint(&pool, &mut recent, ring, versions.remove(&pool)).await {
            Ok(version) => drop(versions.insert(pool, version)),
            Err(failure) => outcome = Err(failure),
        }
    }
    outcome
}
