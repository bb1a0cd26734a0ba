//! `certctl keys`.

mod generate;
mod issuers;
mod key_place;
mod ring_text;
mod rotate;
mod rotation_text;

use anyhow::{Context, bail};
use certseal_seal::{RingMark, VerifyingKey};
use certseal_wire::KeyRing;
use clap::Subcommand;
use serde::Serialize;

use self::{
    generate::{GenerateArgs, generate},
    issuers::IssuersCommand,
    ring_text::ring_text,
    rotate::RotateCommand,
};
use crate::{failure::Failure, output::Output, settings::Settings};

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Generate the first unseal key of a pool and add it to the key ring
    Generate(GenerateArgs),
    /// Show the key ring
    List,
    /// The issuers (certman) whose signatures count
    #[command(subcommand)]
    Issuers(IssuersCommand),
    /// Replace a pool's unseal key, by a plan that two people agree on
    #[command(subcommand)]
    Rotate(RotateCommand),
}

pub(super) async fn run(command: KeysCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate(args) => generate(args, settings, output).await,
        KeysCommand::List => list(settings, output).await,
        KeysCommand::Issuers(command) => issuers::run(command, settings, output).await,
        KeysCommand::Rotate(command) => rotate::run(command, settings, output).await,
    }
}

async fn list(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let security = settings.security_public()?;
    let store = settings.store()?;
    let ring = match &security {
        Some(security) => settings.rings(&store, security.clone())?.current(RingMark::default()).await?,
        None => match store.ring().await.context("cannot read the key ring")? {
            Some(signed) => serde_json::from_slice(&signed.payload.0).context("the key ring does not parse")?,
            None => KeyRing::default(),
        },
    };
    if ring.version == 0 {
        let text = "certstore has no key ring yet: `certctl keys generate` makes the first one";
        bail!(Failure::NotFound(text.to_owned()));
    }
    let listed = Listed { verified: security.is_some(), ring: &ring };
    output.show(&listed, || ring_text(&ring, verdict(security.as_ref())))
}

#[derive(Serialize)]
struct Listed<'a> {
    verified: bool,
    #[serde(flatten)]
    ring: &'a KeyRing,
}

fn verdict(security: Option<&VerifyingKey>) -> &'static str {
    match security {
        Some(_) => "verified",
        None => "not checked: give --security-public",
    }
}
