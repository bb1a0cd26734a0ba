//! The certedge daemon, and the signer beside it.

use std::{path::PathBuf, process::ExitCode};

use certedge::KeysIn;
use clap::{Parser, Subcommand, ValueEnum};

/// Terminates TLS for the sites of one pool
#[derive(Debug, Parser)]
#[command(name = "certedge", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Which process holds unseal keys and opened keys
    #[arg(long, value_enum, default_value_t)]
    signer: SignerIs,
    #[command(subcommand)]
    other: Option<Other>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum SignerIs {
    /// This one
    #[default]
    InProcess,
    /// One that this one starts: the process that talks to the network never holds a key
    Separate,
    /// One that was started with `certedge signer`, as another user for example
    External,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Opens sealed keys and signs, over a Unix socket, for the edges of this machine
    Signer {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where to listen, in place of the configuration's [signer] socket
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// End with the standard input
        #[arg(long, hide = true)]
        on_leash: bool,
    },
}

fn main() -> ExitCode {
    let Arguments { config, signer, other } = Arguments::parse();
    if let Some(Other::Signer { config, socket, on_leash }) = other {
        return certseal_service::blocking_daemon("certedge signer", &config, |config| {
            certedge::run_signer(config, socket, on_leash)
        });
    }
    // clap requires it where there is no subcommand.
    let file = config.unwrap_or_default();
    let keys_in = match signer {
        SignerIs::InProcess => KeysIn::ThisProcess,
        // The program that runs, also after its file was replaced: both processes are of one release.
        SignerIs::Separate => KeysIn::Child { program: "/proc/self/exe".into(), config: file.clone() },
        SignerIs::External => KeysIn::Signer,
    };
    certseal_service::daemon("certedge", &file, |config, shutdown| async {
        certedge::start_with(config, keys_in, shutdown).await?.finished().await
    })
}
