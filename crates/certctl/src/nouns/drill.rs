//! `certctl drill`.

use std::time::Duration;

use anyhow::{bail, ensure};
use certseal_wire::{DrillOrder, DrillReport, EdgeReport, EnvelopeId, PoolName};
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    failure::Failure,
    output::{Output, or_dash, table},
    progress_bar::spinner,
    settings::Settings,
};

#[derive(Debug, Subcommand)]
pub(crate) enum DrillCommand {
    /// Have every edge of a pool open sealed keys at random, of each epoch and suite, and compare them with their
    /// certificates
    Unseal(DrillArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// The pool
    #[arg(long)]
    pub(crate) pool: PoolName,
    /// How many keys to open of each epoch and suite
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(DrillOrder::MAX_SAMPLE)))]
    pub(crate) sample: u32,
    /// How long to wait for the edges
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,
}

pub(super) async fn run(command: DrillCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let DrillCommand::Unseal(DrillArgs { pool, sample, timeout }) = command;
    let store = settings.store()?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    let order = DrillOrder { id: EnvelopeId(id), sample };
    store.order_drill(&pool, &order).await?;
    let spinner = spinner(output);
    let deadline = Instant::now() + Duration::from_secs(timeout);
    let (done, silent) = loop {
        let edges = store.edges().await?.edges.into_iter().map(|status| status.report);
        let of_pool = edges.filter(|edge| edge.pool == pool);
        let (done, silent): (Vec<EdgeReport>, Vec<EdgeReport>) =
            of_pool.partition(|edge| edge.drill.as_ref().is_some_and(|drill| drill.order == Some(order.id)));
        if silent.is_empty() || Instant::now() >= deadline {
            break (done, silent);
        }
        spinner.set_message(format!("waiting for {}", names(&silent)));
        sleep(POLL).await;
    };
    spinner.finish_and_clear();
    ensure!(!done.is_empty() || !silent.is_empty(), "no edge of pool {pool} has reported within the last day");
    let drills: Vec<Drill<'_>> = done.iter().filter_map(Drill::new).collect();
    output.show(&drills, || shown(&drills))?;
    if !silent.is_empty() {
        bail!(Failure::TimedOut(format!("{} did not answer within {timeout} s", names(&silent))));
    }
    let failed: u64 = drills.iter().flat_map(|drill| &drill.report.classes).map(|class| class.failed).sum();
    ensure!(failed == 0, "{failed} sealed keys cannot be used: have these sites renewed, and find out why");
    Ok(())
}

/// The findings of one edge.
#[derive(Serialize)]
struct Drill<'a> {
    edge: String,
    #[serde(flatten)]
    report: &'a DrillReport,
}

impl<'a> Drill<'a> {
    fn new(edge: &'a EdgeReport) -> Option<Self> {
        Some(Self { edge: format!("{}/{}", edge.pool, edge.name), report: edge.drill.as_ref()? })
    }
}

fn shown(drills: &[Drill<'_>]) -> String {
    let rows = drills.iter().flat_map(|drill| {
        drill.report.classes.iter().map(|class| {
            let counts = [class.held, class.opened, class.failed].map(|count| count.to_string());
            let [held, opened, failed] = counts;
            [drill.edge.clone(), class.suite.clone(), or_dash(class.epoch), held, opened, failed]
        })
    });
    let opened = table(["EDGE", "SUITE", "EPOCH", "HELD", "OPENED", "FAILED"], rows);
    let failures = drills.iter().flat_map(|drill| {
        let row = |site: &certseal_wire::DrillFailure| [drill.edge.clone(), site.site.to_string(), site.reason.clone()];
        drill.report.failed.iter().map(row)
    });
    let failures: Vec<_> = failures.collect();
    if failures.is_empty() { opened } else { format!("{opened}\n{}", table(["EDGE", "SITE", "REASON"], failures)) }
}

fn names(edges: &[EdgeReport]) -> String {
    edges.iter().map(|edge| edge.name.as_str()).collect::<Vec<_>>().join(", ")
}

const POLL: Duration = Duration::from_millis(500);
