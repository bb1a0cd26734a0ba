//! The parts that every certseal daemon shares.
//!
//! - [`config`]: TOML files without unknown fields, and files that hold secrets.
//! - [`tls`]: identities for mTLS, and the [`Caller`](certseal_wire::Caller) behind a client certificate.
//! - [`server`]: listeners with limits and graceful shutdown.
//! - [`shares`]: how much of something bounded each holder has.
//! - [`buckets`]: how often each of many may do something.
//! - [`telemetry`]: logs, health and metrics.
//! - [`networks`]: addresses that are not to be connected to.
//! - [`problem`]: refusals as RFC 9457 documents.
//! - [`admission`]: the bounds of what each caller may use.
//! - `openapi`, a feature: the common parts of the descriptions of HTTP interfaces.

pub mod admission;
pub mod buckets;
pub mod config;
mod counts;
mod delivery;
mod lively;
mod memory;
pub mod networks;
mod open_files;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod problem;
pub mod server;
pub mod shares;
mod shutdown;
pub mod telemetry;
pub mod tls;

pub use delivery::HeldUntilSent;
pub use memory::{keep_memory_private, lock_all_memory, lock_memory_of_secrets};
pub use open_files::{TooFewFiles, raise_file_limit, require_files};
pub use shutdown::{Shutdown, ShutdownHandle};

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::de::DeserializeOwned;

/// The start of a daemon's `main`: reads `--config FILE` from its command line, and runs it as [`daemon`] does.
pub fn main<C, F>(program: &str, run: impl FnOnce(C, Shutdown) -> F) -> ExitCode
where
    C: DeserializeOwned,
    F: Future<Output = anyhow::Result<()>>,
{
    let mut args = std::env::args_os().skip(1);
    let config = match (args.next().as_deref().and_then(|flag| flag.to_str()), args.next(), args.next()) {
        (Some("--config"), Some(file), None) => PathBuf::from(file),
        (Some("--version"), None, None) => {
            println!("{program} {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("usage: {program} --config FILE");
            return ExitCode::from(2);
        }
    };
    daemon(program, &config, run)
}

/// Keeps the process's memory to itself, starts logs, raises the limit on open files, reads the configuration, and runs until
/// a signal comes.
///
/// Errors go to standard error and end with exit code 1.
pub fn daemon<C, F>(program: &str, config: &Path, run: impl FnOnce(C, Shutdown) -> F) -> ExitCode
where
    C: DeserializeOwned,
    F: Future<Output = anyhow::Result<()>>,
{
    blocking_daemon(program, config, |config| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let shutdown = Shutdown::on_signal()?;
            run(config, shutdown).await
        })
    })
}

/// Like [`daemon`], for one that needs no asynchronous runtime; a signal ends it at once.
pub fn blocking_daemon<C: DeserializeOwned>(
    program: &str,
    config: &Path,
    run: impl FnOnce(C) -> anyhow::Result<()>,
) -> ExitCode {
    if let Err(error) = keep_memory_private() {
        eprintln!("{program}: {error}");
        return ExitCode::FAILURE;
    }
    telemetry::start_logs("info");
    raise_file_limit();
    match config::load::<C>(config).map_err(Into::into).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {}", certseal_wire::causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
