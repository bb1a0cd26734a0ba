//! `certctl site`.

use std::time::Duration;

use anyhow::{bail, ensure};
use certseal_client::{CertmanClient, Progress};
use certseal_wire::{
    DnsName, KeyType, LOST, NameSet, PoolName, ProfileName, Renewal, RenewalAdvice, RevocationReason,
    RevocationRequest, SiteRequest, SiteState, SiteStatus, StapleStatus, Upstream, ValidationMethod,
};
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{
    onboard::{self, OnboardArgs},
    site_import::{self, ImportArgs},
};
use crate::{
    failure::Failure,
    output::{Output, details, joined, or_dash, table},
    progress_bar::{Bar, spinner},
    settings::Settings,
};

#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// Add a site, or change it
    Add(AddArgs),
    /// Add many sites in steps: a few first, and no further step when too many fail
    Onboard(OnboardArgs),
    /// Add and change many sites, as they are in a list; sites that are not in it stay as they are
    Import(ImportArgs),
    /// List all sites
    List {
        /// Only those whose certificates are near their end: half of the time since the renewal was due has passed
        #[arg(long)]
        expiring: bool,
    },
    /// Show one site
    Status {
        /// The site
        name: DnsName,
    },
    /// Begin a renewal now
    Renew {
        /// The site
        name: DnsName,
    },
    /// Ask the CA now when it wants certificates to be renewed: it is asked every few hours, which may be late in an incident
    Advice {
        /// The site
        #[arg(required_unless_present = "all")]
        name: Option<DnsName>,
        /// Ask about all sites
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Have a certificate revoked, once another one has taken its place
    Revoke(RevokeArgs),
    /// List the sites whose certificates certstore says that it lost, after a restore say
    Lost {
        /// Have all of them ordered at once
        #[arg(long)]
        order: bool,
    },
    /// Remove a site: its route, its certificate, its orders
    Remove {
        /// The site
        name: DnsName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The site
    #[arg(value_name = "NAME")]
    pub(crate) site: DnsName,
    /// Further name that leads to it; repeatable
    #[arg(long = "name", value_name = "ALIAS")]
    pub(crate) aliases: Vec<DnsName>,
    /// Server behind the edge, such as http://10.0.0.7:8080
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Upstream,
    /// Pool that may serve it; repeatable
    #[arg(long = "pool", value_name = "POOL", required = true)]
    pub(crate) pools: Vec<PoolName>,
    /// Whose site it is: sites of one owner may have names under each other's wildcards
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<String>,
    /// Certificate profile to ask the CA for, such as classic, tlsserver or shortlived; certman's own when absent
    #[arg(long, value_name = "PROFILE")]
    pub(crate) profile: Option<ProfileName>,
    /// Type of key: ecdsa-p256, rsa-2048 for old clients, or both, and each client gets what it can use
    #[arg(long, value_name = "TYPE", default_value_t)]
    pub(crate) key_type: KeyType,
    /// How its names are validated, such as dns-01; repeatable, the first first; certman's own ways when absent
    #[arg(long = "challenge", value_name = "METHOD")]
    pub(crate) challenges: Vec<ValidationMethod>,
    /// Wait until a certificate for all its names is stored, or it has failed
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "wait")]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The site
    name: DnsName,
    /// Why: key-compromise, superseded, cessation-of-operation, affiliation-changed or unspecified
    #[arg(long, value_name = "REASON")]
    reason: RevocationReason,
    /// Version of the certificate, which must be the newest: another one is refused
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Revoke at once, and issue no other one: for cessation-of-operation only
    #[arg(long)]
    without_replacement: bool,
}

