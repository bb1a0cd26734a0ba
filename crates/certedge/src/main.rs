//! The certedge daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    certseal_service::main("certedge", |config, shutdown| async {
        certedge::start(config, shutdown).await?.finished().await
    })
}
