//! `certctl keys generate`.

use std::path::PathBuf;

use certseal_ceremonies::keys::{self, NewPool};
use certseal_seal::{RingMark, Suite};
use certseal_wire::{KeyRing, KeyState, PoolName};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    key_place::PlaceArgs,
    ring_text::{ring_text, suite_name},
};
use crate::{
    output::Output,
    settings::{Settings, signing_key, verifying_key},
};

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

pub(super) async fn generate(args: GenerateArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let security = signing_key(&args.security_key)?;
    let issuers = args.issuers_public.iter().map(|path| verifying_key(path)).collect::<Result<Vec<_>, _>>()?;
    let out = args.place.place()?;
    let new = NewPool {
        pool: args.pool.clone(),
        suite: args.suite.into(),
        out,
        issuers: &issuers,
        seen: RingMark::of_version(args.seen),
    };
    let store = settings.store()?;
    let ring = keys::generate(&settings.rings(&store, security.verifying_key())?, &security, &new).await?;
    let added = Added {
        file: args.place.out.as_ref().map(|path| path.display().to_string()),
        token: new.out.key_uri(&args.pool, keys::FIRST).map(|uri| uri.to_string()),
        notes: notes(&ring, &args.pool),
        ring: &ring,
    };
    output.show(&added, || {
        let pool = &args.pool;
        let head = match (&added.file, &added.token) {
            (Some(file), _) => format!("wrote {file}: it goes to the edges of pool {pool}, and to nobody else\n\n"),
            (None, uri) => format!(
                "the token made the key, and does not give it out; unseal_keys of the edges of pool {pool}:\n\n\
                 [\"{}\"]\n\n",
                uri.as_deref().unwrap_or_default()
            ),
        };
        let notes = added.notes.iter().map(|note| format!("\nnote: {note}\n"));
        head + &ring_text(&ring, "signed and stored") + &notes.collect::<String>()
    })
}

#[derive(Serialize)]
struct Added<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    ring: &'a KeyRing,
    notes: Vec<String>,
}

/// Notes on what is allowed, but rarely meant.
fn notes(ring: &KeyRing, pool: &PoolName) -> Vec<String> {
    let mut notes = Vec::new();
    if ring.issuers.is_empty() {
        notes.push(
            "the key ring lists no issuer, so no bundle counts: give --issuer-public with the next key".to_owned(),
        );
    }
    let suite = ring.active(pool).map(|entry| entry.suite);
    let others = ring.keys.iter().filter(|entry| entry.state == KeyState::Active && Some(entry.suite) != suite);
    for other in others {
        let name = suite_name(other.suite);
        notes.push(format!("pool {}'s key is of suite {name}: no site can be in both pools", other.pool));
    }
    notes
}
