//! Expired challenges disappear by themselves.

use std::{sync::Arc, time::Duration};

use certseal_service::Shutdown;

use crate::{records::CHALLENGES, vault::Vault};

/// Deletes expired challenges until the shutdown begins.
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
    loop {
        let expired = match vault.storage().expired(CHALLENGES, now(), BATCH) {
            Ok(expired) if expired.is_empty() => return,
            Ok(expired) => expired,
            Err(error) => return tracing::error!(%error, "cannot list expired challenges"),
        };
        let count = expired.len();
        if let Err(refusal) = vault.delete_challenges(expired.into_iter().map(|(key, _)| key)) {
            return tracing::error!(problem = %refusal.0, "cannot delete expired challenges");
        }
        tracing::debug!(count, "expired challenges deleted");
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    // Before 1970 only with a broken clock; nothing expires then.
    jiff::Timestamp::now().as_second().try_into().unwrap_or(0)
}

const BATCH: usize = 500;
