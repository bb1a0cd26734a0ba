//! `certctl dns`.

use std::collections::BTreeMap;

use anyhow::bail;
use certseal_client::{CertmanClient, Progress};
use certseal_wire::{DnsName, DnsRecord, NamesReport, Readiness};
use clap::{Args, Subcommand};

use crate::{
    failure::Failure,
    output::{Output, table},
    progress_bar::Bar,
    settings::Settings,
};

#[derive(Debug, Subcommand)]
pub(crate) enum DnsCommand {
    /// Print the records that a site's names should have, as lines of a zone file; with --all those of the platform, too
    Plan(Which),
    /// Look at a site's names now, as a CA would, and say what is wrong with them: an order that waits for them goes on
    Check(Which),
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The site
    #[arg(required_unless_present = "all")]
    site: Option<DnsName>,
    /// All sites
    #[arg(long, conflicts_with = "site")]
    all: bool,
}

pub(super) async fn run(command: DnsCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let certman = settings.certman()?;
    match command {
        DnsCommand::Plan(which) => {
            let mut records: Vec<DnsRecord> =
                if which.all { certman.own_dns_plan().await?.records } else { Vec::new() };
            let sites = sites(&certman, which).await?;
            let bar = Bar::new(output);
            bar.begin("planning", sites.len() as u64);
            for site in &sites {
                let plan = certman.dns_plan(site).await?.ok_or_else(|| missing(site))?;
                records.extend(plan.records);
                bar.advance(1);
            }
            bar.clear();
            output.show(&records, || records.iter().map(|record| format!("{record}\n")).collect())
        }
        DnsCommand::Check(which) => {
            let sites = sites(&certman, which).await?;
            let (mut reports, bar) = (BTreeMap::new(), Bar::new(output));
            bar.begin("looking", sites.len() as u64);
            for site in sites {
                let report = certman.look_at_dns(&site).await?.ok_or_else(|| missing(&site))?;
                reports.insert(site, report);
                bar.advance(1);
            }
            bar.clear();
            output.show(&reports, || described(&reports))?;
            let bad = reports.values().filter(|report| report.readiness == Readiness::NotReady).count();
            if bad > 0 {
                bail!("{bad} of {} sites are not ready", reports.len());
            }
            Ok(())
        }
    }
}

async fn sites(certman: &CertmanClient, which: Which) -> anyhow::Result<Vec<DnsName>> {
    if let Some(site) = which.site {
        return Ok(vec![site]);
    }
    let (mut sites, mut after) = (Vec::new(), None::<DnsName>);
    loop {
        let page = certman.sites(after.as_ref()).await?;
        sites.extend(page.sites.into_iter().map(|status| status.site));
        match page.next {
            Some(next) if after.as_ref().is_none_or(|after| *after < next) => after = Some(next),
            Some(next) => bail!("certman's list of sites goes back to {next}: its pages do not end"),
            None => return Ok(sites),
        }
    }
}

fn missing(site: &DnsName) -> Failure {
    Failure::NotFound(format!("there is no site {site}"))
}

/// Each name in a line, and below the table what is wrong with those that are not ready, with the records that put it right.
fn described(reports: &BTreeMap<DnsName, NamesReport>) -> String {
    let names = reports.iter().flat_map(|(site, report)| report.names.iter().map(move |name| (site, name)));
    let rows = names.clone().map(|(site, name)| {
        let codes: Vec<_> = name.findings.iter().map(|finding| finding.code.as_str()).collect();
        let codes = if codes.is_empty() { "-".to_owned() } else { codes.join(", ") };
        [site.to_string(), name.name.to_string(), name.readiness.to_string(), codes]
    });
    let mut text = table(["SITE", "NAME", "READINESS", "FINDINGS"], rows);
    for (_, name) in names {
        for finding in &name.findings {
            text += &format!("\n{}: {}\n", name.name, finding.detail);
            finding.edits.iter().for_each(|edit| text += &format!("  {edit}\n"));
        }
    }
    crate::output::printable(&text)
}
