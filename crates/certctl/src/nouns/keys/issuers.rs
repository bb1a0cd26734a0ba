//! `certctl keys issuers`.

use std::{path::PathBuf, time::Duration};

use certseal_ceremonies::issuers::{self, Replacement};
use certseal_seal::RingMark;
use certseal_wire::SignerId;
use clap::{Args, Subcommand};

use super::ring_text::ring_text;
use crate::{
    output::Output,
    progress_bar::Bar,
    settings::{Settings, signing_key, verifying_key},
};

#[derive(Debug, Subcommand)]
pub(crate) enum IssuersCommand {
    /// Have an issuer's signatures count
    Add {
        /// Public key of the issuer
        #[arg(long, value_name = "FILE")]
        public: PathBuf,
        #[command(flatten)]
        ring: RingArgs,
    },
    /// Change certman's issuer key: list the new one, wait until everything is signed with it, and list the old ones no more.
    /// It can be run again after whatever stopped it
    Replace(ReplaceArgs),
    /// Have an issuer's signatures count no more: what it signed is not acted upon from then on, not even served
    Remove {
        /// The issuer's id, as `certctl keys list` shows it
        id: SignerId,
        #[command(flatten)]
        ring: RingArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// Public key of the new issuer
    #[arg(long, value_name = "FILE")]
    pub(crate) public: PathBuf,
    /// Others may have the old key: nothing that it signed counts from now on, and certman orders every certificate anew
    /// once it has the new key. Sites are not served until then
    #[arg(long)]
    pub(crate) compromised: bool,
    /// With --compromised: keep out versions up to this one also when an old key signed them
    #[arg(long, value_name = "VERSION", requires = "compromised")]
    pub(crate) floor: Option<u64>,
    /// Have certificates renewed that only the old key signed for, in place of waiting for their renewals
    #[arg(long, conflicts_with = "compromised")]
    pub(crate) renew: bool,
    /// How long to wait for certman and edges
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

/// The arguments for signing a key ring.
#[derive(Debug, Args)]
pub(crate) struct RingArgs {
    /// Signing key of the security team
    #[arg(long, value_name = "FILE", default_value = "security.key")]
    pub(crate) security_key: PathBuf,
    /// Newest version of the key ring that you know of: an older one in the store is refused
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub(crate) seen: u64,
}

pub(super) async fn run(command: IssuersCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let store = settings.store()?;
    let ring = match command {
        IssuersCommand::Add { public, ring: args } => {
            let (issuer, security) = (verifying_key(&public)?, signing_key(&args.security_key)?);
            let rings = settings.rings(&store, security.verifying_key())?;
            issuers::add(&rings, &security, &issuer, RingMark::of_version(args.seen)).await?
        }
        IssuersCommand::Replace(args) => return replace(args, settings, output).await,
        IssuersCommand::Remove { id, ring: args } => {
            let security = signing_key(&args.security_key)?;
            let rings = settings.rings(&store, security.verifying_key())?;
            issuers::remove(&rings, &security, id, RingMark::of_version(args.seen)).await?
        }
    };
    output.show(&ring, || ring_text(&ring, "signed and stored"))
}

async fn replace(args: ReplaceArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let (new, security) = (verifying_key(&args.public)?, signing_key(&args.ring.security_key)?);
    let (store, bar) = (settings.store()?, Bar::new(output));
    let certman = args.renew.then(|| settings.certman()).transpose()?;
    let replacement = if args.compromised {
        Replacement::Compromised { floor: args.floor }
    } else {
        Replacement::Routine { renew: certman.as_ref(), patience: Duration::from_secs(args.timeout) }
    };
    let rings_of = settings.rings(&store, security.verifying_key())?;
    let seen = RingMark::of_version(args.ring.seen);
    let ring = issuers::replace(&rings_of, &security, &new, replacement, seen, &bar).await?;
    bar.clear();
    let next = "\nGive certman the new key as `issuer_key` and restart it: it signs everything anew, and orders every certificate \
                anew. `certctl site list` shows how far that is. Look for certificates that nobody ordered, and have them \
                revoked.\n";
    output.show(&ring, || ring_text(&ring, "signed and stored") + if args.compromised { next } else { "" })
}
