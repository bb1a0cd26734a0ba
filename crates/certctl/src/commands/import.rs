//! `certctl import`.

use std::time::Instant;

use serde_json::json;

use super::rotate::Bar;
use crate::{
    cli::ImportArgs,
    import::{self, Defaults},
    legacy,
    migrate::refuse_failed,
    output::{Output, table},
    settings::Settings,
};

pub(super) async fn run(args: ImportArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let ImportArgs { path, legacy_suite: suite, legacy_public, pools, upstream } = args;
    let key_id = legacy::public_key_id(suite, &legacy_public)?;
    let (certman, bar) = (settings.certman()?, Bar::new(output));
    let began = Instant::now();
    let outcome = import::import(&certman, &path, Defaults { suite, key_id, pools, upstream }, &bar).await?;
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
    refuse_failed("were not imported", &outcome.failed)
}
