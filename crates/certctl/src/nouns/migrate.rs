//! `certctl migrate`.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::bail;
use certseal_ceremonies::{
    legacy,
    migration::{self, Plan, Status},
};
use certseal_seal::RingMark;
use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    failure::{Failure, refuse_failed},
    output::{Output, details, or_dash, table},
    progress_bar::Bar,
    settings::Settings,
    values,
};

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Show what would happen, and when; nothing happens yet
    Plan(MigratePlanArgs),
    /// Do what a plan says
    Run(MigrateRunArgs),
    /// Show how far it has come
    Status(MigrateStatusArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MigratePlanArgs {
    /// How a site gets a key of our own
    #[arg(long, value_enum)]
    pub(crate) by: MigrateWay,
    /// Time to spread renewals over, such as 14d or 36h
    #[arg(long, value_name = "PERIOD", value_parser = values::period)]
    pub(crate) over: Option<SignedDuration>,
    /// The most orders within any three hours that the CA allows
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) orders_per_3h: u32,
    /// Plan for so many sites only, those first that expire first
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// File for the plan, which `run` needs
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// How a site gets a key of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MigrateWay {
    /// Another certificate with a new key, ordered earlier than certman would
    Renewal,
    /// The same key sealed anew, where it can be opened: on the host of a ceremony
    Rewrap,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateRunArgs {
    /// The plan
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: PathBuf,
    /// Private half of a key pair that imported keys are sealed to, for a plan by rewrap; repeatable
    #[arg(long = "legacy-key", value_name = "SUITE=FILE")]
    pub(crate) legacy_keys: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateStatusArgs {
    /// How long to measure the pace
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=3600))]
    pub(crate) measure: u64,
}

pub(super) async fn run(command: MigrateCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    match command {
        MigrateCommand::Plan(args) => plan(args, settings, output).await,
        MigrateCommand::Run(args) => run_plan(args, settings, output).await,
        MigrateCommand::Status(args) => status(args, settings, output).await,
    }
}

async fn plan(args: MigratePlanArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let MigratePlanArgs { by, over, orders_per_3h, limit, out } = args;
    let mut remaining = migration::remaining(&settings.store()?, &settings.certman()?).await?;
    remaining.candidates.truncate(limit.unwrap_or(usize::MAX));
    let made_at = Timestamp::now();
    let plan = match (by, over) {
        (MigrateWay::Renewal, Some(over)) => Plan::Renewal {
            made_at,
            orders_per_3h,
            sites: migration::spread(remaining.candidates, made_at, over, orders_per_3h)?,
            passed_over: remaining.busy,
        },
        (MigrateWay::Renewal, None) => bail!(Failure::Usage("expected --over, such as --over 14d".to_owned())),
        (MigrateWay::Rewrap, _) => {
            Plan::Rewrap { made_at, sites: remaining.candidates.into_iter().map(|candidate| candidate.site).collect() }
        }
    };
    if let Some(path) = &out {
        plan.write(path)?;
    }
    output.show(&plan, || description(&plan, out.is_some()))
}

fn description(plan: &Plan, is_written: bool) -> String {
    let next = if is_written {
        "\nNothing has happened yet: `certctl migrate run --plan FILE` does it.\n"
    } else {
        "\nNothing has happened, and --out writes it to a file for `certctl migrate run`.\n"
    };
    let text = match plan {
        Plan::Renewal { sites, passed_over, orders_per_3h, .. } => {
            let head = details([
                ("way", "renewals, earlier than certman would".to_owned()),
                ("sites", sites.len().to_string()),
                ("passed over", format!("{} with an order under way already", passed_over.len())),
                ("first", or_dash(sites.first().map(|one| one.at))),
                ("last", or_dash(sites.last().map(|one| one.at))),
                ("at most", format!("{orders_per_3h} orders within any 3 h")),
                ("soonest expiry", or_dash(sites.iter().map(|one| one.not_after).min())),
            ]);
            let days = plan.days();
            format!(
                "{head}\n{}",
                table(["DAY", "RENEWALS"], days.into_iter().map(|(day, count)| [day, count.to_string()]))
            )
        }
        Plan::Rewrap { sites, .. } => details([
            ("way", "the same keys sealed anew, where they can be opened; certificates stay".to_owned()),
            ("sites", sites.len().to_string()),
            ("first", or_dash(sites.first())),
        ]),
    };
    text + next
}

async fn run_plan(args: MigrateRunArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let MigrateRunArgs { plan, legacy_keys } = args;
    let (plan, certman, bar) = (Plan::read(&plan)?, settings.certman()?, Bar::new(output));
    match plan {
        Plan::Renewal { sites, .. } => {
            let outcome = migration::appoint(&certman, &sites, Timestamp::now(), &bar).await?;
            bar.clear();
            output.show(&outcome, || {
                format!(
                    "certman renews {} sites as planned; {} have another certificate or an order already\n",
                    outcome.planned, outcome.passed_over
                )
            })?;
            refuse_failed("sites are not renewed as planned", &outcome.failed, "")
        }
        Plan::Rewrap { sites, .. } => {
            if legacy_keys.is_empty() {
                let text = "expected --legacy-key SUITE=FILE: a plan by rewrap opens each key";
                bail!(Failure::Usage(text.to_owned()));
            }
            let (store, security) = (settings.store()?, settings.security_public_to_trust("plan")?);
            let keys = legacy::private_keys(&legacy_keys)?;
            let ring = settings.rings(&store, security)?.existing(RingMark::default()).await?;
            let began = Instant::now();
            let outcome = migration::reseal(&store, &certman, &ring, &keys, &sites, &bar).await?;
            bar.clear();
            let seconds = began.elapsed().as_secs_f64();
            let failed = &outcome.failed;
            let (sealed, passed_over) = (outcome.sealed, outcome.passed_over);
            let view = json!({ "sealed": sealed, "passed_over": passed_over, "failed": failed, "seconds": seconds });
            output.show(&view, || {
                format!("{sealed} keys sealed anew in {seconds:.1} s; {passed_over} needed nothing, or have an order under way\n")
            })?;
            refuse_failed("sites could not be sealed anew", failed, "")
        }
    }
}

/// Always succeeds when it gets its answers: how far it has come is no failure.
async fn status(args: MigrateStatusArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let (store, certman) = (settings.store()?, settings.certman()?);
    let before = store.inventory().await?;
    let began = Instant::now();
    let seconds = if migration::legacy_count(&before) > 0 { args.measure } else { 0 };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let remaining = migration::remaining(&store, &certman).await?;
    let measured = if seconds > 0 { began.elapsed().as_secs_f64() } else { 0.0 };
    let status = Status::new(&before, &store.inventory().await?, measured, &remaining, Timestamp::now());
    output.show(&status, || {
        let head = details([
            ("left", status.left.to_string()),
            ("under way", status.under_way.to_string()),
            ("pace", status.per_hour.map_or("-".to_owned(), |pace| format!("{pace:.0} an hour"))),
            ("next 24 h", format!("{} renewals", status.next_24h)),
            ("ends", or_dash(status.ends_at)),
        ]);
        let rows = status.suites.iter().map(|(suite, count)| [suite.clone(), count.to_string()]);
        format!("{head}\n{}", table(["SUITE", "BUNDLES"], rows))
    })
}
