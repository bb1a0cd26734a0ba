//! `certctl export`.

use std::collections::BTreeMap;

use anyhow::bail;
use certseal_seal::RingMark;
use certseal_unseal::{UnsealKey, UnsealKeys};

use super::rotate::{Bar, trusted};
use crate::{
    cli::ExportArgs,
    export::{self, What},
    failure::Failure,
    keys, legacy,
    migrate::refuse_failed,
    output::Output,
    settings::Settings,
};

pub(super) async fn run(args: ExportArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let ExportArgs { out, sealed, unseal_keys, legacy_keys, write_private_keys_in_the_clear } = args;
    if sealed == write_private_keys_in_the_clear {
        let text = "expected either --sealed, or --write-private-keys-in-the-clear with the keys that open them";
        bail!(Failure::Usage(text.to_owned()));
    }
    let keys = keys_by_pool(&unseal_keys, &legacy_keys)?;
    if !sealed && keys.is_empty() {
        bail!(Failure::Usage("expected --unseal-key or --legacy-key: nothing opens without".to_owned()));
    }
    let (store, security, bar) = (settings.store()?, trusted(settings)?, Bar::new(output));
    let ring = settings.rings(&store, security)?.existing(RingMark::default()).await?;
    let what = if sealed { What::Sealed } else { What::Keys(&keys) };
    let outcome = export::export(&store, &ring, &what, &out, &bar).await?;
    bar.clear();
    output.show(&outcome, || {
        let what = if sealed { "sealed as they are" } else { "with private keys in the clear" };
        let (written, unchanged) = (outcome.written, outcome.unchanged);
        format!("{written} sites written to {}, {what}; {unchanged} were there already\n", out.display())
    })?;
    refuse_failed("could not be exported", &outcome.failed)
}

/// One set for each pool; the legacy keys in one of their own.
fn keys_by_pool(unseal_keys: &[String], legacy_keys: &[String]) -> anyhow::Result<Vec<UnsealKeys>> {
    let mut pools: BTreeMap<String, Vec<UnsealKey>> = BTreeMap::new();
    for place in unseal_keys {
        let key = keys::load(place)?;
        pools.entry(key.pool().to_string()).or_default().push(key);
    }
    let mut sets: Vec<UnsealKeys> = pools.into_values().map(UnsealKeys::from_iter).collect();
    if !legacy_keys.is_empty() {
        let keys = legacy_keys.iter().map(|key| legacy::private_key(key)).collect::<anyhow::Result<Vec<_>>>()?;
        sets.push(UnsealKeys::default().with_legacy(keys));
    }
    Ok(sets)
}