pub(super) async fn run(command: SiteCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let certman = settings.certman()?;
    match command {
        SiteCommand::Add(args) => add(&certman, args, output).await,
        SiteCommand::Onboard(args) => onboard::run(&certman, args, output).await,
        SiteCommand::Import(args) => site_import::run(&certman, args, output).await,
        SiteCommand::List { expiring: true } => show(&certman.expiring().await?.sites, output),
        SiteCommand::List { expiring: false } => list(&certman, output).await,
        SiteCommand::Status { name } => {
            let status = certman.site(&name).await?.ok_or_else(|| unknown(&name))?;
            output.show(&status, || description(&status))
        }
        SiteCommand::Renew { name } => {
            let status = certman.renew(&name, &Renewal::default()).await?;
            output.show(&status, || description(&status))
        }
        SiteCommand::Advice { name, .. } => {
            let names = match name {
                Some(name) => vec![name],
                None => all(&certman).await?.into_iter().map(|site| site.site).collect(),
            };
            advice(&certman, &names, output).await
        }
        SiteCommand::Revoke(RevokeArgs { name, reason, version, without_replacement }) => {
            let status = certman.revoke(&name, &RevocationRequest { reason, version, without_replacement }).await?;
            output.show(&status, || description(&status))
        }
        SiteCommand::Lost { order } => lost(&certman, order, output).await,
        SiteCommand::Remove { name } => {
            certman.remove_site(&name).await?;
            output.show(&json!({ "removed": name }), || format!("{name} is removed"))
        }
    }
}

async fn add(certman: &CertmanClient, args: AddArgs, output: Output) -> anyhow::Result<()> {
    let AddArgs { site, aliases, upstream, pools, owner, profile, key_type, challenges, wait, timeout } = args;
    let names = NameSet::try_from([vec![site.clone()], aliases].concat())?;
    let request = SiteRequest { names, upstream, pools, owner, profile, key_type, challenges };
    let mut status = certman.put_site(&site, &request).await?;
    if wait {
        status = settled(certman, status, Duration::from_secs(timeout), output).await?;
    }
    // A failed site is shown too: the diagnosis may be longer than an error should be.
    output.show(&status, || description(&status))?;
    ensure!(!wait || status.state == SiteState::Active, "{site} failed: {}", diagnosis(&status));
    Ok(())
}

/// Asks until the site is active without an order under way, or failed.
async fn settled(
    certman: &CertmanClient,
    mut status: SiteStatus,
    patience: Duration,
    output: Output,
) -> anyhow::Result<SiteStatus> {
    let site = status.site.clone();
    let spinner = spinner(output);
    let deadline = Instant::now() + patience;
    let mut trouble = None;
    while !is_settled(&status) {
        spinner.set_message(progress(&status));
        if Instant::now() >= deadline {
            let trouble = trouble.unwrap_or_else(|| diagnosis(&status));
            let seconds = patience.as_secs();
            let said = format!("{} after {seconds} s: {trouble}", progress(&status));
            bail!(Failure::TimedOut(format!("{said}; `certctl site status {site}` shows how it goes on")));
        }
        sleep_until(deadline.min(Instant::now() + POLL)).await;
        match certman.site(&site).await {
            Ok(Some(now)) => (status, trouble) = (now, None),
            Ok(None) => bail!(Failure::NotFound(format!("{site} was removed meanwhile"))),
            Err(error) if error.may_pass() => trouble = Some(error.to_string()),
            Err(error) => bail!(error),
        }
    }
    Ok(status)
}

/// A site that was changed is active with its old certificate while the order for the new one is under way.
fn is_settled(site: &SiteStatus) -> bool {
    site.state == SiteState::Failed || site.state == SiteState::Active && site.order.is_none()
}

/// Has the CA asked about sites.
async fn advice(certman: &CertmanClient, names: &[DnsName], output: Output) -> anyhow::Result<()> {
    let bar = Bar::new(output);
    bar.begin("asking", names.len() as u64);
    for name in names {
        certman.ask_advice(name).await?;
        bar.advance(1);
    }
    bar.clear();
    let count = names.len();
    let said = format!("the CA is asked about {count} of them; `certctl site status NAME` shows what it says");
    output.show(&json!({ "asked": count }), || said)
}

/// Shows what certstore lost, and has it ordered when `order`.
async fn lost(certman: &CertmanClient, order: bool, output: Output) -> anyhow::Result<()> {
    let mut sites = all(certman).await?;
    sites.retain(|site| site.order.as_ref().is_some_and(|order| order.step == LOST));
    if order {
        for site in &mut sites {
            *site = certman.renew(&site.site, &Renewal::default()).await?;
        }
    }
    show(&sites, output)
}

