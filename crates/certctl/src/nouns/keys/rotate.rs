//! `certctl keys rotate`.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use certseal_ceremonies::{
    keys,
    rotation::{self, GenuineRotation, NewRotation, Run},
};
use certseal_seal::RingMark;
use certseal_wire::{Digest, PoolName, RotationId, RotationReason};
use clap::{Args, Subcommand};
use jiff::SignedDuration;

use super::{
    key_place::PlaceArgs,
    rotation_text::{show, show_all},
};
use crate::{
    failure::refuse_failed,
    output::Output,
    progress_bar::Bar,
    settings::{Settings, signing_key},
};

#[derive(Debug, Subcommand)]
pub(crate) enum RotateCommand {
    /// Generate the next key of a pool, and propose the plan that replaces the old one
    Plan(PlanArgs),
    /// Show a rotation with its plan, or all rotations
    Show {
        /// The rotation; all of them without it
        id: Option<RotationId>,
    },
    /// Approve the plan that another admin proposed
    Approve {
        /// The rotation
        id: RotationId,
        /// Digest of the plan that you have looked at
        #[arg(long)]
        digest: Digest,
    },
    /// Announce the new key, wait for the edges, make it active, and seal every content key to it
    Run(RunArgs),
    /// Seal what is left to the new key, and nothing else: for the host that has the old key, with an edge's identity
    Rewrap {
        /// The rotation
        id: RotationId,
        /// Also what is sealed to the new key already, in place of stanzas that do not open; takes an admin's identity
        #[arg(long)]
        all: bool,
        /// File of an old key, or its PKCS#11 URI; repeatable
        #[arg(long = "unseal-key", value_name = "KEY", required = true)]
        unseal_keys: Vec<String>,
    },
    /// Open bundles with the new key, and compare each TLS key with its certificate
    Verify {
        /// The rotation
        id: RotationId,
        /// File of the new key, or its PKCS#11 URI
        #[arg(long = "unseal-key", value_name = "KEY")]
        unseal_key: String,
    },
    /// Remove the stanzas of the old keys, and retire these in the key ring
    Retire {
        /// The rotation
        id: RotationId,
        /// How long to wait for edges that have not read the new stanzas yet
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        timeout: u64,
        /// Signing key of the security team
        #[arg(long, value_name = "FILE", default_value = "security.key")]
        security_key: PathBuf,
    },
    /// Give a rotation up, as long as its key is not active
    Abort {
        /// The rotation
        id: RotationId,
        /// Signing key of the security team
        #[arg(long, value_name = "FILE", default_value = "security.key")]
        security_key: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The pool
    #[arg(long)]
    pub(crate) pool: PoolName,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Signing key of the security team
    #[arg(long, value_name = "FILE", default_value = "security.key")]
    pub(crate) security_key: PathBuf,
    /// Somebody else may have the old key: have every certificate issued again with a new key and the old ones revoked,
    /// since sealing the same keys anew does not help then
    #[arg(long)]
    pub(crate) compromised: bool,
    /// Open one of so many bundles before old stanzas are removed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) verify_one_in: u32,
    /// How long the plan can be approved and begun
    #[arg(long, value_name = "HOURS", default_value_t = 72, value_parser = clap::value_parser!(u16).range(1..=720))]
    pub(crate) valid_hours: u16,
    /// What to remember about it
    #[arg(long, default_value = "")]
    pub(crate) note: String,
    /// Newest version of the key ring that you know of: an older one in the store is refused
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub(crate) seen: u64,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The rotation
    pub(crate) id: RotationId,
    /// Signing key of the security team
    #[arg(long, value_name = "FILE", default_value = "security.key")]
    pub(crate) security_key: PathBuf,
    /// File of an old key, or its PKCS#11 URI, to open content keys with; repeatable. Not needed for a compromised key
    #[arg(long = "unseal-key", value_name = "KEY")]
    pub(crate) unseal_keys: Vec<String>,
    /// How long to wait for edges, and for certificates that are issued again
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
}

pub(super) async fn run(command: RotateCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let store = settings.store()?;
    let bar = Bar::new(output);
    let known = match command {
        RotateCommand::Plan(args) => return plan(args, settings, output).await,
        RotateCommand::Show { id: None } => return list(settings, output).await,
        RotateCommand::Show { id: Some(id) } => {
            rotation::read(&store, &settings.security_public_to_trust("plan")?, id).await?
        }
        RotateCommand::Approve { id, digest } => {
            rotation::approve(&store, &settings.security_public_to_trust("plan")?, id, digest).await?
        }
        RotateCommand::Run(RunArgs { id, security_key, unseal_keys, timeout }) => {
            let (security, keys) = (signing_key(&security_key)?, keys::load_of_one_pool(&unseal_keys)?);
            let certman = settings.certman().ok();
            let patience = Duration::from_secs(timeout);
            let run = Run { security: &security, keys: &keys, certman: certman.as_ref(), patience };
            rotation::run(&settings.rings(&store, security.verifying_key())?, id, &run, &bar).await?
        }
        RotateCommand::Rewrap { id, all, unseal_keys } => {
            let (security, keys) = (settings.security_public_to_trust("plan")?, keys::load_of_one_pool(&unseal_keys)?);
            let known = rotation::read(&store, &security, id).await?;
            let rings = settings.rings(&store, security.clone())?;
            let outcome = rotation::rewrap(&rings, &known.plan, &keys, all, &bar).await?;
            refuse_failed("bundles could not be sealed to the new key", &outcome.failed, REISSUE)?;
            rotation::read(&store, &security, id).await?
        }
        RotateCommand::Verify { id, unseal_key } => {
            let (security, keys) = (settings.security_public_to_trust("plan")?, keys::load_of_one_pool(&[unseal_key])?);
            let known = rotation::read(&store, &security, id).await?;
            let outcome = rotation::verify(&store, &known.plan, &keys, &bar).await?;
            refuse_failed("bundles could not be opened with the new key", &outcome.failed, REISSUE)?;
            rotation::read(&store, &security, id).await?
        }
        RotateCommand::Retire { id, security_key, timeout } => {
            let patience = Duration::from_secs(timeout);
            let security = signing_key(&security_key)?;
            let rings = settings.rings(&store, security.verifying_key())?;
            rotation::retire(&rings, id, &security, patience, &bar).await?
        }
        RotateCommand::Abort { id, security_key } => {
            let security = signing_key(&security_key)?;
            rotation::abort(&settings.rings(&store, security.verifying_key())?, id, &security).await?
        }
    };
    bar.clear();
    show(&known, output)
}

async fn plan(args: PlanArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let PlanArgs { pool, place, security_key, compromised, verify_one_in, valid_hours, note, seen } = args;
    let out = place.place()?;
    out.check_free()?;
    let (store, security) = (settings.store()?, signing_key(&security_key)?);
    let rings = settings.rings(&store, security.verifying_key())?;
    let ring = rings.existing(RingMark::of_version(seen)).await?;
    let (epoch, suite) = rotation::next_key(&ring, &pool)?;
    let key = out.make_key(&pool, epoch, suite).context("nothing was proposed")?;
    let reason = if compromised { RotationReason::Compromised } else { RotationReason::Routine };
    let validity = SignedDuration::from_hours(valid_hours.into());
    let new = NewRotation { pool, reason, verify_one_in, validity, note };
    let proposed = rotation::propose(&rings, &security, &ring, new, (&key.recipient(), key.public_key())).await;
    let known = proposed.with_context(|| format!("no plan names {out}, which can be deleted"))?;
    show(&known, output)
}

async fn list(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let security = settings.security_public_to_trust("plan")?;
    let rotations = settings.store()?.rotations().await?.rotations;
    let known = rotations.into_iter().map(|rotation| GenuineRotation::verify(rotation, &security));
    let known = known.collect::<Result<Vec<_>, _>>()?;
    show_all(&known, output)
}

/// The remedy for bundles that do not open.
const REISSUE: &str = "; have them issued again with `certctl site renew`";
