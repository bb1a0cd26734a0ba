//! `certctl keys`.

use anyhow::Context;
use certseal_seal::{SigningKey, Suite, VerifyingKey, accept_ring};
use certseal_service::config::{ConfigError, read_private};
use certseal_unseal::token::TokenUri;
use certseal_wire::{KeyRing, KeyState, PoolName};
use serde::Serialize;

use crate::{
    cli::{GenerateArgs, KeysCommand},
    failure::Failure,
    keys::{self, KeyPlace, NewPool},
    output::{Output, details, table},
    settings::{Settings, verifying_key},
};

pub(super) async fn run(command: KeysCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate(args) => generate(args, settings, output).await,
        KeysCommand::List => list(settings, output).await,
    }
}

async fn generate(args: GenerateArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let security = SigningKey::from_pem(&read_private(&args.security_key)?)
        .map_err(|e| ConfigError::invalid(&args.security_key, e))?;
    let issuers = args.issuers_public.iter().map(|path| verifying_key(path)).collect::<Result<Vec<_>, _>>()?;
    let uri = match &args.place.token {
        None => None,
        Some(text) => Some(text.parse::<TokenUri>().map_err(|error| Failure::Usage(format!("--token: {error}")))?),
    };
    let out = match (&args.place.out, &uri) {
        (Some(path), _) => KeyPlace::File(path),
        (None, Some(uri)) => KeyPlace::Token(uri),
        (None, None) => return Err(Failure::Usage("expected --out or --token".to_owned()).into()),
    };
    let new = NewPool { pool: args.pool.clone(), suite: args.suite.into(), out, issuers: &issuers, seen: args.seen };
    let ring = keys::generate(&settings.store()?, &security, &new).await?;
    let added = Added {
        file: args.place.out.as_ref().map(|path| path.display().to_string()),
        token: out.key_uri(&args.pool).map(|uri| uri.to_string()),
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
        head + &rings(&ring, "signed and stored") + &notes.collect::<String>()
    })
}

async fn list(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let security = settings.security_public()?;
    let signed = settings.store()?.ring().await.context("cannot read the key ring")?;
    let signed = signed.ok_or_else(|| {
        Failure::NotFound("certstore has no key ring yet: `certctl keys generate` makes the first one".to_owned())
    })?;
    let ring = match &security {
        Some(security) => accept_ring(&signed, security, 0)?,
        None => serde_json::from_slice(&signed.payload.0).context("the key ring does not parse")?,
    };
    let listed = Listed { verified: security.is_some(), ring: &ring };
    output.show(&listed, || rings(&ring, verdict(security.as_ref())))
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

#[derive(Serialize)]
struct Listed<'a> {
    verified: bool,
    #[serde(flatten)]
    ring: &'a KeyRing,
}

/// A suite's name on the command line.
pub(super) fn suite_name(id: u16) -> String {
    match Suite::try_from(id) {
        Ok(Suite::P256) => "p256".to_owned(),
        Ok(Suite::X25519) => "x25519".to_owned(),
        Err(_) => format!("unknown ({id})"),
    }
}

/// What is allowed, but rarely meant.
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

fn rings(ring: &KeyRing, verdict: &str) -> String {
    let head = details([("version", ring.version.to_string()), ("signature", verdict.to_owned())]);
    let keys = ring.keys.iter().map(|entry| {
        let (epoch, suite) = (entry.epoch.to_string(), suite_name(entry.suite));
        [entry.pool.to_string(), epoch, state(entry.state).to_owned(), suite, entry.key_id.to_string()]
    });
    let keys = table(["POOL", "EPOCH", "STATE", "SUITE", "KEY ID"], keys);
    let issuers = table(["ISSUER"], ring.issuers.iter().map(|entry| [entry.id.to_string()]));
    format!("{head}\n{keys}\n{issuers}")
}

fn verdict(security: Option<&VerifyingKey>) -> &'static str {
    match security {
        Some(_) => "verified",
        None => "not checked: give --security-public",
    }
}

fn state(state: KeyState) -> &'static str {
    match state {
        KeyState::Pending => "pending",
        KeyState::Active => "active",
        KeyState::Retiring => "retiring",
        KeyState::Retired => "retired",
    }
}
