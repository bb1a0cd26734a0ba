//! The certman daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    certseal_service::main("certman", |config, shutdown| async {
        certman::start(config, shutdown).await?.finished().await
    })
}
