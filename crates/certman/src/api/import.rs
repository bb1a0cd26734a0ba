//! Imports for a site from elsewhere: certificates and keys that a platform has, and the key of a certificate sealed anew.

use std::sync::Arc;

use axum::{
    Json,
    extract::{DefaultBodyLimit, State, rejection::JsonRejection},
};
use certseal_issuance::{SealedKey, Site, Step};
use certseal_seal::{Bundle, Draft, LegacyKey, Sealed, names_digest, spki_digest};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{Base64, BundleInfo, DnsName, Import, NameSet, Reseal, SiteStatus};
use jiff::Timestamp;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use crate::{
    api::request::{
        Admin, Allowed, Name, Pools, change, checked, conflict, journaled, malformed, present, refusal, status,
    },
    authority::MAX_CHAIN,
    certstore::{certified, versions_used_up},
    worker::Worker,
};

pub(crate) fn operations() -> OpenApiRouter<Arc<Worker>> {
    OpenApiRouter::new().routes(routes!(import).layer(DefaultBodyLimit::max(MAX_IMPORT))).routes(routes!(reseal))
}

/// The same import again is no change, also after its key was sealed anew.
#[utoipa::path(
    post, path = "/v1/sites/{site}/import", tag = "imports",
    summary = "A site with the certificate and the sealed key that a platform has. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    request_body = Import,
    responses((status = 200, body = SiteStatus), ProblemDocument),
)]
async fn import(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    Name(name): Name,
    import: Result<Json<Import>, JsonRejection>,
) -> Result<Json<SiteStatus>, Refusal> {
    let Json(Import { site: request, chain, sealed }) = import.map_err(|e| malformed(e.body_text()))?;
    let request = checked(&worker, &name, request, &Pools::of(&worker).await)?;
    check_import(&chain, &sealed, &request.names)?;
    let own = name.clone();
    let before = journaled(&worker, move |journal| journal.read(&own)).await?.map(|entry| entry.site);
    let stored = worker.certstore.stored_bundle(&name).await.map_err(refusal)?;
    // The remains of a site that was removed do not count.
    let kept = stored.as_ref().filter(|_| before.as_ref().is_none_or(|site| !site.departed));
    let kept = kept.map(|(bundle, _)| {
        let same_chain = bundle.chain().iter().eq(chain.iter().map(|der| &der.0));
        match bundle.sealed() {
            Sealed::Envelope(_) => Kept::Envelope { same_chain },
            Sealed::Legacy(legacy) => Kept::Legacy { same: same_chain && legacy.to_bytes() == sealed.0 },
        }
    });
    let version = stored.as_ref().map_or(0, |(_, info)| info.version);
    let key = SealedKey { csr: None, bytes: sealed, enveloped: false };
    let own = name.clone();
    let (site, _) = change(&worker, &name, move |found| {
        if found != before.as_ref() {
            return Err(conflict(format!("{own} was changed by somebody else meanwhile; try again")));
        }
        let site = match found {
            Some(site) => site.clone().changed(request.clone()),
            None => Site::new(own.clone(), request.clone()),
        };
        let certified = found.filter(|site| site.certificate.is_some() && !site.departed);
        let covers_the_same = certified.is_some_and(|found| found.names == site.names && found.pools == site.pools);
        match kept {
            Some(Kept::Envelope { same_chain: true } | Kept::Legacy { same: true }) if covers_the_same => Ok(site),
            Some(Kept::Envelope { .. }) => Err(conflict(format!(
                "{own} has version {version} with its key in an envelope: an imported key never takes its place"
            ))),
            // Also when it left since, or certstore says that it has nothing.
            _ if found.is_some_and(|found| found.enveloped) => Err(conflict(format!(
                "{own} had its key in an envelope before: an imported key never takes its place; add the site without it"
            ))),
            _ if is_order_for(&site, &key, &chain) => Ok(site),
            _ if certified.is_some_and(|found| found.order.is_some()) => {
                Err(conflict(format!("{own} has a certificate, and an order for the next one is under way")))
            }
            _ => Ok(site.imported(key.clone(), chain.clone(), version)),
        }
    })
    .await?;
    Ok(Json(status(&site)))
}

/// Whether the site has this key and chain stored already.
fn is_order_for(site: &Site, key: &SealedKey, brought: &[Base64]) -> bool {
    matches!(&site.order, Some(Step::Issued { sealed, chain, .. }) if sealed == key && chain == brought)
}

/// The key that certstore has for a site that is to be imported.
#[derive(Clone, Copy)]
enum Kept {
    Envelope { same_chain: bool },
    Legacy { same: bool },
}

