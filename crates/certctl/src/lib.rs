//! certctl: the command line of certseal's operators and security team.
//!
//! ```text
//! certctl pki init | issue | local-ca       the private PKI and the signing keys; files only, no network
//! certctl keys generate | list | rotate ..   the unseal keys of pools, in the signed key ring
//! certctl edges list | forget               the reports of edges
//! certctl drill unseal                      sealed keys opened at random, on every edge
//! certctl site add | list | status | ...    sites at certman
//! certctl bundle show | deletions           certstore's data of one site, never a secret; its coming deletions
//! certctl audit tail | search | verify ..   the log of who did what, and whether it is whole
//! certctl backup create | verify | restore  all that certstore keeps, as it is: sealed and signed
//! certctl import                            sites that a platform has, with keys as it sealed them
//! certctl migrate plan | run | status       from those keys to keys of our own
//! certctl export                            everything handed back
//! ```
//!
//! Arguments, output, progress and exit codes are here. `certseal-ceremonies` and `certseal-archive` do the work, and can be
//! called without this program.

mod command_line;
mod failure;
mod nouns;
mod output;
mod progress_bar;
mod settings;
mod values;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, error::ErrorKind};

use crate::{
    command_line::CommandLine,
    failure::{Failure, USAGE, exit_code},
    output::Output,
};

/// The whole program: reads the arguments, does what they say, and tells its outcome as `certctl --help` documents.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let output = Output::new(args.iter().any(|arg| arg == "--json"));
    let line = match CommandLine::try_parse_from(args) {
        Ok(line) => line,
        Err(error) if output.is_json() && !is_help(error.kind()) => {
            let message = error.to_string();
            output.error(&Failure::Usage(message.trim_start_matches("error: ").trim_end().to_owned()).into());
            return ExitCode::from(USAGE);
        }
        Err(error) => error.exit(),
    };
    let outcome = certseal_service::keep_memory_private()
        .and_then(|()| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build())
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(line.run(output)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

fn is_help(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}
