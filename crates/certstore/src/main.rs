//! The certstore daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    certseal_service::main("certstore", |config, shutdown| async {
        certstore::start(config, shutdown).await?.finished().await
    })
}
