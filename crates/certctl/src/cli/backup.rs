//! The command line of `certctl backup`.

use std::path::PathBuf;

use clap::Subcommand;

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
