//! Adds sites and waits until each has its certificate.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::Context;
use certseal_client::CertmanClient;
use certseal_wire::{DnsName, NameSet, Readiness, SiteRequest, SiteState, SiteStatus};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::platform::Platform;

/// Names for `count` sites under `suffix`: `site-001.SUFFIX` and so on.
///
/// # Errors
/// When `suffix` is no DNS name.
pub fn demo_names(count: usize, suffix: &str) -> anyhow::Result<Vec<DnsName>> {
    (1..=count).map(|number| Ok(format!("site-{number:03}.{suffix}").parse()?)).collect()
}

/// The name under `suffix` whose DNS is wrong.
///
/// # Errors
/// When `suffix` is no DNS name.
pub fn broken_name(suffix: &str) -> anyhow::Result<DnsName> {
    Ok(format!("broken.{suffix}").parse()?)
}

/// Adds `sites`, all with one upstream.
///
/// # Errors
/// When certman refuses one or cannot be reached.
pub async fn add(platform: &Platform, sites: &[DnsName], upstream: SocketAddr) -> anyhow::Result<()> {
    let mut calls = JoinSet::new();
    for site in sites {
        if calls.len() >= PARALLEL {
            finish(calls.join_next().await)?;
        }
        let (certman, site) = (platform.certman.clone(), site.clone());
        let request = SiteRequest::new(
            NameSet::try_from(vec![site.clone()])?,
            format!("http://{upstream}").parse()?,
            vec![platform.pool.clone()],
        );
        calls.spawn(async move { certman.put_site(&site, &request).await.with_context(|| format!("adding {site}")) });
    }
    while let Some(done) = calls.join_next().await {
        finish(Some(done))?;
    }
    Ok(())
}

/// Waits until every site is active, has failed for good, or has names that are not ready, at most `patience`; answers how they
/// are.
///
/// # Errors
/// When certman cannot be asked.
pub async fn settle(
    certman: &CertmanClient,
    count: usize,
    patience: Duration,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<SiteStatus>> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let sites = all(certman).await?;
        let settled = sites.iter().filter(|site| is_settled(site)).count();
        progress.set_position(settled as u64);
        if let Some(steps) = in_words(&sites) {
            progress.set_message(steps);
        }
        if settled >= count || tokio::time::Instant::now() > deadline {
            return with_findings(certman, sites).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The same sites, where those whose names are not ready say what is wrong with them: a list leaves that out.
async fn with_findings(certman: &CertmanClient, mut sites: Vec<SiteStatus>) -> anyhow::Result<Vec<SiteStatus>> {
    for site in sites.iter_mut().filter(|site| site.names_state == Readiness::NotReady).take(SAID_MOST) {
        if let Some(alone) = certman.site(&site.site).await.with_context(|| site.site.to_string())? {
            *site = alone;
        }
    }
    Ok(sites)
}

/// Sites that say what is wrong with them: more fill a screen.
const SAID_MOST: usize = 20;

/// A progress bar on standard error; silent where that is no terminal.
pub fn progress_bar(count: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} {elapsed} {wide_msg}");
    // The template is a constant that parses; without it the bar has another look.
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
    ProgressBar::new(count as u64).with_style(style).with_prefix(what)
}

/// Whether nothing follows by itself. Names that are not ready wait for somebody who mends them.
fn is_settled(site: &SiteStatus) -> bool {
    match site.state {
        SiteState::Active | SiteState::Failed => true,
        SiteState::Waiting => site.names_state == Readiness::NotReady,
        SiteState::Pending => false,
    }
}

async fn all(certman: &CertmanClient) -> anyhow::Result<Vec<SiteStatus>> {
    let mut sites = Vec::new();
    let mut after = None;
    loop {
        let page = certman.sites(after.as_ref()).await.context("listing the sites")?;
        sites.extend(page.sites);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(sites),
        }
    }
}

/// How many sites are at which step: `challenge pending 3, retrieving 2`.
fn in_words(sites: &[SiteStatus]) -> Option<String> {
    let mut steps = BTreeMap::<&str, usize>::new();
    for order in sites.iter().filter_map(|site| site.order.as_ref()) {
        *steps.entry(order.step.as_str()).or_default() += 1;
    }
    let words: Vec<_> = steps.iter().map(|(step, count)| format!("{step} {count}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn finish<T>(done: Option<Result<anyhow::Result<T>, tokio::task::JoinError>>) -> anyhow::Result<()> {
    match done {
        Some(done) => done?.map(drop),
        None => Ok(()),
    }
}

const PARALLEL: usize = 16;
