//! Files and sockets that the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The system grants fewer open files than the configuration can need.
#[derive(Debug, thiserror::Error)]
#[error(
    "the configured limits need {needed} open files ({what}), and this process may have {granted}: raise its limit \
     (LimitNOFILE= of systemd, ulimit -n, --ulimit nofile= of containers), or lower the limits in the configuration"
)]
pub struct TooFewFiles {
    needed: u64,
    granted: u64,
    what: String,
}

/// Lets the process open as many files as its hard limit says. Answers how many that are; none for no limit.
///
/// The soft limit is often 1,024, for programs that use select(2). We do not.
pub fn raise_file_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files cannot be raised");
            current
        }
    }
}

/// Raises the limit on open files, and checks that `needed` fit, with some to spare for what has no limit of its own: files,
/// calls to other daemons. `what` says what they are for.
///
/// # Errors
/// [`TooFewFiles`] says what to do.
pub fn require_files(needed: u64, what: &str) -> Result<(), TooFewFiles> {
    let needed = needed.saturating_add(SPARE);
    match raise_file_limit() {
        Some(granted) if granted < needed => Err(TooFewFiles { needed, granted, what: what.to_owned() }),
        _ => Ok(()),
    }
}

const SPARE: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_and_what_does_not_fit_is_refused() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(512), maximum }).unwrap();
        assert!(require_files(100, "tests").is_ok());
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
        if let Some(granted) = maximum {
            let error = require_files(granted, "tests").unwrap_err().to_string();
            assert!(error.contains("LimitNOFILE=") && error.contains(&granted.to_string()), "{error}");
        }
    }
}
