//! `certctl keys rotate`.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use certseal_client::Progress;
use certseal_seal::{RingMark, VerifyingKey};
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{PoolName, RotationPlan, RotationReason, RotationState, RotationStep};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::SignedDuration;
use serde::Serialize;

use super::keys::{signing_key, suite_name, token_uri};
use crate::{
    cli::{PlanArgs, RotateCommand, RunArgs},
    keys,
    output::{Output, details, joined, or_dash, table},
    rotation::{self, Known, NewRotation, Run},
    settings::Settings,
};

pub(super) async fn run(command: RotateCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let store = settings.store()?;
    let bar = Bar::new(output);
    let known = match command {
        RotateCommand::Plan(args) => return plan(args, settings, output).await,
        RotateCommand::Show { id: None } => return list(settings, output).await,
        RotateCommand::Show { id: Some(id) } => rotation::known(&store, &trusted(settings)?, id).await?,
        RotateCommand::Approve { id, digest } => rotation::approve(&store, &trusted(settings)?, id, digest).await?,
        RotateCommand::Run(RunArgs { id, security_key, unseal_keys, timeout }) => {
            let (security, keys) = (signing_key(&security_key)?, unseal_keys_of(&unseal_keys)?);
            let certman = settings.certman().ok();
            let patience = Duration::from_secs(timeout);
            let run = Run { security: &security, keys: &keys, certman: certman.as_ref(), patience };
            rotation::run(&settings.rings(&store, security.verifying_key())?, id, &run, &bar).await?
        }
        RotateCommand::Rewrap { id, all, unseal_keys } => {
            let (security, keys) = (trusted(settings)?, unseal_keys_of(&unseal_keys)?);
            let known = rotation::known(&store, &security, id).await?;
            let rings = settings.rings(&store, security.clone())?;
            let outcome = rotation::rewrap(&rings, &known.plan, &keys, all, &bar).await?;
            refuse_failed("could not be sealed to the new key", &outcome.failed)?;
            rotation::known(&store, &security, id).await?
        }
        RotateCommand::Verify { id, unseal_key } => {
            let (security, keys) = (trusted(settings)?, unseal_keys_of(&[unseal_key])?);
            let known = rotation::known(&store, &security, id).await?;
            let outcome = rotation::verify(&store, &known.plan, &keys, &bar).await?;
            refuse_failed("could not be opened with the new key", &outcome.failed)?;
            rotation::known(&store, &security, id).await?
        }
        RotateCommand::Retire { id, security_key, timeout } => {
            let patience = Duration::from_secs(timeout);
            let security = signing_key(&security_key)?;
            let rings = settings.rings(&store, security.verifying_key())?;
            rotation::retire(&rings, id, &security, patience, &bar).await?
        }
        RotateCommand::Abort { id, security_key } => {
            let security = signing_key(&security_key)?;
            rotation::abort(&settings.rings(&store, security.verifying_key())?, id, &security).await?
        }
    };
    bar.clear();
    show(&known, output)
}

async fn plan(args: PlanArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let PlanArgs { pool, place, security_key, compromised, verify_one_in, valid_hours, note, seen } = args;
    let uri = token_uri(&place)?;
    let out = super::keys::place(&place, uri.as_ref())?;
    out.check_free()?;
    let (store, security) = (settings.store()?, signing_key(&security_key)?);
    let rings = settings.rings(&store, security.verifying_key())?;
    let ring = rings.existing(RingMark::of_version(seen)).await?;
    let (epoch, suite) = rotation::plan(&ring, &pool)?;
    let key = out.make_key(&pool, epoch, suite).context("nothing was proposed")?;
    let reason = if compromised { RotationReason::Compromised } else { RotationReason::Routine };
    let validity = SignedDuration::from_hours(valid_hours.into());
    let new = NewRotation { pool, reason, verify_one_in, validity, note };
    let proposed = rotation::propose(&rings, &security, &ring, new, (&key.recipient(), key.public_key())).await;
    let known = proposed.with_context(|| format!("no plan names {out}, which can be deleted"))?;
    show(&known, output)
}

async fn list(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let security = trusted(settings)?;
    let rotations = settings.store()?.rotations().await?.rotations;
    let known = rotations.into_iter().map(|rotation| Known::genuine(rotation, &security));
    let known = known.collect::<anyhow::Result<Vec<_>>>()?;
    let views: Vec<_> = known.iter().map(View::new).collect();
    output.show(&views, || {
        let rows = known.iter().map(|Known { plan, rotation }| {
            [
                plan.id.to_string(),
                plan.pool.to_string(),
                plan.reason.to_string(),
                joined(&plan.from),
                plan.to.epoch.to_string(),
                rotation.state.to_string(),
                plan.created_at.to_string(),
            ]
        });
        table(["ROTATION", "POOL", "REASON", "FROM", "TO", "STATE", "CREATED"], rows)
    })
}

#[derive(Serialize)]
struct View<'a> {
    plan: &'a RotationPlan,
    digest: String,
    state: RotationState,
    proposed_by: &'a str,
    approved_by: Option<&'a str>,
    steps: &'a [RotationStep],
    next: String,
}

impl<'a> View<'a> {
    fn new(known: &'a Known) -> Self {
        let Known { plan, rotation } = known;
        Self {
            plan,
            digest: rotation.digest.to_string(),
            state: rotation.state,
            proposed_by: &rotation.proposed_by,
            approved_by: rotation.approved_by.as_deref(),
            steps: &rotation.steps,
            next: next(known),
        }
    }
}

