//! Expired challenges, and edges that report no more, disappear by themselves.

use std::{sync::Arc, time::Duration};

use certseal_service::Shutdown;

use certseal_service::problem::Refusal;
use certseal_store::Table;

use crate::{
    records::{CHALLENGES, EDGES},
    vault::Vault,
};

/// Deletes what has expired until the shutdown begins.
pub(crate) async fn run(vault: Arc<Vault>, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(Duration::from_secs(60));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.begun() => return,
        }
        let vault = vault.clone();
        // A panic there is logged by the runtime, and the next tick tries again.
        let _ = tokio::task::spawn_blocking(move || sweep(&vault)).await;
    }
}

fn sweep(vault: &Vault) {
    sweep_table(vault, CHALLENGES, |keys| vault.delete_challenges(keys));
    sweep_table(vault, EDGES, |keys| vault.forget_edges(keys));
}

fn sweep_table(vault: &Vault, table: Table, delete: impl Fn(Vec<Vec<u8>>) -> Result<(), Refusal>) {
    loop {
        let expired = match vault.storage().expired(table, now(), BATCH) {
            Ok(expired) if expired.is_empty() => return,
            Ok(expired) => expired,
            Err(error) => return tracing::error!(%table, %error, "cannot list what has expired"),
        };
        let count = expired.len();
        if let Err(refusal) = delete(expired.into_iter().map(|(key, _)| key).collect()) {
            return tracing::error!(%table, problem = %refusal.0, "cannot delete what has expired");
        }
        tracing::debug!(%table, count, "expired records deleted");
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    // Before 1970 only with a broken clock; nothing expires then.
    jiff::Timestamp::now().as_second().try_into().unwrap_or(0)
}

const BATCH: usize = 500;
