//! Outcomes that are not success, and the exit codes that tell them apart.

use anyhow::bail;
use certseal_archive::audit::LogError;
use certseal_client::ClientError;

/// Something refused or failed.
pub(crate) const FAILED: u8 = 1;
/// The command line or the settings are not complete.
pub(crate) const USAGE: u8 = 2;
/// A daemon cannot be reached, or the time is over; the same command may succeed later.
pub(crate) const TRY_AGAIN: u8 = 3;
/// There is no such thing.
pub(crate) const NOT_FOUND: u8 = 4;

/// A failure that certctl itself finds, and that has an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    TimedOut(String),
    #[error("{0}")]
    NotFound(String),
}

/// The exit code for `error`, whatever context was put around its cause.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return match failure {
            Failure::Usage(_) => USAGE,
            Failure::TimedOut(_) => TRY_AGAIN,
            Failure::NotFound(_) => NOT_FOUND,
        };
    }
    if let Some(certseal_archive::Error::Log(LogError::NoFiles(_))) = error.downcast_ref() {
        return NOT_FOUND;
    }
    match error.downcast_ref::<certseal_ceremonies::Error>() {
        Some(error) if error.is_time_out() => return TRY_AGAIN,
        Some(error) if error.is_not_found() => return NOT_FOUND,
        _ => {}
    }
    match client_error(error) {
        Some(ClientError::BadUrl(_)) => USAGE,
        Some(ClientError::Refused(problem)) if problem.status == 404 => NOT_FOUND,
        Some(error) if error.may_pass() => TRY_AGAIN,
        _ => FAILED,
    }
}

/// Refuses an outcome with failures: how many there are of `what`, the first of them, and what to do about them.
pub(crate) fn refuse_failed(what: &str, failed: &[(impl ToString, String)], advice: &str) -> anyhow::Result<()> {
    let Some((site, reason)) = failed.first() else { return Ok(()) };
    bail!("{} {what}, among them {}: {reason}{advice}", failed.len(), site.to_string())
}

/// The answer of a daemon, or its silence, if that is what `error` comes from.
pub(crate) fn client_error(error: &anyhow::Error) -> Option<&ClientError> {
    let of_ceremony = || error.downcast_ref::<certseal_ceremonies::Error>()?.client();
    let of_archive = || error.downcast_ref::<certseal_archive::Error>()?.client();
    error.downcast_ref().or_else(of_ceremony).or_else(of_archive)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use certseal_wire::{Problem, ProblemKind};

    use super::*;

    #[test]
    fn the_exit_code_follows_the_cause_through_its_context() {
        let refused = |kind| ClientError::Refused(Problem::new(kind, "x"));
        let timed_out = ClientError::TimedOut { base: "https://a:1".parse().unwrap(), seconds: 1 };
        for (error, code) in [
            (refused(ProblemKind::NotFound), NOT_FOUND),
            (refused(ProblemKind::Conflict), FAILED),
            (refused(ProblemKind::Unavailable), TRY_AGAIN),
            (timed_out, TRY_AGAIN),
        ] {
            let error = Err::<(), _>(error).context("while doing something").unwrap_err();
            assert_eq!(exit_code(&error), code, "{error:#}");
        }
        assert_eq!(exit_code(&Failure::Usage(String::new()).into()), USAGE);
        assert_eq!(exit_code(&anyhow::anyhow!("else")), FAILED);
    }
}
