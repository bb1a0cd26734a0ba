//! The command line.

mod audit;
mod backup;

use std::path::PathBuf;

use certseal_seal::{LegacySuite, Suite};
use certseal_wire::{Digest, DnsName, PoolName, Role, RotationId, SignerId, TrustDomain, Upstream};
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use rustls_pki_types::ServerName;

pub(crate) use audit::{AuditCommand, SearchArgs, TailArgs, VerifyArgs};
pub(crate) use backup::BackupCommand;

use crate::{legacy, pki::DEFAULT_TRUST_DOMAIN, settings::Settings, values};

/// The command line of certseal's operators and security team.
#[derive(Debug, Parser)]
#[command(name = "certctl", version, after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print JSON: the result on standard output, an error on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// TOML file with connection settings, named like the flags with `_` for `-`
    #[arg(long, global = true, env = "CERTCTL_CONFIG", value_name = "FILE", help_heading = "Connection")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Directory or tar archive with a folder for each site
    pub(crate) path: PathBuf,
    /// How the keys are sealed: rsa-oaep-sha256, rsa-oaep-sha1 or ecies-secp256k1
    #[arg(long, value_name = "SUITE", value_parser = legacy::suite)]
    pub(crate) legacy_suite: LegacySuite,
    /// Public half of the key pair that they are sealed to: PEM for RSA, hexadecimal digits for secp256k1
    #[arg(long, value_name = "FILE")]
    pub(crate) legacy_public: PathBuf,
    /// Pool that may serve the sites, where site.toml names none; repeatable
    #[arg(long = "pool", value_name = "POOL")]
    pub(crate) pools: Vec<PoolName>,
    /// Server behind the edge, where site.toml names none
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<Upstream>,
}

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

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Directory for the sites' folders; made when it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Write the sealed bundles as they are, without opening anything
    #[arg(long)]
    pub(crate) sealed: bool,
    /// File of an unseal key, or its PKCS#11 URI; repeatable, for several pools too
    #[arg(long = "unseal-key", value_name = "KEY")]
    pub(crate) unseal_keys: Vec<String>,
    /// Private half of a key pair that imported keys are sealed to; repeatable
    #[arg(long = "legacy-key", value_name = "SUITE=FILE")]
    pub(crate) legacy_keys: Vec<String>,
    /// Say that you want what certseal otherwise never does: private keys in files, for whoever can read them
    #[arg(long)]
    pub(crate) write_private_keys_in_the_clear: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Make a new PKI: a CA, an identity for each part, and the two signing keys
    Init {
        /// Directory of the new files; made when it is not there
        #[arg(long)]
        dir: PathBuf,
        /// Trust domain of all identities
        #[arg(long, value_name = "DOMAIN", default_value = DEFAULT_TRUST_DOMAIN)]
        trust_domain: TrustDomain,
        /// Pool that gets an edge identity; repeatable
        #[arg(long = "pool", value_name = "POOL")]
        pools: Vec<PoolName>,
        /// DNS name or address of the servers, besides localhost; repeatable
        #[arg(long = "server-name", value_name = "NAME", value_parser = values::server_name)]
        server_names: Vec<ServerName<'static>>,
    },
    /// Shut identities out for good: put them on the revocation list crl.pem, which daemons read again when it changes.
    /// Without names the list is signed anew, which it needs every 30 days
    Revoke {
        /// Directory of the PKI
        #[arg(long)]
        dir: PathBuf,
        /// Names of the identities' files, such as edge-2
        names: Vec<String>,
    },
    /// Add one identity
    Issue {
        /// Directory of the PKI
        #[arg(long)]
        dir: PathBuf,
        /// What it may do: edge/POOL, issuer, admin, platform or service
        #[arg(long)]
        role: Role,
        /// Which one it is, such as edge-2; also the name of its files
        #[arg(long)]
        name: String,
        /// DNS name or address of a server (role service), besides localhost; repeatable
        #[arg(long = "server-name", value_name = "NAME", value_parser = values::server_name)]
        server_names: Vec<ServerName<'static>>,
    },
    /// Make a CA for certman's local issuer, which signs site certificates in development
    LocalCa {
        /// Directory of the new files; made when it is not there
        #[arg(long)]
        dir: PathBuf,
        /// Common name of the CA
        #[arg(long, default_value = "certseal development CA")]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Generate the first unseal key of a pool and add it to the key ring
    Generate(GenerateArgs),
    /// Show the key ring
    List,
    /// The issuers (certman) whose signatures count
    #[command(subcommand)]
    Issuers(IssuersCommand),
    /// Replace a pool's unseal key, by a plan that two people agree on
    #[command(subcommand)]
    Rotate(RotateCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum IssuersCommand {
    /// Have an issuer's signatures count
    Add {
        /// Public key of the issuer
        #[arg(long, value_name = "FILE")]
        public: PathBuf,
        #[command(flatten)]
        ring: RingArgs,
    },
    /// Change certman's issuer key: list the new one, wait until everything is signed with it, and list the old ones no more.
    /// It can be run again after whatever stopped it
    Replace(ReplaceArgs),
    /// Have an issuer's signatures count no more: what it signed is not acted upon from then on, not even served
    Remove {
        /// The issuer's id, as `certctl keys list` shows it
        id: SignerId,
        #[command(flatten)]
        ring: RingArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// Public key of the new issuer
    #[arg(long, value_name = "FILE")]
    pub(crate) public: PathBuf,
    /// Others may have the old key: nothing that it signed counts from now on, and certman orders every certificate anew
    /// once it has the new key. Sites are not served until then
    #[arg(long)]
    pub(crate) compromised: bool,
    /// With --compromised: keep out versions up to this one also when an old key signed them
    #[arg(long, value_name = "VERSION", requires = "compromised")]
    pub(crate) floor: Option<u64>,
    /// Have certificates renewed that only the old key signed for, in place of waiting for their renewals
    #[arg(long, conflicts_with = "compromised")]
    pub(crate) renew: bool,
    /// How long to wait for certman and edges
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

/// What signing a key ring needs.
#[derive(Debug, Args)]
pub(crate) struct RingArgs {
    /// Signing key of the security team
    #[arg(long, value_name = "FILE", default_value = "security.key")]
    pub(crate) security_key: PathBuf,
    /// Newest version of the key ring that you know of: an older one in the store is refused
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub(crate) seen: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RotateCommand {
    /// Generate the next key of a pool, and propose the plan that replaces the old one
    Plan(PlanArgs),
    /// Show a rotation with its plan, or all rotations
    Show {
        /// The rotation; all of them without it
        id: Option<RotationId>,
    },
    /// Approve the plan that another admin proposed
    Approve {
        /// The rotation
        id: RotationId,
        /// Digest of the plan that you have looked at
        #[arg(long)]
        digest: Digest,
    },
    /// Announce the new key, wait for the edges, make it active, and seal every content key to it
    Run(RunArgs),
    /// Seal what is left to the new key, and nothing else: for the host that has the old key, with an edge's identity
    Rewrap {
        /// The rotation
        id: RotationId,
        /// Also what is sealed to the new key already, in place of stanzas that do not open; takes an admin's identity
        #[arg(long)]
        all: bool,
        /// File of an old key, or its PKCS#11 URI; repeatable
        #[arg(long = "unseal-key", value_name = "KEY", required = true)]
        unseal_keys: Vec<String>,
    },
    /// Open bundles with the new key, and compare each TLS key with its certificate
    Verify {
        /// The rotation
        id: RotationId,
        /// File of the new key, or its PKCS#11 URI
        #[arg(long = "unseal-key", value_name = "KEY")]
        unseal_key: String,
    },
    /// Remove the stanzas of the old keys, and retire these in the key ring
    Retire {
        /// The rotation
        id: RotationId,
        /// How long to wait for edges that have not read the new stanzas yet
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        timeout: u64,
        /// Signing key of the security team
        #[arg(long, value_name = "FILE", default_value = "security.key")]
        security_key: PathBuf,
    },
    /// Give a rotation up, as long as its key is not active
    Abort {
        /// The rotation
        id: RotationId,
        /// Signing key of the security team
        #[arg(long, value_name = "FILE", default_value = "security.key")]
        security_key: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The pool
    #[arg(long)]
    pub(crate) pool: PoolName,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Signing key of the security team
    #[arg(long, value_name = "FILE", default_value = "security.key")]
    pub(crate) security_key: PathBuf,
    /// Somebody else may have the old key: have every certificate issued again with a new key and the old ones revoked,
    /// since sealing the same keys anew does not help then
    #[arg(long)]
    pub(crate) compromised: bool,
    /// Open one of so many bundles before old stanzas are removed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) verify_one_in: u32,
    /// How long the plan can be approved and begun
    #[arg(long, value_name = "HOURS", default_value_t = 72, value_parser = clap::value_parser!(u16).range(1..=720))]
    pub(crate) valid_hours: u16,
    /// What to remember about it
    #[arg(long, default_value = "")]
    pub(crate) note: String,
    /// Newest version of the key ring that you know of: an older one in the store is refused
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub(crate) seen: u64,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The rotation
    pub(crate) id: RotationId,
    /// Signing key of the security team
    #[arg(long, value_name = "FILE", default_value = "security.key")]
    pub(crate) security_key: PathBuf,
    /// File of an old key, or its PKCS#11 URI, to open content keys with; repeatable. Not needed for a compromised key
    #[arg(long = "unseal-key", value_name = "KEY")]
    pub(crate) unseal_keys: Vec<String>,
    /// How long to wait for edges, and for certificates that are issued again
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
}

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
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) sample: u32,
    /// How long to wait for the edges
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,
}

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

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// The pool
    #[arg(long)]
    pub(crate) pool: PoolName,
    /// Algorithms of the key; a site's pools must all have the same
    #[arg(long, value_enum, default_value_t = SuiteName::P256)]
    pub(crate) suite: SuiteName,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Signing key of the security team
    #[arg(long, value_name = "FILE", default_value = "security.key")]
    pub(crate) security_key: PathBuf,
    /// Public key of an issuer (certman) that the ring must list; repeatable
    #[arg(long = "issuer-public", value_name = "FILE")]
    pub(crate) issuers_public: Vec<PathBuf>,
    /// Newest version of the key ring that you know of: an older one in the store is refused
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub(crate) seen: u64,
}

/// Where the private half of a new key goes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PlaceArgs {
    /// File for the private half, which goes to the pool's edges
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// PKCS#11 URI of a token that makes the key and keeps it: pkcs11:token=LABEL?module-path=FILE&pin-source=file:FILE
    // Not parsed here: clap would show the whole text, which may hold a PIN.
    #[arg(long, value_name = "URI")]
    pub(crate) token: Option<String>,
}

/// The suites by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuiteName {
    /// HPKE with DHKEM(P-256)
    P256,
    /// HPKE with DHKEM(X25519)
    X25519,
}

impl From<SuiteName> for Suite {
    fn from(name: SuiteName) -> Self {
        match name {
            SuiteName::P256 => Self::P256,
            SuiteName::X25519 => Self::X25519,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// Add a site, or change it
    Add(AddArgs),
    /// List all sites
    List,
    /// Show one site
    Status {
        /// The site
        name: DnsName,
    },
    /// Begin a renewal now
    Renew {
        /// The site
        name: DnsName,
    },
    /// List the sites whose certificates certstore says that it lost, after a restore say
    Lost {
        /// Have all of them ordered at once
        #[arg(long)]
        order: bool,
    },
    /// Remove a site: its route, its certificate, its orders
    Remove {
        /// The site
        name: DnsName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The site
    #[arg(value_name = "NAME")]
    pub(crate) site: DnsName,
    /// Further name that leads to it; repeatable
    #[arg(long = "name", value_name = "ALIAS")]
    pub(crate) aliases: Vec<DnsName>,
    /// Server behind the edge, such as http://10.0.0.7:8080
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Upstream,
    /// Pool that may serve it; repeatable
    #[arg(long = "pool", value_name = "POOL", required = true)]
    pub(crate) pools: Vec<PoolName>,
    /// Whose site it is: sites of one owner may have names under each other's wildcards
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<String>,
    /// Wait until a certificate for all its names is stored, or it has failed
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "wait")]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Show a site's bundle: certificate, envelope, and whether they are genuine; never a secret
    Show {
        /// The site
        name: DnsName,
    },
    /// List the bundles that will be deleted by themselves, with the sealed keys in them, the earliest first
    Deletions {
        /// Only those within so many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        within: Option<u32>,
    },
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done, also when there was nothing to do
  1  refused or failed
  2  the command line or the settings are not complete
  3  a daemon cannot be reached, or the time is over: try again
  4  there is no such thing";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_settings_may_follow_the_command() {
        let line = "certctl site add a.example --name b.example --upstream http://h:1 --pool eu --json";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert!(cli.json);
        let Command::Site(SiteCommand::Add(add)) = cli.command else { panic!("another command") };
        assert_eq!(add.aliases, ["b.example".parse().unwrap()]);
    }

    #[test]
    fn values_are_checked_before_anything_is_sent() {
        for args in [
            ["site", "status", "localhost"].as_slice(),
            &["site", "add", "a.example", "--upstream", "http://h:1"],
            &["site", "add", "a.example", "--upstream", "https://h:1", "--pool", "eu"],
            &["site", "add", "a.example", "--upstream", "http://h:1", "--pool", "eu", "--timeout", "5"],
            &["pki", "init", "--dir", "d", "--pool", "EU"],
            &["pki", "issue", "--dir", "d", "--role", "root", "--name", "x"],
            &["keys", "generate", "--pool", "eu"],
            &["keys", "generate", "--pool", "eu", "--out", "f", "--token", "pkcs11:token=t"],
            &["pki", "init", "--dir", "d", "--server-name", "a b"],
            &["bundle", "deletions", "--within", "0"],
            &["backup", "create"],
        ] {
            let all = ["certctl"].iter().chain(args);
            assert!(Cli::try_parse_from(all).is_err(), "{args:?}");
        }
    }
}
