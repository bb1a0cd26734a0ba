//! `certctl pki`.

use crate::{
    cli::PkiCommand,
    output::{Output, table},
    pki::{self, MadeFile, PkiOptions},
};

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
