//! `certctl site onboard`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use certseal_ceremonies::onboarding::{self, Onboarded, SiteDefaults, StepOutcome};
use certseal_client::{CertmanClient, Progress};
use certseal_issuance::{Staging, StepCounts, budget::LimitName};
use certseal_planner::{OnboardingStep, Override, Report, Scenario, simulate};
use certseal_wire::{BudgetReport, LimitReport, PoolName, ProfileName, Upstream};
use clap::Args;

use crate::{
    output::{Output, details, table},
    progress_bar::Bar,
};

#[derive(Debug, Args)]
pub(crate) struct OnboardArgs {
    /// List of sites: in each line a name, or a JSON object with site, names, upstream, pools, owner, profile
    #[arg(value_name = "FILE")]
    list: PathBuf,
    /// Most sites of a step: the first has ten, and each ten times as many as the one before it
    #[arg(long, value_name = "SITES", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Percent of a step's sites, rounded up, that may fail; no further step begins when more do, or all
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    may_fail: u8,
    /// How long a step may go on without another certificate, while not all wait for room in the CA's budget
    #[arg(long, value_name = "SECONDS", default_value_t = 7200)]
    patience: u64,
    /// Server behind the edge, where the line names none
    #[arg(long, value_name = "URL")]
    upstream: Option<Upstream>,
    /// Pool that may serve the sites, where the line names none; repeatable
    #[arg(long = "pool", value_name = "POOL")]
    pools: Vec<PoolName>,
    /// Certificate profile to ask the CA for, where the line names none
    #[arg(long, value_name = "PROFILE")]
    profile: Option<ProfileName>,
    /// Only simulate it, under the CA's limits as certman knows them, as if nothing of them was used and each site had a
    /// registered domain of its own
    #[arg(long)]
    plan: bool,
}

pub(super) async fn run(certman: &CertmanClient, args: OnboardArgs, output: Output) -> anyhow::Result<()> {
    let OnboardArgs { list, batch, may_fail, patience, upstream, pools, profile, plan } = args;
    let text = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let sites = onboarding::read(&text, &SiteDefaults { upstream, pools, profile });
    let sites = sites.with_context(|| list.display().to_string())?;
    let staging = Staging { batch, may_fail: f64::from(may_fail) / 100.0 };
    let bar = Bar::new(output);
    if plan {
        let scenario = scenario(&certman.budget().await?, sites.len(), staging)?;
        bar.begin("days", scenario.days.into());
        let report = simulate(&scenario, |day| bar.advance(u64::from(day > 0)));
        bar.clear();
        let report = report.context("this onboarding cannot be simulated")?;
        return output.show(&report, || planned(&report));
    }
    let outcome = onboarding::onboard(certman, sites, staging, Duration::from_secs(patience), &bar).await;
    bar.clear();
    let outcome = outcome?;
    output.show(&outcome, || done(&outcome))?;
    match &outcome.stopped {
        Some(sign) => bail!(
            "stopped with {} sites left: {sign}; the same command goes on once the cause is gone, or leave out the sites \
             that fail",
            outcome.left
        ),
        None => Ok(()),
    }
}

/// The onboarding as the planner simulates it: nothing of the limits is used yet, all names lead here, and each site has a
/// registered domain of its own.
fn scenario(budget: &BudgetReport, sites: usize, staging: Staging) -> anyhow::Result<Scenario> {
    let limit = |name: LimitName| budget.limits.iter().find(|limit| limit.limit == name.as_str());
    let overrides = LimitName::ALL.into_iter().filter_map(|name| Some((name, rate(limit(name)?)))).collect();
    let each = limit(LimitName::NewOrders).map_or(0.0, |limit| limit.interval_seconds);
    // Until the last one has its turn, and some days for those that wait.
    let days = (sites as f64 * each / 86_400.0).ceil() as u32 + DAYS_MORE;
    Ok(Scenario {
        sites: u32::try_from(sites).context("too many sites")?,
        days: days.min(MAX_DAYS),
        staging: Some(staging),
        limits: "unlimited".to_owned(),
        overrides,
        ..Scenario::default()
    })
}

/// So many in a week.
fn rate(limit: &LimitReport) -> Override {
    const WEEK: u32 = 7 * 86_400;
    let count = (f64::from(WEEK) / limit.interval_seconds.max(1e-3)).round().clamp(1.0, f64::from(u32::MAX)) as u32;
    Override { burst: limit.burst, count, period_seconds: WEEK }
}

fn planned(report: &Report) -> String {
    let onboarding = &report.onboarding;
    let rows = [
        ("sites", report.scenario.sites.to_string()),
        ("last certificate", format!("day {:.1}", onboarding.last_day)),
        ("without one", onboarding.missing.to_string()),
    ];
    format!("{}\n\n{}", details(rows.to_vec()), steps_table(&report.steps))
}

/// The steps of a plan.
pub(super) fn steps_table(steps: &[OnboardingStep]) -> String {
    let row = |(number, step): (usize, &OnboardingStep)| {
        let OnboardingStep { day, counts, hours, is_stopped } = step;
        let hours = match hours {
            Some(hours) if *is_stopped => format!("{hours:.1}, too many fail"),
            Some(hours) => format!("{hours:.1}"),
            None => "not at its end".to_owned(),
        };
        [
            (number + 1).to_string(),
            format!("{day:.2}"),
            counts.sites.to_string(),
            counts.active.to_string(),
            counts.failing.to_string(),
            hours,
        ]
    };
    table(["STEP", "FROM DAY", "SITES", "ACTIVE", "FAILING", "HOURS"], steps.iter().enumerate().map(row))
}

fn done(outcome: &Onboarded) -> String {
    let row = |(number, step): (usize, &StepOutcome)| {
        let StepOutcome { counts: StepCounts { sites, active, failing }, seconds } = step;
        let counts = [sites, active, failing].map(u32::to_string);
        let [sites, active, failing] = counts;
        [(number + 1).to_string(), sites, active, failing, format!("{seconds:.0}")]
    };
    let steps = table(["STEP", "SITES", "ACTIVE", "FAILING", "SECONDS"], outcome.steps.iter().enumerate().map(row));
    if outcome.failing.is_empty() {
        return steps;
    }
    let failing = outcome.failing.iter().map(|(site, why)| [site.to_string(), why.clone()]);
    format!("{steps}\n\n{}", table(["SITE", "WHY IT FAILS"], failing))
}

const DAYS_MORE: u32 = 3;
/// The most that is simulated.
const MAX_DAYS: u32 = 3_650;
