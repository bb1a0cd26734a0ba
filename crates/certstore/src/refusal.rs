//! Refusals that several parts of the interface share, and the answer to each failure of the storage.

use certseal_service::problem::Refusal;
use certseal_store::StoreError;
use certseal_wire::{Caller, ProblemKind};

/// The request has another form than was expected.
pub(crate) fn malformed(detail: impl ToString) -> Refusal {
    Refusal::new(ProblemKind::Malformed, detail.to_string())
}

/// A signature does not count, or the signed document does not fit.
pub(crate) fn unverified(detail: impl ToString) -> Refusal {
    Refusal::new(ProblemKind::Unverified, detail.to_string())
}

/// The request does not fit the stored state.
pub(crate) fn conflict(detail: impl Into<String>) -> Refusal {
    Refusal::new(ProblemKind::Conflict, detail)
}

/// The caller has another role than those that are `needed`.
pub(crate) fn forbidden(caller: &Caller, needed: &str) -> Refusal {
    Refusal::new(ProblemKind::Forbidden, format!("this needs role {needed}, the caller is {caller}"))
}

/// The answer to a failure of the storage; its cause goes to the log.
pub(crate) fn storage_refusal(error: StoreError) -> Refusal {
    match &error {
        StoreError::Conflict { found, .. } => conflict(format!(
            "another write came first: version {} is stored now; read it and try again",
            found.unwrap_or(0)
        )),
        StoreError::Full { .. } => {
            tracing::error!(%error, "write refused");
            Refusal::new(ProblemKind::Full, "the store has too little free disk space; nothing was written")
        }
        StoreError::TooLarge { .. } => Refusal::new(ProblemKind::TooLarge, error.to_string()),
        StoreError::Corrupt { .. } => Refusal::internal(error),
        // For every other failure, another certstore with the same database may do better.
        _ => {
            tracing::error!(%error, "the storage does not answer");
            Refusal::new(ProblemKind::Unavailable, "the storage does not answer now; the log of certstore says why")
        }
    }
}
