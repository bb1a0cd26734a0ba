//! `certctl pki`.

use std::path::PathBuf;

use certseal_ceremonies::{
    MadeFile,
    pki::{self, DEFAULT_TRUST_DOMAIN, PkiOptions},
};
use certseal_wire::{PoolName, Role, TrustDomain};
use clap::Subcommand;
use rustls_pki_types::ServerName;

use crate::{
    output::{Output, table},
    values,
};

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

pub(super) fn run(command: PkiCommand, output: Output) -> anyhow::Result<()> {
    let made = match command {
        PkiCommand::Init { dir, trust_domain, pools, server_names } => {
            pki::init(&dir, &PkiOptions { trust_domain, pools, server_names })?
        }
        PkiCommand::Issue { dir, role, name, server_names } => pki::issue(&dir, role, &name, &server_names)?,
        PkiCommand::Revoke { dir, names } => pki::revoke(&dir, &names)?,
        PkiCommand::LocalCa { dir, name } => pki::local_ca(&dir, &name)?,
    };
    output.show(&made, || files(&made))
}

fn files(made: &[MadeFile]) -> String {
    table(
        ["FILE", "CONTENT", "FOR", ""],
        made.iter().map(|file| {
            let secret = if file.private { "secret" } else { "" };
            [file.path.display().to_string(), file.content.clone(), file.holder.clone(), secret.to_owned()]
        }),
    )
}
