//! The failures between us and the server, and whether trying again may help.

use std::{
    error::Error as _,
    fmt::Write as _,
    future::Future,
    time::{Duration, Instant},
};

use tokio_postgres::error::{Error, SqlState};

use crate::StoreError;

/// A failed try.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct Fault {
    /// Whether it may be gone after a moment: a lost connection, a failover, a conflict with another session.
    pub(super) passing: bool,
    pub(super) error: StoreError,
}

impl Fault {
    pub(super) fn lasting(error: StoreError) -> Self {
        Self { passing: false, error }
    }

    pub(super) fn passing(error: StoreError) -> Self {
        Self { passing: true, error }
    }

    /// The fault behind an error of the client.
    pub(super) fn new(action: &'static str) -> impl Fn(Error) -> Self {
        move |error| Self {
            passing: is_passing(&error),
            error: StoreError::Database { action, cause: described(&error) },
        }
    }

    /// A reply that did not come.
    pub(super) fn timeout(action: &'static str, waited: Duration) -> Self {
        Self::passing(StoreError::Database { action, cause: format!("no reply within {waited:?}") })
    }

    /// A reply that cannot be read, such as from tables that somebody changed by hand.
    pub(super) fn unreadable(action: &'static str) -> impl Fn(Error) -> Self {
        move |error| Self::lasting(StoreError::Database { action, cause: described(&error) })
    }

    /// The error for the caller once no time is left.
    pub(super) fn given_up(self, waited: Duration) -> StoreError {
        match self.error {
            error if !self.passing => error,
            error @ StoreError::WentBack { .. } => error,
            StoreError::Database { action, cause } => {
                StoreError::Unavailable { waited, cause: format!("failed to {action}: {cause}") }
            }
            other => other,
        }
    }
}

/// Tries until it succeeds, a fault would last, or the time is over.
pub(super) async fn persistently<T, F>(give_up: Duration, mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, Fault>>,
{
    let (started, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(fault) if !fault.passing || started.elapsed() + pause >= give_up => {
                return Err(fault.given_up(started.elapsed()));
            }
            Err(fault) => tracing::debug!(error = %fault.error, "trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = next_pause(pause);
    }
}

/// How long to wait after a try that came after waiting so long.
pub(super) fn next_pause(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}

/// Everything but what a server says on purpose and would say again.
fn is_passing(error: &Error) -> bool {
    let Some(code) = error.code() else { return true };
    // Classes: connection exceptions, rolled back for concurrency, operator intervention such as a shutdown.
    matches!(code.code().get(..2), Some("08" | "40" | "57"))
        || [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ]
        .contains(code)
}

/// The error with its causes; the client's own text leaves them out.
fn described(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    match error.code() {
        Some(code) => format!("{text} (SQLSTATE {})", code.code()),
        None => text,
    }
}

/// Short, since a conflict is over after one group; doubled each time, so that a failover is not hammered.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
