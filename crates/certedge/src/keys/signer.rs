//! The process that holds the keys: `certedge signer`.

use std::{io, path::PathBuf, process, sync::Arc, thread};

use anyhow::Context;
use certseal_signer::{Server, Service};
use rustix::{process::getuid, thread::set_name};

use crate::{
    config::Config,
    keys::files::{KeyWatch, LOOK},
};

/// Opens sealed keys and signs, for edges of this machine, until the process ends.
///
/// It listens at `socket`, else at the socket of the configuration. `on_leash`, it ends when its standard input does.
///
/// # Errors
/// When a key cannot be loaded, or the socket not be listened at.
pub fn run_signer(config: Config, socket: Option<PathBuf>, on_leash: bool) -> anyhow::Result<()> {
    // The name of the thread that `main` runs on is the process's in `ps`.
    let _ = set_name(c"certedge-signer");
    certseal_service::lock_all_memory();
    certseal_service::lock_memory_of_secrets();
    if on_leash {
        // Before the keys: a token may take longer than the edge lives.
        thread::Builder::new().name("leash".to_owned()).spawn(|| {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            process::exit(0)
        })?;
    }
    let socket = socket.or_else(|| config.signer.socket.clone());
    let socket = socket.context("expected `socket` in [signer] of the configuration, or --socket")?;
    let mut watch = KeyWatch::start(&config)?;
    let service = Arc::new(Service::new(watch.keys(), config.signer.cache_bytes));
    let allowed = config.signer.allow_uid.unwrap_or_else(|| getuid().as_raw());
    let server = Server::bind(&socket, allowed)?;
    let watched = service.clone();
    thread::Builder::new().name("key-files".to_owned()).spawn(move || {
        loop {
            thread::sleep(LOOK);
            if watch.look() {
                watched.keys_changed();
            }
        }
    })?;
    tracing::info!(socket = %socket.display(), pool = %config.pool, allowed, "the signer is listening");
    server.run(service);
    Ok(())
}
