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
    customers_dns, onboarding,
    platform::{self, Options, Platform},
    upstream,
    verification::Verifier,
};
use certseal_service::{Shutdown, keep_memory_private, telemetry};
use certseal_wire::{DnsName, Finding, NameReport, Readiness, SiteState, SiteStatus};
use clap::Parser;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// Starts certstore, certman and certedge on loopback, brings HTTPS to some sites, and shows what is said of a domain whose DNS is
/// wrong.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 all sites are served, 1 some are not, or it did not start, 2 usage.")]
struct Arguments {
    /// How many sites to bring up.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    sites: u16,
    /// What the sites' names end in. With the built-in CA, certman refuses names below no public suffix, such as .test.
    #[arg(long, default_value = "demo.example.com")]
    suffix: String,
    /// An ACME CA's directory URL, in place of the built-in CA. It must reach the edge's HTTP port for those names. Their DNS is
    /// not looked at then, and no domain is broken.
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
    /// Names for which nothing is ordered, and what is wrong with each.
    not_ready: Vec<NameReport>,
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

/// The domains of the customers.
struct Domains {
    sites: Vec<DnsName>,
    /// The one whose DNS is wrong.
    broken: Option<DnsName>,
}

impl Domains {
    fn of(arguments: &Arguments) -> anyhow::Result<Self> {
        let sites = onboarding::demo_names(arguments.sites.into(), &arguments.suffix)?;
        // What the real DNS says of a name is not ours to say.
        let is_ours = arguments.acme.is_none();
        let broken = is_ours.then(|| onboarding::broken_name(&arguments.suffix)).transpose()?;
        Ok(Self { sites, broken })
    }

    fn all(&self) -> Vec<DnsName> {
        self.sites.iter().chain(&self.broken).cloned().collect()
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let dir = tempfile::Builder::new().prefix("certseal-").tempdir()?;
    let on_signal = Shutdown::on_signal()?;
    let (handle, shutdown) = Shutdown::new();

    let started = Instant::now();
    let domains = Domains::of(arguments)?;
    let dns = match &domains.broken {
        Some(broken) => Some(customers_dns::start(&domains.sites, broken, &shutdown).await?),
        None => None,
    };
    let options = Options {
        dir: dir.path().to_owned(),
        acme: arguments.acme.clone().zip(arguments.acme_root.clone()),
        dns,
        https_port: arguments.https_port,
        http_port: arguments.http_port,
    };
    let platform = platform::start(&options, &shutdown).await?;
    let start = started.elapsed();

    let shown = tokio::select! {
        shown = bring_up(arguments, &domains, &platform, start, &shutdown) => Some(shown),
        () = on_signal.begun() => None,
    };
    let served = match &shown {
        Some(Ok(report)) => report.failures.is_empty(),
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
    domains: &Domains,
    platform: &Platform,
    start: Duration,
    shutdown: &Shutdown,
) -> anyhow::Result<Report> {
    let all = domains.all();
    let upstream = upstream::start(shutdown.clone()).await?;
    let root = site_root(arguments, platform);
    let verifier = Verifier::new(&root)?;

    let begun = Instant::now();
    let progress = onboarding::progress_bar(all.len(), "certificates");
    onboarding::add(platform, &all, upstream).await?;
    let patience = Duration::from_secs(arguments.patience);
    let statuses = onboarding::settle(&platform.certman, all.len(), patience, &progress).await?;
    let (broken, statuses): (Vec<_>, Vec<_>) =
        statuses.into_iter().partition(|status| domains.broken.as_ref() == Some(&status.site));
    progress.finish_and_clear();
    let issue = begun.elapsed();

    let begun = Instant::now();
    let mut failures = look_at_all(&verifier, platform.https, &statuses).await?;
    let verified = domains.sites.len() - failures.len();
    failures.extend(broken.iter().filter(|status| !is_held_back(status)).map(|status| SiteFailure {
        site: status.site.clone(),
        error: format!("expected names that are not ready, and no certificate; it is {}", status.state),
    }));
    let report = Report {
        sites: domains.sites.len(),
        active: statuses.iter().filter(|status| status.state == SiteState::Active).count(),
        verified,
        not_ready: statuses.iter().chain(&broken).flat_map(not_ready).cloned().collect(),
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
        print_table(&report, &statuses, &broken, arguments.once);
    }
    Ok(report)
}

/// Whether certman found that the names are not ready, and ordered nothing for them.
fn is_held_back(status: &SiteStatus) -> bool {
    status.names_state == Readiness::NotReady && status.version == 0
}

fn not_ready(status: &SiteStatus) -> impl Iterator<Item = &NameReport> {
    let names = status.dns.iter().flat_map(|looked| &looked.names);
    names.filter(|name| name.readiness == Readiness::NotReady)
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

fn print_table(report: &Report, statuses: &[SiteStatus], broken: &[SiteStatus], once: bool) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["site", "state", "names", "issuer", "expires"]);
    for status in statuses.iter().take(SHOWN).chain(broken) {
        let expires = status.not_after.map(|instant| instant.strftime("%Y-%m-%d %H:%M UTC").to_string());
        let issuer = status.authority.clone().unwrap_or_default();
        let (state, names) = (status.state.to_string(), status.names_state.to_string());
        table.add_row([status.site.to_string(), state, names, issuer, expires.unwrap_or_default()]);
    }
    println!("{table}");
    if statuses.len() > SHOWN {
        println!("... and {} more", statuses.len() - SHOWN);
    }
    for NameReport { name, findings, .. } in report.not_ready.iter().take(SHOWN) {
        println!("\n{name} is not ready, so that no certificate is ordered for it:");
        for Finding { code, detail, edits } in findings {
            println!("  {code}: {detail}");
            edits.iter().for_each(|edit| println!("    {edit}"));
        }
    }
    println!();
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
