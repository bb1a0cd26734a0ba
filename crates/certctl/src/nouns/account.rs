//! `certctl account`.

use certseal_wire::{AccountDeactivation, AccountReport, AccountRollover};
use clap::Subcommand;

use crate::{
    output::{Output, details, joined, or_dash, table},
    settings::Settings,
};

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// List the accounts, and whether edges answer challenges for them
    List,
    /// Give an account another key; certificates and orders stay as they are
    Rollover {
        /// The CA, by its directory
        directory: String,
    },
    /// End an account for good: its CA gets no orders any more
    Deactivate {
        /// The CA, by its directory
        directory: String,
        /// The account, by its URL as `certctl account list` shows it: nobody can undo this
        #[arg(long, value_name = "URL")]
        confirm: String,
    },
}

pub(super) async fn run(command: AccountCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let certman = settings.certman()?;
    let changed = match command {
        AccountCommand::List => {
            let accounts = certman.accounts().await?.accounts;
            return output.show(&accounts, || shown(&accounts));
        }
        AccountCommand::Rollover { directory } => certman.roll_account_over(&AccountRollover { directory }).await?,
        AccountCommand::Deactivate { directory, confirm: account } => {
            certman.deactivate_account(&AccountDeactivation { directory, account }).await?
        }
    };
    output.show(&changed, || description(&changed))
}

fn shown(accounts: &[AccountReport]) -> String {
    let header = ["DIRECTORY", "ACCOUNT", "KEY", "STATE", "EDGES ANSWER"];
    let rows = accounts.iter().map(|report| {
        let AccountReport { directory, account, thumbprint, state, is_vouched_for, .. } = report;
        let (account, key) = (or_dash(account.as_ref()), or_dash(thumbprint.as_ref()));
        [directory.clone(), account, key, state.as_str().to_owned(), yes_or_no(*is_vouched_for).to_owned()]
    });
    table(header, rows)
}

fn description(report: &AccountReport) -> String {
    let AccountReport { directory, account, thumbprint, state, is_vouched_for, former } = report;
    let mut rows = vec![
        ("directory", directory.clone()),
        ("account", or_dash(account.as_ref())),
        ("key", or_dash(thumbprint.as_ref())),
        ("state", state.as_str().to_owned()),
        ("edges answer", yes_or_no(*is_vouched_for).to_owned()),
    ];
    if !former.is_empty() {
        rows.push(("and for", joined(former.iter().map(|key| format!("{} until {}", key.thumbprint, key.until)))));
    }
    details(rows)
}

fn yes_or_no(holds: bool) -> &'static str {
    if holds { "yes" } else { "no" }
}
