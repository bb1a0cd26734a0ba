//! Certificates that are to be revoked: others may have the key, or somebody wants it for another reason.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use certseal_issuance::{Compromised, Revocation};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{Base64, DnsName, ProblemKind, Replacement, RevocationReason, RevocationRequest, SiteStatus};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::request::{Admin, Name, change, conflict, journaled, malformed, no_such_site, present, refusal, status},
    worker::Worker,
};

pub(crate) fn operations() -> OpenApiRouter<Arc<Worker>> {
    OpenApiRouter::new().routes(routes!(replace)).routes(routes!(revoke))
}

/// No change for a site that has a later version, or whose later version is on its way.
#[utoipa::path(
    post, path = "/v1/sites/{site}/replacement", tag = "revocations",
    summary = "Others may have the key: another certificate is issued, and the old one revoked. Role admin.",
    params(("site" = DnsName, Path)),
    request_body = Replacement,
    responses((status = 200, body = SiteStatus), ProblemDocument),
)]
async fn replace(
    State(worker): State<Arc<Worker>>,
    _: Admin,
    Name(name): Name,
    replacement: Result<Json<Replacement>, JsonRejection>,
) -> Result<Json<SiteStatus>, Refusal> {
    let Json(Replacement { version }) = replacement.map_err(|e| malformed(e.body_text()))?;
    let before = present(&worker, &name).await?.site;
    let is_known = before.compromised.as_ref().is_some_and(|known| {
        known.version > version || known.version == version && known.certificate.reason.is_key_compromise()
    });
    if before.bundle_version > version || is_known {
        return Ok(Json(status(&before)));
    }
    // Now, while certstore has it: the CA is told once another one is served.
    let stored = worker.certstore.stored_bundle(&name).await.map_err(refusal)?;
    if stored.as_ref().is_some_and(|(_, info)| info.version > version) {
        return Ok(Json(status(&before)));
    }
    let Some((bundle, info)) = stored else { return Ok(Json(status(&before))) };
    if info.version < version.max(before.bundle_version) {
        return Err(outdated(&name, info.version, version.max(before.bundle_version)));
    }
    let leaf = bundle.chain().first().cloned().ok_or_else(|| Refusal::internal("a bundle without a certificate"))?;
    let authority = before.certificate.as_ref().and_then(|certificate| certificate.ordered_from.clone());
    let certificate = Revocation { authority, leaf: Base64(leaf), reason: RevocationReason::KeyCompromise };
    let compromised = Compromised { version: info.version, certificate };
    // The ring may have changed within the last seconds: sealed to the compromised key again, it would all be in vain.
    worker.certstore.forget_ring().await;
    let own = name.clone();
    let (site, _) = change(&worker, &name, move |found| match found {
        Some(site) if !site.departed && site.bundle_version > version => Ok(site.clone()),
        Some(site) if !site.departed => Ok(site.clone().replaced(compromised.clone())),
        _ => Err(Refusal::new(ProblemKind::NotFound, no_such_site(&own))),
    })
    .await?;
    tracing::warn!(site = %name, version, "others may have the key: the certificate is issued again");
    Ok(Json(status(&site)))
}

/// The certificate of a site that left is revoked at once, if certstore has it still.
#[utoipa::path(
    post, path = "/v1/sites/{site}/revocation", tag = "revocations",
    summary = "A site's certificate is revoked for a reason, once another one has taken its place. Role admin.",
    params(("site" = DnsName, Path)),
    request_body = RevocationRequest,
    responses((status = 200, body = SiteStatus), ProblemDocument),
)]
async fn revoke(
    State(worker): State<Arc<Worker>>,
    _: Admin,
    Name(name): Name,
    request: Result<Json<RevocationRequest>, JsonRejection>,
) -> Result<Json<SiteStatus>, Refusal> {
    let Json(RevocationRequest { reason, version, without_replacement }) =
        request.map_err(|e| malformed(e.body_text()))?;
    if without_replacement && reason != RevocationReason::CessationOfOperation {
        return Err(malformed(format!(
            "expected the reason cessation-of-operation for a certificate without a replacement, got {reason}: with any other reason \
             the site goes on, and another certificate comes first"
        )));
    }
    let missing = || Refusal::new(ProblemKind::NotFound, no_such_site(&name));
    let own = name.clone();
    let before = journaled(&worker, move |journal| journal.read(&own)).await?.ok_or_else(missing)?.site;
    let stored = worker.certstore.stored_bundle(&name).await.map_err(refusal)?;
    let Some((bundle, info)) = stored else {
        return Err(conflict(format!("certstore has no certificate of {name}: there is nothing to revoke")));
    };
    if let Some(version) = version.filter(|version| *version != info.version) {
        return Err(conflict(format!(
            "certstore has version {} of {name}, and no other one: version {version} cannot be revoked here",
            info.version
        )));
    }
    let is_at_once = without_replacement || before.departed;
    if info.version < before.bundle_version || !is_at_once && info.version != before.bundle_version {
        return Err(outdated(&name, info.version, before.bundle_version));
    }
    let leaf = bundle.chain().first().cloned().ok_or_else(|| Refusal::internal("a bundle without a certificate"))?;
    let Some(authority) = before.certificate.as_ref().and_then(|certificate| certificate.ordered_from.clone()) else {
        return Err(conflict(format!("the certificate of {name} was not ordered here: have it revoked where it was")));
    };
    let certificate = Revocation { authority: Some(authority), leaf: Base64(leaf), reason };
    let compromised = Compromised { version: info.version, certificate };
    // As for a compromised unseal key: the next one is not to be sealed to it.
    worker.certstore.forget_ring().await;
    let own = name.clone();
    let (site, _) = change(&worker, &name, move |found| match found {
        Some(site) if site.departed != before.departed || site.bundle_version != before.bundle_version => {
            Err(conflict(format!("{own} was changed by somebody else meanwhile; look at it and try again")))
        }
        Some(site) if is_at_once => Ok(site.clone().revoked(compromised.certificate.clone())),
        Some(site) => Ok(site.clone().replaced(compromised.clone())),
        None => Err(Refusal::new(ProblemKind::NotFound, no_such_site(&own))),
    })
    .await?;
    tracing::warn!(site = %name, version = info.version, %reason, is_at_once, "somebody wants a certificate revoked");
    Ok(Json(status(&site)))
}

/// certstore answers with another certificate than the newest, which would be revoked in place of that.
fn outdated(name: &DnsName, stored: u64, newest: u64) -> Refusal {
    conflict(format!(
        "certstore has version {stored} of {name}, and the newest is {newest}: try again once that is stored"
    ))
}
