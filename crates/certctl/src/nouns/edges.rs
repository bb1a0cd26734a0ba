//! `certctl edges`.

use certseal_wire::{EdgeStatus, KeyId, PoolName};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use crate::{
    output::{Output, or_dash, table},
    settings::Settings,
};

#[derive(Debug, Subcommand)]
pub(crate) enum EdgesCommand {
    /// Show the edges that have reported within the last day
    List,
    /// Take the reports of a forgotten edge again
    Admit {
        /// Its pool
        pool: PoolName,
        /// Its name
        name: String,
    },
    /// Forget an edge that is gone for good or was taken over: no rotation waits for it, its reports are refused
    Forget {
        /// Its pool
        pool: PoolName,
        /// Its name
        name: String,
    },
}

pub(super) async fn run(command: EdgesCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let store = settings.store()?;
    match command {
        EdgesCommand::List => {
            let edges = store.edges().await?;
            output.show(&edges, || listed(&edges.edges))
        }
        EdgesCommand::Admit { pool, name } => {
            store.admit_edge(&pool, &name).await?;
            output.show(&json!({ "admitted": format!("{pool}/{name}") }), || format!("{pool}/{name} is admitted"))
        }
        EdgesCommand::Forget { pool, name } => {
            store.forget_edge(&pool, &name).await?;
            output.show(&json!({ "forgotten": format!("{pool}/{name}") }), || format!("{pool}/{name} is forgotten"))
        }
    }
}

fn listed(edges: &[EdgeStatus]) -> String {
    let header = ["POOL", "EDGE", "SEEN", "RING", "KEYS", "BUNDLES", "REFUSED", "CAUGHT UP", "LAST DRILL", "FAILED"];
    let rows = edges.iter().map(|EdgeStatus { report, received_at }| {
        let drill = report.drill.as_ref();
        [
            report.pool.to_string(),
            report.name.clone(),
            ago(*received_at),
            report.ring.to_string(),
            report.keys.iter().map(short).collect::<Vec<_>>().join(" "),
            report.bundles.to_string(),
            report.refused.to_string(),
            if report.caught_up { "yes" } else { "no" }.to_owned(),
            or_dash(drill.map(|drill| ago(drill.at))),
            or_dash(drill.map(|drill| drill.classes.iter().map(|class| class.failed).sum::<u64>())),
        ]
    });
    table(header, rows)
}

/// Enough of a key's id to tell it from others.
fn short(id: &KeyId) -> String {
    id.to_string().chars().take(8).collect()
}

fn ago(instant: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(instant).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3600),
    }
}
