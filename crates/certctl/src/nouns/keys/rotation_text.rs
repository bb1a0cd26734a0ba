//! Rotations as text and as JSON, with what to do next.

use certseal_ceremonies::rotation::GenuineRotation;
use certseal_wire::{RotationPlan, RotationReason, RotationState, RotationStep};
use serde::Serialize;

use super::ring_text::suite_name;
use crate::output::{Output, details, joined, or_dash, table};

/// Shows one rotation.
pub(super) fn show(known: &GenuineRotation, output: Output) -> anyhow::Result<()> {
    let view = View::new(known);
    output.show(&view, || {
        let GenuineRotation { plan, rotation } = known;
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

/// Shows rotations, a line for each.
pub(super) fn show_all(known: &[GenuineRotation], output: Output) -> anyhow::Result<()> {
    let views: Vec<_> = known.iter().map(View::new).collect();
    output.show(&views, || {
        let rows = known.iter().map(|GenuineRotation { plan, rotation }| {
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
    fn new(known: &'a GenuineRotation) -> Self {
        let GenuineRotation { plan, rotation } = known;
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

/// The next thing to do.
fn next(GenuineRotation { plan, rotation }: &GenuineRotation) -> String {
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