fn check_import(chain: &[Base64], sealed: &Base64, names: &NameSet) -> Result<(), Refusal> {
    let leaf = chain.first().ok_or_else(|| malformed("expected a chain of certificates, the leaf first, got none"))?;
    let octets: usize = chain.iter().map(|der| der.0.len()).sum();
    if octets > MAX_CHAIN {
        return Err(malformed(format!("expected a chain of at most {MAX_CHAIN} octets, got {octets}")));
    }
    let certified = certified(&leaf.0, names).map_err(|failure| malformed(failure.detail))?;
    if certified.not_after <= Timestamp::now() {
        return Err(malformed(format!(
            "expected a certificate that is valid, got one that expired at {}: add the site without it",
            certified.not_after
        )));
    }
    // Refuses envelopes too: a key that is sealed anew goes with the stored certificate.
    LegacyKey::parse(&sealed.0).map(drop).map_err(|error| malformed(format!("the sealed key: {error}")))
}

#[utoipa::path(
    post, path = "/v1/sites/{site}/envelope", tag = "imports",
    summary = "The key of the stored certificate, sealed anew elsewhere. Role admin.",
    params(("site" = DnsName, Path)),
    request_body = Reseal,
    responses((status = 200, body = SiteStatus), ProblemDocument),
)]
async fn reseal(
    State(worker): State<Arc<Worker>>,
    _: Admin,
    Name(name): Name,
    reseal: Result<Json<Reseal>, JsonRejection>,
) -> Result<Json<SiteStatus>, Refusal> {
    let Json(Reseal { draft }) = reseal.map_err(|e| malformed(e.body_text()))?;
    let draft = Draft::parse(&draft.0).map_err(|error| malformed(format!("the draft: {error}")))?;
    let before = present(&worker, &name).await?.site;
    let stored = worker.certstore.stored_bundle(&name).await.map_err(refusal)?;
    let (bundle, info) = stored.ok_or_else(|| conflict(format!("{name} has no certificate yet")))?;
    check_draft(&worker, &draft, &before, &bundle, &info).await?;
    let envelope = draft.sign(worker.certstore.issuer());
    let key = SealedKey { csr: None, bytes: Base64(envelope.to_bytes()), enveloped: true };
    let chain: Vec<_> = bundle.chain().iter().cloned().map(Base64).collect();
    let own = name.clone();
    let (site, _) = change(&worker, &name, move |found| match found {
        Some(site) if *site == before => Ok(site.clone().resealed(key.clone(), chain.clone())),
        _ => Err(conflict(format!("{own} was changed by somebody else meanwhile; look at it and try again"))),
    })
    .await?;
    Ok(Json(status(&site)))
}

/// certman signs what it cannot open: that it is for this certificate, and for these edges, is all that it can see.
async fn check_draft(
    worker: &Worker,
    draft: &Draft,
    site: &Site,
    bundle: &Bundle,
    info: &BundleInfo,
) -> Result<(), Refusal> {
    let next = info.version.checked_add(1).ok_or_else(|| refusal(versions_used_up()))?;
    let header = draft.header();
    if site.order.is_some() || site.compromised.is_some() {
        return Err(conflict(format!(
            "an order for {} is under way: its certificate will come with a key of ours",
            site.site
        )));
    }
    if info.version != site.bundle_version || info.names != site.names {
        return Err(conflict(format!("{} is being changed; look at it and try again", site.site)));
    }
    if header.group.is_some() {
        return Err(malformed("expected a draft with a content key of its own, got one of a group"));
    }
    if header.key_version != next {
        return Err(conflict(format!("expected a draft for version {next}, got version {}", header.key_version)));
    }
    let expect =
        |holds: bool, what: &str| if holds { Ok(()) } else { Err(malformed(format!("expected a draft {what}"))) };
    let issuer = worker.certstore.issuer().verifying_key().id();
    expect(header.issuer == issuer, &format!("for issuer {issuer}, which this certman is"))?;
    expect(header.names == names_digest(&info.names), "for the names of the stored certificate")?;
    let spki = bundle.leaf_spki().map(spki_digest);
    expect(spki == Some(header.spki), "with the key of the stored certificate")?;
    let recipients = worker.certstore.recipients(&site.pools).await.map_err(refusal)?;
    let is_sealed_to = |recipient: &certseal_seal::Recipient| {
        draft.stanzas().iter().any(|stanza| {
            stanza.pool == *recipient.pool() && stanza.epoch == recipient.epoch() && stanza.key_id == recipient.key_id()
        })
    };
    let covers = draft.stanzas().len() == recipients.len() && recipients.iter().all(is_sealed_to);
    expect(covers, "sealed to the active unseal keys of the site's pools and to nothing else: read the key ring again")
}

/// A chain of 64 KiB and a key of 8 KiB in base64, with names.
const MAX_IMPORT: usize = 256 * 1024;
