//! The commands: each reads its arguments, calls what it needs, and shows the outcome.

mod audit;
mod backup;
mod bundle;
mod drill;
mod edges;
mod export;
mod import;
mod keys;
mod migrate;
mod pki;
mod rotate;
mod site;

use crate::{
    cli::{Cli, Command},
    output::Output,
};

/// Runs one command line.
pub(crate) async fn run(cli: Cli, output: Output) -> anyhow::Result<()> {
    let Cli { command, config, settings, json: _ } = cli;
    let settings = || match &config {
        Some(path) => settings.or_from(path),
        None => Ok(settings),
    };
    match command {
        Command::Pki(command) => pki::run(command, output),
        Command::Keys(command) => keys::run(command, &settings()?, output).await,
        Command::Drill(command) => drill::run(command, &settings()?, output).await,
        Command::Edges(command) => edges::run(command, &settings()?, output).await,
        Command::Site(command) => site::run(command, &settings()?, output).await,
        Command::Import(args) => import::run(args, &settings()?, output).await,
        Command::Migrate(command) => migrate::run(command, &settings()?, output).await,
        Command::Export(args) => export::run(args, &settings()?, output).await,
        Command::Audit(command) => audit::run(command, &settings()?, output).await,
        Command::Backup(command) => backup::run(command, &settings()?, output).await,
        Command::Bundle(command) => bundle::run(command, &settings()?, output).await,
    }
}
