//! `certctl import`.

use std::{path::PathBuf, time::Instant};

use certseal_ceremonies::{
    import::{self, ImportDefaults},
    legacy,
};
use certseal_seal::LegacySuite;
use certseal_wire::{PoolName, Upstream};
use clap::Args;
use serde_json::json;

use crate::{
    failure::refuse_failed,
    output::{Output, table},
    progress_bar::Bar,
    settings::Settings,
};

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Directory or tar archive with a folder for each site
    pub(crate) path: PathBuf,
    /// How the keys are sealed: rsa-oaep-sha256, rsa-oaep-sha1 or ecies-secp256k1
    #[arg(long, value_name = "SUITE", value_parser = legacy::suite)]
    pub(crate) legacy_suite: LegacySuite,
    /// Public half of the key pair that they are sealed to: PEM for RSA, hexadecimal digits for secp256k1
    #[arg(long, value_name = "FILE")]
    pub(crate) legacy_public: PathBuf,
    /// Pool that may serve the sites, where site.toml names none; repeatable
    #[arg(long = "pool", value_name = "POOL")]
    pub(crate) pools: Vec<PoolName>,
    /// Server behind the edge, where site.toml names none
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<Upstream>,
}

pub(super) async fn run(args: ImportArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let ImportArgs { path, legacy_suite: suite, legacy_public, pools, upstream } = args;
    let key_id = legacy::public_key_id(suite, &legacy_public)?;
    let (certman, bar) = (settings.certman()?, Bar::new(output));
    let began = Instant::now();
    let outcome = import::import(&certman, &path, ImportDefaults { suite, key_id, pools, upstream }, &bar).await?;
    bar.clear();
    let seconds = began.elapsed().as_secs_f64();
    let view = json!({
        "sites": outcome.sites, "taken": outcome.taken, "kept": outcome.kept, "failed": outcome.failed, "seconds": seconds,
    });
    output.show(&view, || {
        let rate = outcome.sites as f64 / seconds.max(0.001);
        let head = format!(
            "{} of {} sites are with certman, in {seconds:.1} s ({rate:.0} a second); {} keep a certificate of their own\n",
            outcome.taken,
            outcome.sites,
            outcome.kept.len(),
        );
        let rows = outcome.failed.iter().map(|(name, why)| [name.clone(), "FAILED".to_owned(), why.clone()]);
        let kept = outcome.kept.iter().map(|(name, why)| [name.clone(), "kept".to_owned(), why.clone()]);
        let rows: Vec<_> = rows.chain(kept).collect();
        if rows.is_empty() { head } else { format!("{head}\n{}", table(["SITE", "OUTCOME", "WHY"], rows)) }
    })?;
    refuse_failed("sites were not imported", &outcome.failed, "")
}