async fn list(certman: &CertmanClient, output: Output) -> anyhow::Result<()> {
    show(&all(certman).await?, output)
}

async fn all(certman: &CertmanClient) -> anyhow::Result<Vec<SiteStatus>> {
    let mut sites: Vec<SiteStatus> = Vec::new();
    let mut after: Option<DnsName> = None;
    loop {
        let page = certman.sites(after.as_ref()).await?;
        sites.extend(page.sites);
        match page.next {
            Some(next) if after.as_ref().is_none_or(|after| *after < next) => after = Some(next),
            Some(next) => bail!("certman's list of sites goes back to {next}: its pages do not end"),
            None => return Ok(sites),
        }
    }
}

fn show(sites: &[SiteStatus], output: Output) -> anyhow::Result<()> {
    let header = ["SITE", "STATE", "ISSUER", "EXPIRES", "VERSION", "DIAGNOSIS"];
    output.show(&sites, || {
        let rows = sites.iter().map(|site| {
            let said = site.order.as_ref().and_then(|order| order.diagnosis.as_deref());
            let (expires, version) = (or_dash(site.not_after), site.version.to_string());
            let (name, state) = (site.site.to_string(), site.state.to_string());
            [name, state, or_dash(site.authority.as_ref()), expires, version, or_dash(said)]
        });
        table(header, rows)
    })
}

fn description(site: &SiteStatus) -> String {
    let mut rows = vec![
        ("site", site.site.to_string()),
        ("names", joined(site.names.iter())),
        ("upstream", site.upstream.to_string()),
        ("pools", joined(&site.pools)),
        ("profile", or_dash(site.profile.as_ref())),
        ("key", site.key_type.to_string()),
        ("challenges", or_dash((!site.challenges.is_empty()).then(|| joined(&site.challenges)))),
        ("state", site.state.to_string()),
        ("names are", site.names_state.to_string()),
        ("certificate is", site.certificate_state.to_string()),
        ("version", site.version.to_string()),
        ("issuer", or_dash(site.authority.as_ref())),
        ("expires", or_dash(site.not_after)),
        ("renewal", or_dash(site.renew_at)),
    ];
    if let Some(RenewalAdvice { start, end, explanation, ask_at }) = &site.advice {
        rows.push(("the CA's advice", format!("{start} to {end}")));
        rows.extend(explanation.iter().map(|page| ("reason", page.clone())));
        rows.push(("asked again", or_dash(*ask_at)));
    }
    if let Some(StapleStatus { version, fetch_at, failures, diagnosis }) = &site.staple {
        rows.push(("OCSP answer", if *version == 0 { "none yet".to_owned() } else { format!("version {version}") }));
        rows.push(("fetched again", fetch_at.map_or_else(|| "now".to_owned(), |at| at.to_string())));
        if let Some(diagnosis) = diagnosis.as_ref().filter(|_| *failures > 0) {
            rows.push(("OCSP failure", diagnosis.clone()));
        }
    }
    if let Some(order) = &site.order {
        rows.extend([
            ("order", order.step.clone()),
            ("failures", order.failures.to_string()),
            ("next attempt", or_dash(order.retry_at)),
            ("diagnosis", or_dash(order.diagnosis.as_ref())),
        ]);
    }
    details(rows)
}

fn progress(site: &SiteStatus) -> String {
    match &site.order {
        Some(order) => format!("{}: {} ({})", site.site, site.state, order.step),
        None => format!("{}: {}", site.site, site.state),
    }
}

fn diagnosis(site: &SiteStatus) -> String {
    let said = site.order.as_ref().and_then(|order| order.diagnosis.clone());
    said.unwrap_or_else(|| "certman gives no diagnosis".to_owned())
}

fn unknown(site: &DnsName) -> Failure {
    Failure::NotFound(format!("certman knows no site {site}"))
}

/// From one question to the next while waiting.
const POLL: Duration = Duration::from_secs(1);
