//! `certctl plan`.

use std::{fs, path::PathBuf};

use anyhow::Context;
use certseal_client::Progress;
use certseal_planner::{Day, Report, Scenario, pictures, simulate};
use clap::Args;

use super::onboard::steps_table;
use crate::{
    output::{Output, details, table},
    progress_bar::Bar,
};

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Scenario, TOML: sites, days, lifetime_days, limits, outages and so on; each has a default
    #[arg(value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Sites in all, in place of the scenario's
    #[arg(long)]
    sites: Option<u32>,
    /// Days that are simulated, in place of the scenario's
    #[arg(long)]
    days: Option<u32>,
    /// Seed of chance, in place of the scenario's
    #[arg(long)]
    seed: Option<u64>,
    /// Directory for the report as JSON and its pictures as SVG; made when it is missing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &PlanArgs, output: Output) -> anyhow::Result<()> {
    let mut scenario = match &args.scenario {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            toml::from_str::<Scenario>(&text).with_context(|| file.display().to_string())?
        }
        None => Scenario::default(),
    };
    scenario.sites = args.sites.unwrap_or(scenario.sites);
    scenario.days = args.days.unwrap_or(scenario.days);
    scenario.seed = args.seed.unwrap_or(scenario.seed);
    let bar = Bar::new(output);
    bar.begin("days", scenario.days.into());
    let report = simulate(&scenario, |day| bar.advance(u64::from(day > 0)));
    bar.clear();
    let report = report.context("this scenario cannot be simulated")?;
    if let Some(directory) = &args.out {
        write(directory, &report)?;
    }
    output.show(&report, || shown(&report))
}

fn write(directory: &PathBuf, report: &Report) -> anyhow::Result<()> {
    let write = |name: String, text: &str| {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| file.display().to_string())
    };
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    write("plan.json".to_owned(), &serde_json::to_string_pretty(report)?)?;
    pictures(report).iter().try_for_each(|picture| write(format!("{}.svg", picture.name), &picture.svg))
}

fn shown(report: &Report) -> String {
    let Report { onboarding, revoked, per_day, orders_per_hour, .. } = report;
    let busiest = orders_per_hour.iter().map(|hour| hour.iter().sum::<u64>()).max().unwrap_or(0);
    let least = per_day.iter().map(|day| day.least_remaining).fold(1.0, f64::min);
    let refused = match &report.refused_for {
        Some(limit) => format!("{}, first for {limit}: the books are wrong", report.refused),
        None => "0".to_owned(),
    };
    let mut rows = vec![
        ("orders", format!("{}, at most {busiest} in an hour", report.orders)),
        ("certificates", report.certificates.to_string()),
        ("sites with one", format!("{}; {} could have one and have none", onboarding.done, onboarding.missing)),
        (
            "wait for the first",
            format!("{:.1} h for half, {:.1} h for 99 %", onboarding.median_hours, onboarding.hours_99),
        ),
        ("last first one", format!("day {:.1}", onboarding.last_day)),
        ("ended before the next", report.expiries.to_string()),
        ("least lifetime left", format!("{:.0} %", 100.0 * least)),
        ("failed validations", report.failed_validations.to_string()),
        ("waits for the budget", report.delays.to_string()),
        ("refused by the CA", refused),
    ];
    for revoked in revoked {
        let safe = match revoked.safe_after_hours {
            Some(hours) => format!("all are safe after {hours:.1} h"),
            None => "not all are safe at the end".to_owned(),
        };
        let said = format!("{} on day {:.1}: {safe}, {} too late", revoked.concerned, revoked.day, revoked.late);
        rows.push(("revoked", said));
    }
    rows.push(("trace", report.trace.clone()));
    let every = per_day.len().div_ceil(ROWS);
    let header = ["DAY", "VALID", "ENDED", "BACKLOG", "NEW ORDERS LEFT", "LEAST LIFETIME LEFT"];
    let days = per_day.iter().step_by(every.max(1)).map(|day: &Day| {
        [
            day.day.to_string(),
            day.valid.to_string(),
            day.ended.to_string(),
            day.backlog.iter().sum::<u64>().to_string(),
            day.new_orders_left.map_or("-".to_owned(), |left| left.to_string()),
            format!("{:.0} %", 100.0 * day.least_remaining),
        ]
    });
    let days = table(header, days);
    if report.steps.is_empty() {
        return format!("{}\n\n{days}", details(rows));
    }
    format!("{}\n\n{}\n\n{days}", details(rows), steps_table(&report.steps))
}

/// Days that are shown.
const ROWS: usize = 20;
