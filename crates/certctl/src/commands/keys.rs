//! `certctl keys`.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use certseal_seal::{RingMark, SigningKey, Suite, VerifyingKey};
use certseal_service::config::{ConfigError, read_private};
use certseal_unseal::token::TokenUri;
use certseal_wire::{KeyRing, KeyState, PoolName};
use serde::Serialize;

use crate::{
    cli::{GenerateArgs, IssuersCommand, KeysCommand, PlaceArgs, ReplaceArgs},
    failure::Failure,
    issuers::{self, Replacement},
    keys::{self, KeyPlace, NewPool},
    output::{Output, details, table},
    settings::{Settings, verifying_key},
};

pub(super) async fn run(command: KeysCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate(args) => generate(args, settings, output).await,
        KeysCommand::List => list(settings, output).await,
        KeysCommand::Issuers(command) => issuers(command, settings, output).await,
        KeysCommand::Rotate(command) => super::rotate::run(command, settings, output).await,
    }
}

async fn generate(args: GenerateArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let security = signing_key(&args.security_key)?;
    let issuers = args.issuers_public.iter().map(|path| verifying_key(path)).collect::<Result<Vec<_>, _>>()?;
    let uri = token_uri(&args.place)?;
    let out = place(&args.place, uri.as_ref())?;
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
        token: out.key_uri(&args.pool, keys::FIRST).map(|uri| uri.to_string()),
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

/// The token that is to make a key, if it is to be one.
pub(super) fn token_uri(place: &PlaceArgs) -> Result<Option<TokenUri>, Failure> {
    let parse = |text: &String| text.parse().map_err(|error| Failure::Usage(format!("--token: {error}")));
    place.token.as_ref().map(parse).transpose()
}

/// Where a new key goes. `uri` is that of [`token_uri`].
pub(super) fn place<'a>(place: &'a PlaceArgs, uri: Option<&'a TokenUri>) -> Result<KeyPlace<'a>, Failure> {
    match (&place.out, uri) {
        (Some(path), _) => Ok(KeyPlace::File(path)),
        (None, Some(uri)) => Ok(KeyPlace::Token(uri)),
        (None, None) => Err(Failure::Usage("expected --out or --token".to_owned())),
    }
}

async fn issuers(command: IssuersCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let store = settings.store()?;
    let ring = match command {
        IssuersCommand::Add { public, ring: args } => {
            let (issuer, security) = (verifying_key(&public)?, signing_key(&args.security_key)?);
            let rings = settings.rings(&store, security.verifying_key())?;
            let add = |ring: &mut KeyRing| {
                keys::add_issuer(ring, &issuer);
                Ok(())
            };
            rings.change(&security, RingMark::of_version(args.seen), add).await?
        }
        IssuersCommand::Replace(args) => return replace(args, settings, output).await,
        IssuersCommand::Remove { id, ring: args } => {
            let security = signing_key(&args.security_key)?;
            let rings = settings.rings(&store, security.verifying_key())?;
            let remove = |ring: &mut KeyRing| {
                let before = ring.issuers.len();
                ring.issuers.retain(|issuer| issuer.id != id);
                match ring.issuers.len() < before {
                    true => Ok(()),
                    false => bail!(Failure::NotFound(format!("the key ring lists no issuer {id}"))),
                }
            };
            rings.change(&security, RingMark::of_version(args.seen), remove).await?
        }
    };
    output.show(&ring, || rings(&ring, "signed and stored"))
}

async fn replace(args: ReplaceArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let (new, security) = (verifying_key(&args.public)?, signing_key(&args.ring.security_key)?);
    let (store, bar) = (settings.store()?, super::rotate::Bar::new(output));
    let certman = args.renew.then(|| settings.certman()).transpose()?;
    let replacement = match args.compromised {
        true => Replacement::Compromised { floor: args.floor },
        false => Replacement::Routine { renew: certman.as_ref(), patience: Duration::from_secs(args.timeout) },
    };
    let rings_of = settings.rings(&store, security.verifying_key())?;
    let seen = RingMark::of_version(args.ring.seen);
    let ring = issuers::replace(&rings_of, &security, &new, replacement, seen, &bar).await?;
    bar.clear();
    let next = "\nGive certman the new key as `issuer_key` and restart it: it signs everything anew, and orders every certificate \
                anew. `certctl site list` shows how far that is. Look for certificates that nobody ordered, and have them \
                revoked.\n";
    output.show(&ring, || rings(&ring, "signed and stored") + if args.compromised { next } else { "" })
}

async fn list(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let security = settings.security_public()?;
    let store = settings.store()?;
    let ring = match &security {
        Some(security) => settings.rings(&store, security.clone())?.current(RingMark::default()).await?,
        None => match store.ring().await.context("cannot read the key ring")? {
            Some(signed) => serde_json::from_slice(&signed.payload.0).context("the key ring does not parse")?,
            None => KeyRing::default(),
        },
    };
    if ring.version == 0 {
        let text = "certstore has no key ring yet: `certctl keys generate` makes the first one";
        bail!(Failure::NotFound(text.to_owned()));
    }
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
    Suite::try_from(id).map_or_else(|_| format!("unknown ({id})"), |suite| suite.name().to_owned())
}

/// The security team's signing key in a file.
pub(super) fn signing_key(path: &Path) -> anyhow::Result<SigningKey> {
    Ok(SigningKey::from_pem(&read_private(path)?).map_err(|e| ConfigError::invalid(path, e))?)
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
        [entry.pool.to_string(), epoch, entry.state.to_string(), suite, entry.key_id.to_string()]
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
