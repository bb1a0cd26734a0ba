//! The certstore daemon, and the copy of its data into another engine.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "migrate") {
        return certstore::migrate::main();
    }
    certseal_service::main("certstore", |config, shutdown| async {
        certstore::start(config, shutdown).await?.finished().await
    })
}
