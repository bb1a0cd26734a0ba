//! All of certseal on one machine, for a first look and for development.

use std::{
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use certseal::{
    onboarding,
    platform::{self, Options, Platform},
    upstream,
    verification::Verifier,
};
use certseal_service::{Shutdown, keep_memory_private, telemetry};
use certseal_wire::{DnsName, SiteState, SiteStatus};
use clap::Parser;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// Starts certstore, certman and certedge on loopback, and brings HTTPS to some sites.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 all sites are served, 1 some are not, or it did not start, 2 usage.")]
struct Arguments {
    /// How many sites to bring up.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    sites: u16,
    /// What the sites' names end in.
    #[arg(long, default_value = "demo.test")]
    suffix: String,
    /// An ACME CA's directory URL, in place of the built-in CA. It must reach the edge's HTTP port for those names.
    #[arg(long, requires = "acme_root")]
    acme: Option<String>,
    /// The CAs that may certify the ACME server, PEM.
    #[arg(long)]
    acme_root: Option<PathBuf>,
    /// The roots that the sites' certificates must lead to, PEM; by default the built-in CA, or the system's.
    #[arg(long)]
    site_root: Option<PathBuf>,
    /// The edge's HTTPS port on loopback; 0 for any free one.
    #[arg(long, default_value_t = 0)]
    https_port: u16,
    /// The edge's HTTP port on loopback; 0 for any free one.
    #[arg(long, default_value_t = 0)]
    http_port: u16,
    /// Seconds to wait for all certificates.
    #[arg(long, default_value_t = 300)]
    patience: u64,
    /// Stop after every site was looked at: exit 0 when all are served, 1 otherwise.
    #[arg(long)]
    once: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    telemetry::start_logs("warn");
    let outcome = keep_memory_private()
        .and_then(|()| tokio::runtime::Builder::new_multi_thread().enable_all().build())
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(run(&arguments)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("certseal: {}", certseal_wire::causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The report that is printed: counts, seconds for each phase, and the failures.
#[derive(Serialize)]
struct Report {
    sites: usize,
    active: usize,
    verified: usize,
    https: SocketAddr,
    root: PathBuf,
    seconds: Seconds,
    failures: Vec<SiteFailure>,
}

#[derive(Serialize)]
struct Seconds {
    start: f64,
    issue: f64,
    verify: f64,
}

#[derive(Serialize)]
struct SiteFailure {
    site: DnsName,
    error: String,
}

async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let dir = tempfile::Builder::new().prefix("certseal-").tempdir()?;
    let on_signal = Shutdown::on_signal()?;
    let (handle, shutdown) = Shutdown::new();

    let started = Instant::now();
    let options = Options {
        dir: dir.path().to_owned(),
        acme: arguments.acme.clone().zip(arguments.acme_root.clone()),
        https_port: arguments.https_port,
        http_port: arguments.http_port,
    };
    let platform = platform::start(&options, &shutdown).await?;
    let start = started.elapsed();

    let shown = tokio::select! {
        shown = bring_up(arguments, &platform, start, &shutdown) => Some(shown),
        () = on_signal.begun() => None,
    };
    let served = match &shown {
        Some(Ok(report)) => report.verified == report.sites,
        _ => false,
    };
    if let (Some(Ok(_)), false) = (&shown, arguments.once) {
        on_signal.begun().await;
        eprintln!("stopping");
    }
    handle.begin();
    platform.finished().await?;
    shown.transpose()?;
    // Asked to stop after all was served is no failure.
    Ok(served)
}

async fn bring_up(
    arguments: &Arguments,
    platform: &Platform,
    start: Duration,
    shutdown: &Shutdown,
) -> anyhow::Result<Report> {
    let sites = onboarding::demo_names(arguments.sites.into(), &arguments.suffix)?;
    let upstream = upstream::start(shutdown.clone()).await?;
    let root = site_root(arguments, platform);
    let verifier = Verifier::new(&root)?;

    let begun = Instant::now();
    let progress = onboarding::progress_bar(sites.len(), "certificates");
    onboarding::add(platform, &sites, upstream).await?;
    let patience = Duration::from_secs(arguments.patience);
    let statuses = onboarding::settle(&platform.certman, sites.len(), patience, &progress).await?;
    progress.finish_and_clear();
    let issue = begun.elapsed();

    let begun = Instant::now();
    let failures = look_at_all(&verifier, platform.https, &statuses).await?;
    let report = Report {
        sites: sites.len(),
        active: statuses.iter().filter(|status| status.state == SiteState::Active).count(),
        verified: sites.len() - failures.len(),
        https: platform.https,
        root,
        seconds: Seconds {
            start: start.as_secs_f64(),
            issue: issue.as_secs_f64(),
            verify: begun.elapsed().as_secs_f64(),
        },
        failures,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_table(&report, &statuses, arguments.once);
    }
    Ok(report)
}

fn site_root(arguments: &Arguments, platform: &Platform) -> PathBuf {
    let system = || PathBuf::from("/etc/ssl/certs/ca-certificates.crt");
    arguments.site_root.clone().or_else(|| platform.local_root.clone()).unwrap_or_else(system)
}

async fn look_at_all(
    verifier: &Verifier,
    edge: SocketAddr,
    statuses: &[SiteStatus],
) -> anyhow::Result<Vec<SiteFailure>> {
    let progress = onboarding::progress_bar(statuses.len(), "served");
    let (active, waiting): (Vec<_>, Vec<_>) = statuses.iter().partition(|status| status.state == SiteState::Active);
    let sites = active.into_iter().map(|status| status.site.clone()).collect();
    let looks = verifier.verify_all(edge, sites, Duration::from_secs(5), || progress.inc(1)).await?;
    let looks = looks.into_iter().map(|(site, error)| SiteFailure { site, error: format!("{error:#}") });
    let never = waiting.into_iter().map(|status| {
        let diagnosis = status.order.as_ref().and_then(|order| order.diagnosis.clone());
        let error = diagnosis.unwrap_or_else(|| "no certificate in time".to_owned());
        SiteFailure { site: status.site.clone(), error }
    });
    let mut failures: Vec<_> = looks.chain(never).collect();
    progress.finish_and_clear();
    failures.sort_by(|a, b| a.site.cmp(&b.site));
    Ok(failures)
}

fn print_table(report: &Report, statuses: &[SiteStatus], once: bool) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["site", "state", "issuer", "expires"]);
    for status in statuses.iter().take(SHOWN) {
        let expires = status.not_after.map(|instant| instant.strftime("%Y-%m-%d %H:%M UTC").to_string());
        let issuer = status.authority.clone().unwrap_or_default();
        table.add_row([status.site.to_string(), status.state.to_string(), issuer, expires.unwrap_or_default()]);
    }
    println!("{table}");
    if statuses.len() > SHOWN {
        println!("... and {} more", statuses.len() - SHOWN);
    }
    for SiteFailure { site, error } in &report.failures {
        println!("not served: {site}: {error}");
    }
    let Report { sites, verified, seconds: Seconds { start, issue, verify }, .. } = report;
    println!(
        "{verified} of {sites} sites are served over HTTPS (started in {start:.1} s, issued in {issue:.1} s, looked at in {verify:.1} s)"
    );
    if once {
        return;
    }
    if let Some(status) = statuses.first() {
        println!("\nTry it from another terminal:\n\n  {}\n", curl_line(&report.root, report.https, &status.site));
    }
    let how = if std::io::stdin().is_terminal() { "Ctrl-C" } else { "SIGINT" };
    println!("{how} stops everything and removes its temporary directory.");
}

fn curl_line(root: &Path, https: SocketAddr, site: &DnsName) -> String {
    format!("curl --cacert {} --connect-to ::{https} https://{site}/", root.display())
}

const SHOWN: usize = 25;
