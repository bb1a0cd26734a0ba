//! `certctl order`.

use anyhow::bail;
use certseal_client::{CertmanClient, Progress};
use certseal_wire::{DnsName, OrderStatus};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::{
    failure::Failure,
    output::{Output, details, joined, or_dash, table},
    progress_bar::Bar,
    settings::Settings,
};

#[derive(Debug, Subcommand)]
pub(crate) enum OrderCommand {
    /// List the orders at a stage: dead letters are those that the CA rejects again and again
    List {
        /// The stage
        #[arg(long, value_enum, default_value_t = StageName::DeadLetter)]
        stage: StageName,
    },
    /// Show a site's order
    Show {
        /// The site
        site: DnsName,
    },
    /// Try an order again now
    Retry {
        /// The site
        #[arg(required_unless_present = "dead_letters")]
        site: Option<DnsName>,
        /// Try all dead letters again
        #[arg(long, conflicts_with = "site")]
        dead_letters: bool,
    },
    /// Give an order up: none follows until the site is changed, or its order tried again
    Discard {
        /// The site
        site: DnsName,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StageName {
    /// On its way to challenges that are answered
    Authorize,
    /// The CA validates
    Challenge,
    /// Its key is sealed, or its certificate on the way
    Retrieval,
    /// Rejected again and again, or for good
    DeadLetter,
}

pub(super) async fn run(command: OrderCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let certman = settings.certman()?;
    match command {
        OrderCommand::List { stage } => {
            let orders = all(&certman, stage).await?;
            output.show(&orders, || listed(&orders))
        }
        OrderCommand::Show { site } => {
            let none = || Failure::NotFound(format!("{site} has no order under way"));
            let order = certman.order(&site).await?.ok_or_else(none)?;
            output.show(&order, || description(&order))
        }
        OrderCommand::Retry { site, .. } => {
            let sites = match site {
                Some(site) => vec![site],
                None => all(&certman, StageName::DeadLetter).await?.into_iter().map(|order| order.site).collect(),
            };
            let bar = Bar::new(output);
            bar.begin("trying again", sites.len() as u64);
            for site in &sites {
                certman.retry_order(site).await?;
                bar.advance(1);
            }
            bar.clear();
            output.show(&json!({ "retried": sites.len() }), || format!("{} orders are tried again", sites.len()))
        }
        OrderCommand::Discard { site } => {
            certman.discard_order(&site).await?;
            output.show(&json!({ "discarded": site }), || format!("the order of {site} is given up"))
        }
    }
}

async fn all(certman: &CertmanClient, stage: StageName) -> anyhow::Result<Vec<OrderStatus>> {
    let stage = match stage {
        StageName::Authorize => "authorize",
        StageName::Challenge => "challenge",
        StageName::Retrieval => "retrieval",
        StageName::DeadLetter => "dead-letter",
    };
    let (mut orders, mut after) = (Vec::new(), None::<DnsName>);
    loop {
        let page = certman.orders(stage, after.as_ref()).await?;
        orders.extend(page.orders);
        match page.next {
            Some(next) if after.as_ref().is_none_or(|after| *after < next) => after = Some(next),
            Some(next) => bail!("certman's list of orders goes back to {next}: its pages do not end"),
            None => return Ok(orders),
        }
    }
}

fn listed(orders: &[OrderStatus]) -> String {
    let header = ["SITE", "STAGE", "LANE", "REJECTIONS", "NEXT ATTEMPT", "DIAGNOSIS"];
    let rows = orders.iter().map(|order| {
        let said = or_dash(order.diagnosis.as_ref());
        let rejections = order.rejections.to_string();
        [order.site.to_string(), order.stage.clone(), order.lane.clone(), rejections, or_dash(order.retry_at), said]
    });
    table(header, rows)
}

fn description(order: &OrderStatus) -> String {
    details(vec![
        ("site", order.site.to_string()),
        ("names", joined(order.names.iter())),
        ("stage", order.stage.clone()),
        ("lane", order.lane.clone()),
        ("CA", or_dash(order.authority.as_ref())),
        ("order", or_dash(order.order_url.as_ref())),
        ("rejections", order.rejections.to_string()),
        ("next attempt", or_dash(order.retry_at)),
        ("diagnosis", or_dash(order.diagnosis.as_ref())),
    ])
}
