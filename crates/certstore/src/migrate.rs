//! `certstore migrate`: copies the data into another engine, while no certstore runs.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::Context;
use certseal_store::{
    PostgresOptions, PostgresStore, SledOptions, SledStore,
    migrate::{Source, Target, copy},
};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Copies certstore's data into another engine: records, feed and audit log as they are, so that edges go on with their
/// cursors. Stop every certstore first; a database to copy from has to be at rest for a minute. The copy is read back and
/// compared; a run that was cut short is run again.
#[derive(Debug, Parser)]
#[command(name = "certstore migrate")]
struct Arguments {
    /// Where the data is: sled:DIRECTORY or postgres://USER@HOST/DATABASE.
    #[arg(long)]
    from: Place,
    /// Where it is to go: an empty directory or database, written likewise.
    #[arg(long)]
    to: Place,
    /// A file with the database's password alone.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// The CA of the database's certificate, PEM; needed unless it is on this machine.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Our certificate for the database, PEM, if it asks for one.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
}

/// A directory or a database.
#[derive(Debug, Clone)]
enum Place {
    Sled(PathBuf),
    Postgres(String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(directory) = text.strip_prefix("sled:").filter(|directory| !directory.is_empty()) {
            return Ok(Self::Sled(directory.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        // The text is not repeated: it may be a connection string with a password in another notation.
        Err("expected sled:DIRECTORY or postgres://USER@HOST/DATABASE".to_owned())
    }
}

/// Runs the subcommand with the rest of the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse_from(std::env::args_os().skip(1));
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("certstore migrate: {}", certseal_wire::causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (from, to) = (arguments.shown(&arguments.from), arguments.shown(&arguments.to));
    let source = arguments.source().with_context(|| from.clone())?;
    let target = arguments.target(&from).with_context(|| to.clone())?;
    // A template of constants.
    let style = ProgressStyle::with_template("{spinner} {msg}: {human_pos} items, {per_sec}")?;
    let bar = ProgressBar::new_spinner().with_style(style);
    let summary = copy(&*source, target, &to, &mut |action, done| {
        bar.set_message(action);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let [records, events, audit] = summary.with_context(|| format!("{from} was not moved to {to}"))?.counts;
    println!(
        "moved {records} records, {events} events and {audit} audit entries from {from} to {to}, and compared them"
    );
    println!("next: name {to} in certstore's configuration, and start it");
    Ok(())
}

impl Arguments {
    fn source(&self) -> anyhow::Result<Box<dyn Source>> {
        Ok(match &self.from {
            Place::Sled(directory) => Box::new(SledStore::open(existing(directory)?, SledOptions::default())?),
            Place::Postgres(url) => PostgresStore::source(self.options(url))?,
        })
    }

    fn target(&self, origin: &str) -> anyhow::Result<Box<dyn Target>> {
        Ok(match &self.to {
            Place::Sled(directory) => SledStore::target(directory, SledOptions::default(), origin)?,
            Place::Postgres(url) => PostgresStore::target(self.options(url), origin)?,
        })
    }

    fn options(&self, url: &str) -> PostgresOptions {
        let identity = self.certificate.clone().zip(self.key.clone());
        let (password_file, ca) = (self.password_file.clone(), self.ca.clone());
        PostgresOptions { password_file, ca, identity, ..PostgresOptions::new(url) }
    }

    /// A place as it may be printed and noted: without a password.
    fn shown(&self, place: &Place) -> String {
        match place {
            Place::Sled(directory) => format!("sled:{}", directory.display()),
            Place::Postgres(url) => self.options(url).place(),
        }
    }
}

/// Opening would make a directory that is missing: a mistyped name would copy nothing.
fn existing(directory: &Path) -> anyhow::Result<&Path> {
    anyhow::ensure!(directory.is_dir(), "expected a directory with certstore's data, found none: look for the name");
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_or_a_database_and_shows_no_password() {
        assert!(matches!("sled:/var/lib/certstore".parse(), Ok(Place::Sled(_))));
        for nothing in ["", "sled:", "/var/lib/certstore", "host=a password=canary"] {
            let error = nothing.parse::<Place>().unwrap_err();
            assert!(!error.contains("canary"));
        }
        let words = ["migrate", "--from", "sled:/a", "--to", "postgres://me:canary@db/certseal"];
        let arguments = Arguments::parse_from(words);
        assert_eq!(arguments.shown(&arguments.to), "postgres://me@db:5432/certseal");
    }
}
