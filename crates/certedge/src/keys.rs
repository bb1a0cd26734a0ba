//! Where the keys of an edge are: in this process, or in a signer.

pub(crate) mod child;
mod files;
pub(crate) mod signer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use certseal_resolver::{KeyHolder, SealedResolver};
use certseal_signer::RemoteKeys;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use rustix::process::getuid;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Notify,
    task::spawn_blocking,
};

use self::{child::SignerChild, files::KeyWatch};
use crate::config::Config;

/// Which process holds unseal keys and opened keys, and signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysIn {
    /// The one that talks to the network.
    ThisProcess,
    /// One that this one starts, and starts again when it ends.
    Child {
        /// certedge's program.
        program: PathBuf,
        /// The configuration file.
        config: PathBuf,
    },
    /// One that somebody else starts: [`crate::run_signer`], at the socket in the configuration.
    Signer,
}

/// The keys of a running edge.
pub(crate) enum Keys {
    Local(Arc<Mutex<KeyWatch>>),
    Remote { remote: Arc<RemoteKeys>, reached: Gauge },
}

impl Keys {
    /// Makes the keys usable. In the signer's process they may become so later, unless it is this one's child.
    pub(crate) async fn start(config: &Config, keys_in: KeysIn) -> anyhow::Result<(Self, Option<SignerChild>)> {
        let of_signer = |socket: &Path| {
            let user = config.signer.uid.unwrap_or_else(|| getuid().as_raw());
            Self::Remote { remote: RemoteKeys::new(socket, user, give_way), reached: Gauge::default() }
        };
        match keys_in {
            KeysIn::ThisProcess => {
                certseal_service::lock_memory_of_secrets();
                let config = config.clone();
                // A token may take its time.
                let watch = spawn_blocking(move || KeyWatch::start(&config)).await??;
                Ok((Self::Local(Arc::new(Mutex::new(watch))), None))
            }
            KeysIn::Child { program, config: file } => {
                let child = SignerChild::start(program, file, config.signer.socket.clone())?;
                let mut keys = of_signer(child.socket());
                let begun = Instant::now();
                while keys.look().await.is_none_or(|look| !look.is_reached) {
                    if child.has_failed() {
                        bail!("the signer does not start: it has said why");
                    }
                    if begun.elapsed() > START {
                        bail!("the signer did not answer within {} seconds of its start", START.as_secs());
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok((keys, Some(child)))
            }
            KeysIn::Signer => {
                let socket = config.signer.socket.as_deref().context(
                    "expected `socket` in [signer] of the configuration: where the signer listens that was started apart",
                )?;
                let mut keys = of_signer(socket);
                if keys.look().await.is_none_or(|look| !look.is_reached) {
                    tracing::warn!(socket = %socket.display(), "the signer cannot be reached yet");
                }
                Ok((keys, None))
            }
        }
    }

    pub(crate) fn holder(&self) -> Arc<dyn KeyHolder> {
        match self {
            Self::Local(watch) => watch.lock().unwrap_or_else(PoisonError::into_inner).keys(),
            Self::Remote { remote, .. } => remote.clone(),
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        if let Self::Remote { reached, .. } = self {
            registry.register("signer_reached", "1 while the signer answers: alert on 0", reached.clone());
        }
    }

    /// The question that readiness asks.
    pub(crate) fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let remote = match self {
            Self::Local(_) => None,
            Self::Remote { remote, .. } => Some(remote.clone()),
        };
        move || match &remote {
            Some(remote) if !remote.is_reached() => {
                Err("the signer cannot be reached: nothing can be signed".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Looks for other keys, now and again. It ends only after a panic, which the runtime logs; the keys stay then.
    pub(crate) async fn watch(mut self, resolver: Arc<SealedResolver>, changed: Arc<Notify>) {
        let mut was_reached = true;
        loop {
            let pause = match &self {
                Self::Local(_) => files::LOOK,
                Self::Remote { .. } if was_reached => LOOK,
                Self::Remote { .. } => LOOK_FOR_IT,
            };
            tokio::time::sleep(pause).await;
            let Some(look) = self.look().await else { return };
            if look.is_reached != was_reached {
                if look.is_reached {
                    tracing::info!("the signer is there again")
                } else {
                    tracing::error!("the signer cannot be reached: no new handshake can be signed")
                }
            }
            if look.are_others {
                let resolver = resolver.clone();
                let _ = spawn_blocking(move || resolver.keys_changed()).await;
            }
            if look.are_others || look.is_reached != was_reached {
                changed.notify_one();
            }
            was_reached = look.is_reached;
        }
    }

    /// None after a panic.
    async fn look(&mut self) -> Option<Look> {
        match self {
            Self::Local(watch) => {
                let watch = watch.clone();
                let looked = spawn_blocking(move || watch.lock().unwrap_or_else(PoisonError::into_inner).look());
                Some(Look { is_reached: true, are_others: looked.await.ok()? })
            }
            Self::Remote { remote, reached } => {
                let asked = remote.clone();
                let outcome = spawn_blocking(move || asked.refresh()).await.ok()?;
                reached.set(outcome.is_ok().into());
                Some(Look { is_reached: outcome.is_ok(), are_others: outcome.unwrap_or(false) })
            }
        }
    }
}

/// The findings of one look at the signer.
struct Look {
    is_reached: bool,
    are_others: bool,
}

/// Has the worker thread's other tasks go on elsewhere while a signature takes longer than it should.
fn give_way(wait: &mut dyn FnMut()) {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}

/// For a signer of our own to answer first. Its token may take its time.
const START: Duration = Duration::from_secs(30);

/// Between two times that the signer is asked for its keys.
const LOOK: Duration = Duration::from_secs(2);

/// The same while it does not answer.
const LOOK_FOR_IT: Duration = Duration::from_millis(250);
