//! Vaults for tests, and puts into them.

pub(crate) mod faulty;

use std::sync::Arc;

use certseal_seal::VerifyingKey;
use certseal_service::problem::Refusal;
use certseal_store::{SledOptions, SledStore};
use certseal_wire::{Kind, PoolName, PutOutcome};

use crate::{
    actor::Actor,
    config::Retention,
    documents::Checked,
    domain,
    metrics::Metrics,
    vault::{Trusted, Vault},
};

pub(crate) fn vault(dir: &std::path::Path) -> Arc<Vault> {
    vault_of(dir, certseal_seal::SigningKey::generate().unwrap().verifying_key())
}

pub(crate) fn vault_of(dir: &std::path::Path, security: VerifyingKey) -> Arc<Vault> {
    let storage = SledStore::open(dir, SledOptions::default()).unwrap();
    Arc::new(Vault::new(Arc::new(storage), security, Retention::default(), Metrics::default()).unwrap())
}

/// A put, from its beginning to its end.
pub(crate) fn put_waiting(
    vault: &Arc<Vault>,
    actor: Actor,
    check: impl Fn(&Trusted) -> Result<Checked, Refusal> + Send + Sync + 'static,
) -> Result<PutOutcome, Refusal> {
    let put = domain::put::put(vault.clone(), actor, check);
    let waits = || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(put);
    // On a thread of its own: the caller may be asynchronous itself.
    std::thread::scope(|scope| scope.spawn(waits).join().unwrap())
}

pub(crate) fn pools(names: &[&str]) -> Vec<PoolName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

pub(crate) fn put(vault: &Arc<Vault>, kind: Kind, version: u64, names: &[&str]) {
    let (bytes, pools) = (version.to_be_bytes().to_vec(), pools(names));
    let checked = move |_: &Trusted| Ok(Checked::new(kind, "a.example".into(), version, pools.clone(), bytes.clone()));
    put_waiting(vault, Actor::itself(), checked).unwrap();
}
