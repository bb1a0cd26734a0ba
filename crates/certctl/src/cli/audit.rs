//! The command line of `certctl audit`.

use std::path::PathBuf;

use certseal_wire::{AuditAction, AuditMark};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::values;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show the newest entries
    Tail(TailArgs),
    /// Find entries, from the oldest on
    Search(SearchArgs),
    /// Check that no entry was altered, removed or put elsewhere, and that the end is there
    Verify(VerifyArgs),
    /// Write the entries that certstore still keeps, one JSON document on each line
    Export {
        /// New file, or - for standard output
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    pub(crate) lines: u64,
    /// Go on with those that come
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Who did it: ROLE/NAME, or a part of it
    #[arg(long, value_name = "WHO")]
    pub(crate) by: Option<String>,
    /// What it was done to: a site, a pool, a rotation
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Option<String>,
    /// What was done, such as put-bundle or read-sealed
    #[arg(long, value_name = "ACTION", value_parser = values::action)]
    pub(crate) action: Option<AuditAction>,
    /// At this time or later: an instant such as 2026-11-01T08:00:00Z, or a period before now such as 36h
    #[arg(long, value_name = "TIME", value_parser = values::instant)]
    pub(crate) since: Option<Timestamp>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = values::instant)]
    pub(crate) until: Option<Timestamp>,
    /// Only what was refused
    #[arg(long)]
    pub(crate) refused: bool,
    /// Directory of the files with older entries, audit-*.jsonl
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Directory of the files with older entries, audit-*.jsonl
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
    /// What an earlier run printed, and you kept: the log must still have it
    #[arg(long, value_name = "NUMBER:HASH", value_parser = certseal_archive::audit::mark)]
    pub(crate) expect: Option<AuditMark>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn marks_actions_and_times_are_checked_before_anything_is_sent() {
        let mark = format!("7:{}", "0a".repeat(32));
        let cli = Cli::try_parse_from(["certctl", "audit", "verify", "--expect", mark.as_str()]).unwrap();
        let Command::Audit(AuditCommand::Verify(args)) = cli.command else { panic!("another command") };
        assert_eq!(args.expect.map(|mark| mark.number), Some(7));
        for args in [
            ["verify", "--expect", "7"].as_slice(),
            &["search", "--action", "put-nothing"],
            &["search", "--since", "yesterday"],
            &["tail", "--lines", "all"],
            &["export"],
        ] {
            assert!(Cli::try_parse_from(["certctl", "audit"].iter().chain(args)).is_err(), "{args:?}");
        }
    }
}
