//! `certctl site import`.

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use certseal_ceremonies::onboarding::{self, Imported, SiteDefaults};
use certseal_client::CertmanClient;
use certseal_wire::{ChangeKind, PoolName, ProfileName, Upstream};
use clap::Args;

use crate::{
    output::{Output, details, table},
    progress_bar::Bar,
};

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// List of sites: in each line a name, or a JSON object with site, names, upstream, pools, owner, profile
    #[arg(value_name = "FILE")]
    list: PathBuf,
    /// Server behind the edge, where the line names none
    #[arg(long, value_name = "URL")]
    upstream: Option<Upstream>,
    /// Pool that may serve the sites, where the line names none; repeatable
    #[arg(long = "pool", value_name = "POOL")]
    pools: Vec<PoolName>,
    /// Certificate profile to ask the CA for, where the line names none
    #[arg(long, value_name = "PROFILE")]
    profile: Option<ProfileName>,
}

pub(super) async fn run(certman: &CertmanClient, args: ImportArgs, output: Output) -> anyhow::Result<()> {
    let ImportArgs { list, upstream, pools, profile } = args;
    let text = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let sites = onboarding::read(&text, &SiteDefaults { upstream, pools, profile });
    let sites = sites.with_context(|| list.display().to_string())?;
    let bar = Bar::new(output);
    let imported = onboarding::import(certman, sites, &bar).await;
    bar.clear();
    let imported = imported?;
    output.show(&imported, || description(&imported))?;
    let refused = imported.refused.len();
    ensure!(refused == 0, "{refused} sites were refused; all others are as the list says");
    Ok(())
}

fn description(imported: &Imported) -> String {
    let count = |kind: ChangeKind| imported.counts.get(&kind).copied().unwrap_or_default().to_string();
    let kinds = [ChangeKind::Created, ChangeKind::Changed, ChangeKind::Unchanged, ChangeKind::Refused];
    let counts = details(kinds.map(|kind| (kind.as_str(), count(kind))).to_vec());
    if imported.refused.is_empty() {
        return counts;
    }
    let refused = imported.refused.iter().map(|(site, why)| [site.to_string(), why.clone()]);
    format!("{counts}\n\n{}", table(["SITE", "WHY IT IS REFUSED"], refused))
}
