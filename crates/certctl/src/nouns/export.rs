//! `certctl export`.

use std::path::PathBuf;

use anyhow::bail;
use certseal_ceremonies::{
    export::{self, Form},
    keys, legacy,
};
use certseal_seal::RingMark;
use clap::Args;

use crate::{
    failure::{Failure, refuse_failed},
    output::Output,
    progress_bar::Bar,
    settings::Settings,
};

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Directory for the sites' folders; made when it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Write the sealed bundles as they are, without opening anything
    #[arg(long)]
    pub(crate) sealed: bool,
    /// File of an unseal key, or its PKCS#11 URI; repeatable, for several pools too
    #[arg(long = "unseal-key", value_name = "KEY")]
    pub(crate) unseal_keys: Vec<String>,
    /// Private half of a key pair that imported keys are sealed to; repeatable
    #[arg(long = "legacy-key", value_name = "SUITE=FILE")]
    pub(crate) legacy_keys: Vec<String>,
    /// Say that you want what certseal otherwise never does: private keys in files, for whoever can read them
    #[arg(long)]
    pub(crate) write_private_keys_in_the_clear: bool,
}

pub(super) async fn run(args: ExportArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let ExportArgs { out, sealed, unseal_keys, legacy_keys, write_private_keys_in_the_clear } = args;
    if sealed == write_private_keys_in_the_clear {
        let text = "expected either --sealed, or --write-private-keys-in-the-clear with the keys that open them";
        bail!(Failure::Usage(text.to_owned()));
    }
    // One set for each pool; the legacy keys in one of their own.
    let mut keys = keys::load_by_pool(&unseal_keys)?;
    if !legacy_keys.is_empty() {
        keys.push(legacy::private_keys(&legacy_keys)?);
    }
    if !sealed && keys.is_empty() {
        bail!(Failure::Usage("expected --unseal-key or --legacy-key: nothing opens without".to_owned()));
    }
    let (store, security, bar) = (settings.store()?, settings.security_public_to_trust("plan")?, Bar::new(output));
    let ring = settings.rings(&store, security)?.existing(RingMark::default()).await?;
    let form = if sealed { Form::Sealed } else { Form::InTheClear(&keys) };
    let outcome = export::export(&store, &ring, &form, &out, &bar).await?;
    bar.clear();
    output.show(&outcome, || {
        let what = if sealed { "sealed as they are" } else { "with private keys in the clear" };
        let (written, unchanged) = (outcome.written, outcome.unchanged);
        format!("{written} sites written to {}, {what}; {unchanged} were there already\n", out.display())
    })?;
    refuse_failed("sites could not be exported", &outcome.failed, "")
}
