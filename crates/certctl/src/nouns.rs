//! The nouns of the command line: each has its arguments, calls what it needs, and shows the outcome.

mod account;
mod audit;
mod backup;
mod budget;
mod bundle;
mod dns;
mod drill;
mod edges;
mod event;
mod export;
mod import;
mod keys;
mod migrate;
mod onboard;
mod order;
mod pki;
mod plan;
mod site;
mod site_import;

use certseal_service::config::ConfigError;
use clap::Subcommand;

use self::{
    account::AccountCommand, backup::BackupCommand, bundle::BundleCommand, dns::DnsCommand, drill::DrillCommand,
    edges::EdgesCommand, event::EventCommand, export::ExportArgs, import::ImportArgs, keys::KeysCommand,
    migrate::MigrateCommand, order::OrderCommand, pki::PkiCommand, plan::PlanArgs,
};
pub(crate) use self::{audit::AuditCommand, site::SiteCommand};
use crate::{output::Output, settings::Settings};

#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// The private PKI of mTLS identities, and the signing keys
    #[command(subcommand)]
    Pki(PkiCommand),
    /// The unseal keys of pools
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Edges and what they say of themselves
    #[command(subcommand)]
    Edges(EdgesCommand),
    /// Tests of what must work when it is needed
    #[command(subcommand)]
    Drill(DrillCommand),
    /// Sites and their certificates
    #[command(subcommand)]
    Site(SiteCommand),
    /// Orders for certificates, and those that need somebody's attention
    #[command(subcommand)]
    Order(OrderCommand),
    /// The DNS of sites' names: what it should be, and what is wrong with it
    #[command(subcommand)]
    Dns(DnsCommand),
    /// Simulate a fleet of sites: how long onboarding takes, what a CA's limits and outages do, and a mass revocation
    Plan(PlanArgs),
    /// What happened to sites, and whether the platform was told
    #[command(subcommand)]
    Event(EventCommand),
    /// The CA's limits, and what of them is used
    Budget,
    /// The accounts at the CAs, and their keys
    #[command(subcommand)]
    Account(AccountCommand),
    /// What certstore keeps
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// The audit log of certstore: who did what, from where, and what came of it
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Copies of all that certstore keeps: ciphertext and signed documents, so that they are safe anywhere
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Bring sites with their certificates and keys, as a platform has sealed them: a folder NAME for each, with chain.pem,
    /// key.sealed and, if need be, site.toml
    Import(ImportArgs),
    /// From imported keys to keys of our own, while both are served
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Write every site's certificate and key to files
    Export(ExportArgs),
}

impl Noun {
    /// Does what the noun's verb says. A verb that asks no daemon needs no `settings`.
    pub(crate) async fn run(
        self,
        settings: impl FnOnce() -> Result<Settings, ConfigError>,
        output: Output,
    ) -> anyhow::Result<()> {
        match self {
            Self::Pki(command) => pki::run(command, output),
            Self::Keys(command) => keys::run(command, &settings()?, output).await,
            Self::Drill(command) => drill::run(command, &settings()?, output).await,
            Self::Edges(command) => edges::run(command, &settings()?, output).await,
            Self::Site(command) => site::run(command, &settings()?, output).await,
            Self::Import(args) => import::run(args, &settings()?, output).await,
            Self::Migrate(command) => migrate::run(command, &settings()?, output).await,
            Self::Export(args) => export::run(args, &settings()?, output).await,
            Self::Audit(command) => audit::run(command, &settings()?, output).await,
            Self::Backup(command) => backup::run(command, &settings()?, output).await,
            Self::Order(command) => order::run(command, &settings()?, output).await,
            Self::Dns(command) => dns::run(command, &settings()?, output).await,
            Self::Event(command) => event::run(command, &settings()?, output).await,
            Self::Plan(args) => plan::run(&args, output),
            Self::Budget => budget::run(&settings()?, output).await,
            Self::Account(command) => account::run(command, &settings()?, output).await,
            Self::Bundle(command) => bundle::run(command, &settings()?, output).await,
        }
    }
}
