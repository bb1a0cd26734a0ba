//! What people and programs see of a site.

use certseal_wire::{
    CertificateState, LOST, OrderStatus, OrderSummary, RenewalAdvice, SiteState, SiteStatus, StapleStatus,
};

use jiff::Timestamp;

use crate::{Advice, Compromised, Looked, OrderRef, Site, Step, Wait, Window};

/// How the site is doing.
pub fn site_status(site: &Site, now: Timestamp) -> SiteStatus {
    let attempt = site.attempts.worst();
    let state = match attempt {
        attempt if attempt.dead => SiteState::Failed,
        attempt if attempt.failures() > 0 => SiteState::Waiting,
        _ if site.attempts.order.wait == Wait::Names => SiteState::Waiting,
        _ if site.certificate.is_none() => SiteState::Pending,
        _ => SiteState::Active,
    };
    let step = match &site.order {
        _ if !site.route_stored => Some("route"),
        Some(step) => Some(step.name()),
        None if site.lost => Some(LOST),
        None => None,
    };
    SiteStatus {
        site: site.site.clone(),
        names: site.names.clone(),
        upstream: site.upstream.clone(),
        pools: site.pools.clone(),
        owner: site.owner.clone(),
        profile: site.profile.clone(),
        key_type: site.key_type,
        challenges: site.challenges.clone(),
        companion_of: site.companion_of.clone(),
        state,
        names_state: site.looked.as_ref().map(|looked| looked.readiness).unwrap_or_default(),
        certificate_state: certificate_state(site, now),
        version: site.bundle_version,
        authority: site.certificate.as_ref().map(|certificate| certificate.authority.clone()),
        not_after: site.certificate.as_ref().map(|certificate| certificate.not_after),
        renew_at: site.certificate.as_ref().map(|certificate| certificate.renew_at),
        expiring_at: site.expiring_at(),
        advice: site.certificate.as_ref().and_then(|certificate| {
            let Advice { window, explanation, ask_at } = certificate.advice.clone();
            let Window { start, end } = window?;
            Some(RenewalAdvice { start, end, explanation, ask_at })
        }),
        staple: site.staple.as_ref().filter(|staple| staple.responder && !site.departed).map(|staple| StapleStatus {
            version: staple.version,
            fetch_at: staple.fetch_at.max(site.attempts.staple.retry_at),
            failures: site.attempts.staple.failures(),
            diagnosis: site.attempts.staple.diagnosis.clone(),
        }),
        dns: site.looked.as_ref().map(Looked::report),
        order: step.map(|step| OrderSummary {
            step: step.to_owned(),
            failures: attempt.failures(),
            rejections: site.attempts.order.rejected,
            retry_at: attempt.retry_at,
            diagnosis: attempt.diagnosis.clone(),
        }),
    }
}

fn certificate_state(site: &Site, now: Timestamp) -> CertificateState {
    match &site.certificate {
        None => CertificateState::Missing,
        Some(certificate) if certificate.not_after <= now => CertificateState::Expired,
        Some(_) if site.compromised.as_ref().is_some_and(is_key_compromise) => CertificateState::Compromised,
        Some(certificate) if certificate.expiring_at() <= now => CertificateState::Expiring,
        Some(_) => CertificateState::Valid,
    }
}

fn is_key_compromise(compromised: &Compromised) -> bool {
    compromised.certificate.reason.is_key_compromise()
}

/// The order, for operators.
pub fn order_status(site: &Site) -> Option<OrderStatus> {
    let stage = site.stage()?;
    let order = site.order.as_ref().and_then(Step::order);
    let attempt = &site.attempts.order;
    Some(OrderStatus {
        site: site.site.clone(),
        names: site.names.clone(),
        stage: stage.as_str().to_owned(),
        lane: site.lane(site.written_at).as_str().to_owned(),
        authority: order.and_then(OrderRef::authority).map(ToString::to_string),
        order_url: order.map(|order| order.url.clone()),
        rejections: attempt.rejected,
        retry_at: attempt.retry_at,
        diagnosis: attempt.diagnosis.clone(),
    })
}