fn show(known: &Known, output: Output) -> anyhow::Result<()> {
    let view = View::new(known);
    output.show(&view, || {
        let Known { plan, rotation } = known;
        let head = details([
            ("rotation", plan.id.to_string()),
            ("plan", rotation.digest.to_string()),
            ("pool", plan.pool.to_string()),
            ("reason", plan.reason.to_string()),
            ("from epochs", joined(&plan.from)),
            ("to epoch", plan.to.epoch.to_string()),
            ("new key", plan.to.key_id.to_string()),
            ("suite", suite_name(plan.to.suite)),
            ("verify", format!("one bundle in {}", plan.verify_one_in)),
            ("key ring", plan.ring_version.to_string()),
            ("expires", plan.expires_at.to_string()),
            ("note", if plan.note.is_empty() { "-".to_owned() } else { plan.note.clone() }),
            ("state", rotation.state.to_string()),
            ("proposed by", rotation.proposed_by.clone()),
            ("approved by", or_dash(rotation.approved_by.as_ref())),
        ]);
        let rows = rotation.steps.iter().map(|step| [step.at.to_string(), step.by.clone(), step.what.clone()]);
        format!("{head}\n{}\n{}", table(["AT", "BY", "WHAT"], rows), next(known))
    })
}

/// What to do next.
fn next(Known { plan, rotation }: &Known) -> String {
    let id = plan.id;
    let compromised = "Sealing the same TLS keys to another unseal key does not help: whoever has the old one and old \
                       ciphertext has them. `run` has every certificate issued again with a new key and the old ones \
                       revoked, before renewals and new sites.";
    match rotation.state {
        RotationState::Proposed => {
            let advice = format!(
                "Another admin looks at the plan and approves it:\n  certctl keys rotate approve {id} --digest {}",
                rotation.digest
            );
            match plan.reason {
                RotationReason::Routine => advice,
                RotationReason::Compromised => format!("{compromised}\n{advice}"),
            }
        }
        RotationState::Approved | RotationState::Announced | RotationState::Active => match plan.reason {
            RotationReason::Routine => format!(
                "Give the new key's file to the edges of pool {}, and, where the old key is:\n  certctl keys rotate run \
                 {id} --unseal-key OLD\nThen, where the new key is:\n  certctl keys rotate verify {id} --unseal-key NEW",
                plan.pool
            ),
            RotationReason::Compromised => format!(
                "{compromised}\nGive the new key's file to the edges of pool {}, and:\n  certctl keys rotate run {id}\nThen:\n  \
                 certctl keys rotate verify {id} --unseal-key NEW",
                plan.pool
            ),
        },
        RotationState::Verified => format!("Remove what is sealed to the old keys:\n  certctl keys rotate retire {id}"),
        RotationState::Retired => {
            "Take the old key from the edges' `unseal_keys`, and destroy every copy of it.".to_owned()
        }
        RotationState::Aborted => "Nothing: it was given up. The new key can be destroyed.".to_owned(),
    }
}

fn refuse_failed(what: &str, failed: &[(certseal_wire::DnsName, String)]) -> anyhow::Result<()> {
    let Some((site, reason)) = failed.first() else { return Ok(()) };
    bail!(
        "{} bundles {what}, among them {site}: {reason}; have them issued again with `certctl site renew`",
        failed.len()
    )
}

pub(super) fn trusted(settings: &Settings) -> anyhow::Result<VerifyingKey> {
    settings.security_public()?.ok_or_else(|| {
        let text = "expected --security-public: without the security team's public key no plan can be trusted";
        crate::failure::Failure::Usage(text.to_owned()).into()
    })
}

/// The unseal keys in these files and tokens, all of one pool.
pub(super) fn unseal_keys_of(files: &[String]) -> anyhow::Result<UnsealKeys> {
    let keys: Vec<UnsealKey> = files.iter().map(|file| keys::load(file)).collect::<anyhow::Result<_>>()?;
    let first: Option<PoolName> = keys.first().map(|key| key.pool().clone());
    if let Some(other) = keys.iter().find(|key| Some(key.pool()) != first.as_ref()) {
        bail!("expected keys of one pool, got one of pool {} too", other.pool());
    }
    Ok(UnsealKeys::from_iter(keys))
}

/// A progress bar with its rate, on standard error; hidden where that is no terminal.
pub(super) struct Bar {
    bar: Mutex<ProgressBar>,
    hidden: bool,
}

impl Bar {
    pub(super) fn new(output: Output) -> Self {
        Self { bar: Mutex::new(ProgressBar::hidden()), hidden: output.is_json() }
    }

    pub(super) fn clear(&self) {
        self.current().finish_and_clear();
    }

    /// Does what prints, without the bar in its way.
    pub(super) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.current().suspend(print)
    }

    fn current(&self) -> ProgressBar {
        // A handle; the lock is held for assignments only.
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        if self.hidden {
            return;
        }
        self.clear();
        let (bar, template) = match total {
            0 => (ProgressBar::new_spinner(), "{spinner} {msg} {human_pos} {per_sec}"),
            _ => (ProgressBar::new(total), "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bar.with_style(style).with_message(what.to_owned());
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }

    fn advance(&self, items: u64) {
        self.current().inc(items);
    }

    fn waiting(&self, what: &str) {
        if self.hidden {
            return;
        }
        let message = format!("waiting for {what}");
        let bar = self.current();
        if bar.is_hidden() || bar.length().is_some() {
            let spinner = ProgressBar::new_spinner();
            spinner.enable_steady_tick(Duration::from_millis(120));
            *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = spinner;
        }
        self.current().set_message(message);
    }
}
