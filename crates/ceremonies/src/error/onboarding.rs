//! Why sites are not onboarded.

use tokio::task::JoinError;

/// Why sites are not onboarded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnboardingError {
    /// A line of the list is not usable.
    #[error("line {number}: {why}")]
    Line {
        /// Its number, counted from 1.
        number: usize,
        /// The defect.
        why: String,
    },
    /// The list names none.
    #[error("the list has no site: expected a name or a JSON object in each line")]
    Empty,
    /// A task was stopped.
    #[error("a call was stopped")]
    Stopped(#[source] JoinError),
}
