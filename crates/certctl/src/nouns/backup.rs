//! `certctl backup`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use certseal_archive::{audit::mark_text, backup};
use clap::Subcommand;

use crate::{
    output::{Output, details, table},
    progress_bar::Bar,
    settings::Settings,
};

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Copy all that certstore keeps into a file, while it serves
    Create {
        /// New file
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Check that a backup is complete and undamaged; no daemon is asked
    Verify {
        /// The backup
        file: PathBuf,
    },
    /// Give a backup to a certstore that holds nothing yet
    Restore {
        /// The backup
        file: PathBuf,
    },
}

pub(super) async fn run(command: BackupCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    match command {
        BackupCommand::Create { to } => create(&to, settings, output).await,
        BackupCommand::Verify { file } => verify(&file, output),
        BackupCommand::Restore { file } => restore(&file, settings, output).await,
    }
}

async fn create(to: &Path, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let (store, bar) = (settings.store()?, Bar::new(output));
    let outcome = backup::create(&store, to, &bar).await;
    bar.clear();
    let created = outcome?;
    output.show(&created, || {
        let head = details([
            ("backup", created.file.display().to_string()),
            ("of", format!("{:.0}", created.at)),
            ("copied again", format!("{} records that changed meanwhile", created.again)),
            ("audit log", format!("{} entries, up to {}", created.audit_entries, mark_text(&created.newest))),
            ("size", format!("{} octets", created.octets)),
            ("SHA-256", format!("{} (of all but the last line)", created.sha256)),
        ]);
        format!("{head}\n{}", counts(&created.records))
    })
}

fn verify(file: &Path, output: Output) -> anyhow::Result<()> {
    let bar = Bar::new(output);
    let outcome = backup::verify(file, &bar);
    bar.clear();
    let found = outcome?;
    output.show(&found, || {
        let head = details([
            ("backup", "complete and undamaged".to_owned()),
            ("of", format!("{:.0}", found.head.at)),
            ("feed", found.head.feed.to_string()),
            ("copied again", format!("{} records that changed meanwhile", found.again)),
            ("audit log", format!("{} entries, up to {}", found.audit_entries, mark_text(&found.newest))),
            ("size", format!("{} octets in {} lines", found.octets, found.lines)),
            ("SHA-256", format!("{} (of all but the last line)", found.sha256)),
        ]);
        format!("{head}\n{}", counts(&found.records))
    })
}

async fn restore(file: &Path, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let (store, bar) = (settings.store()?, Bar::new(output));
    let outcome = backup::restore(&store, file, &bar).await;
    bar.clear();
    let restored = outcome?;
    output.show(&restored, || {
        format!(
            "{}\ncertstore has the backup of {:.0}, and serves. Its feed begins a new epoch: edges read everything anew by \
             themselves and keep what they have that is newer; certman puts back what it knows of by itself.\nWhat else was \
             acknowledged after {:.0} is lost. A new audit log begins; the one before ends with {}, as far as it is in the \
             backup.",
            counts(&restored.records),
            restored.at,
            restored.at,
            mark_text(&restored.newest)
        )
    })
}

fn counts(records: &BTreeMap<String, u64>) -> String {
    table(["TABLE", "RECORDS"], records.iter().map(|(name, count)| [name.clone(), count.to_string()]))
}
