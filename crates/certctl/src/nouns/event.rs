//! `certctl event`.

use certseal_client::CertmanClient;
use certseal_wire::{DnsName, ListedEvent, Replay};
use clap::Subcommand;
use jiff::Timestamp;

use crate::{
    output::{Output, or_dash, table},
    settings::Settings,
};

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List what happened to sites in the last week, the oldest first
    List {
        /// Only what happened to this site
        #[arg(long, value_name = "NAME")]
        site: Option<DnsName>,
        /// Only what the receiver of webhooks has not taken yet
        #[arg(long)]
        waiting: bool,
    },
    /// Send events to the receiver of webhooks again, each with its id
    Replay {
        /// Those from this time on, such as 2026-11-24T10:00:00Z
        #[arg(long, value_name = "TIME")]
        from: Timestamp,
        /// Those before this time
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
        /// Those of this site
        #[arg(long, value_name = "NAME")]
        site: Option<DnsName>,
    },
}

pub(super) async fn run(command: EventCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let certman = settings.certman()?;
    match command {
        EventCommand::List { site, waiting } => {
            let mut events = all(&certman).await?;
            events.retain(|listed| {
                let is_taken = !listed.waits && !listed.put_aside;
                site.as_ref().is_none_or(|site| *site == listed.event.data.site) && !(waiting && is_taken)
            });
            output.show(&events, || shown(&events))
        }
        EventCommand::Replay { from, until, site } => {
            let replayed = certman.replay(&Replay { from, until, site }).await?;
            output.show(&replayed, || format!("{} events are sent again", replayed.events))
        }
    }
}

async fn all(certman: &CertmanClient) -> anyhow::Result<Vec<ListedEvent>> {
    let (mut events, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = certman.events(after.as_deref()).await?;
        events.extend(page.events);
        match page.next {
            Some(next) if after.as_ref().is_none_or(|after| *after < next) => after = Some(next),
            Some(next) => anyhow::bail!("certman's list of events goes back to {next}: its pages do not end"),
            None => return Ok(events),
        }
    }
}

fn shown(events: &[ListedEvent]) -> String {
    let row = |ListedEvent { id, event, waits, put_aside }: &ListedEvent| {
        let sent = match (*waits, *put_aside) {
            (true, _) => "no",
            (false, true) => "put aside",
            (false, false) => "yes",
        };
        let (time, kind) = (event.timestamp.to_string(), event.kind.as_str().to_owned());
        let said = or_dash(event.data.diagnosis.as_ref());
        [time, event.data.site.to_string(), kind, sent.to_owned(), said, id.clone()]
    };
    table(["TIME", "SITE", "WHAT HAPPENED", "SENT", "DIAGNOSIS", "ID"], events.iter().map(row))
}
