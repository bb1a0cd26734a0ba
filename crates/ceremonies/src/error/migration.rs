//! Why a migration does not go on.

use std::path::PathBuf;

use certseal_seal::EnvelopeError;
use certseal_wire::DnsName;
use tokio::task::JoinError;

/// Why a migration does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// A sealed key in certstore is damaged.
    #[error("the key of {site}")]
    Sealed {
        /// Whose it is.
        site: DnsName,
        /// The damage.
        source: EnvelopeError,
    },
    /// A file is no plan.
    #[error("{}: expected a plan of `migrate plan`", path.display())]
    NoPlan {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The plan is from so long ago that its first sites would all be renewed at once.
    #[error(
        "the time of {0} sites has passed, and certman was not told of it: they would all be renewed at once, so make \
         another plan"
    )]
    Late(u64),
    /// A task was stopped.
    #[error("{what} was stopped")]
    Stopped {
        /// The task.
        what: &'static str,
        /// Why.
        source: JoinError,
    },
}

impl MigrationError {
    /// The end of a task before its time.
    pub(crate) fn stopped(what: &'static str) -> impl FnOnce(JoinError) -> Self {
        move |source| Self::Stopped { what, source }
    }
}
