//! What a platform should hear of, when a site becomes another one.

use certseal_wire::{SiteEvent, SiteEventData, SiteEventKind};
use jiff::Timestamp;

use crate::{Looked, Site, Stage, site_status};

/// What happened to a site that was `before`, and is `site` from `revision` on.
pub fn news(before: Option<&Site>, site: &Site, revision: u64, now: Timestamp) -> Vec<SiteEvent> {
    let kinds = kinds(before, site);
    if kinds.is_empty() {
        return Vec::new();
    }
    let status = site_status(site, now);
    let seen = site.looked.as_ref().filter(|looked| looked.is_not_ready()).and_then(Looked::summary);
    let event = |kind: SiteEventKind| SiteEvent {
        kind,
        timestamp: now,
        data: SiteEventData {
            site: site.site.clone(),
            companion_of: site.companion_of.clone(),
            names: site.names.clone(),
            owner: site.owner.clone(),
            revision,
            names_state: status.names_state,
            certificate_state: status.certificate_state,
            not_after: status.not_after,
            diagnosis: match kind {
                SiteEventKind::Issued | SiteEventKind::Renewed => None,
                SiteEventKind::NamesNotReady => seen.clone(),
                SiteEventKind::Failing | SiteEventKind::Expiring => {
                    status.order.as_ref().and_then(|order| order.diagnosis.clone()).or_else(|| seen.clone())
                }
            },
        },
    };
    kinds.into_iter().map(event).collect()
}

fn kinds(before: Option<&Site>, site: &Site) -> Vec<SiteEventKind> {
    if site.departed {
        return Vec::new();
    }
    let certificate =
        |site: &Site| site.certificate.as_ref().map(|it| (it.authority.clone(), it.not_before, it.not_after));
    let had = before.and_then(certificate);
    let is_replaced = certificate(site).is_some() && certificate(site) != had;
    let is_rejected = |site: &Site| site.attempts.order.rejected > 0;
    let is_dead = |site: &Site| site.stage() == Some(Stage::DeadLetter);
    // A certificate from before it left is no news; what failed then is.
    let present = before.filter(|before| !before.departed);
    let newly = |is: &dyn Fn(&Site) -> bool| is(site) && !present.is_some_and(is);
    let is_told = |site: &Site| {
        site.told_expiring.is_some() && site.told_expiring == site.certificate.as_ref().map(|it| it.not_after)
    };
    // Names of which nobody can say anything for a while have not been mended.
    let is_bad = |site: &Site| site.looked.as_ref().is_some_and(|looked| looked.was_bad);
    [
        (is_replaced && had.is_none(), SiteEventKind::Issued),
        (is_replaced && had.is_some(), SiteEventKind::Renewed),
        (newly(&is_rejected) || newly(&is_dead), SiteEventKind::Failing),
        (is_told(site) && !before.is_some_and(is_told), SiteEventKind::Expiring),
        (newly(&is_bad), SiteEventKind::NamesNotReady),
    ]
    .into_iter()
    .filter_map(|(happened, kind)| happened.then_some(kind))
    .collect()
}

#[cfg(test)]
mod tests {
    use certseal_wire::{DnsName, NameReport, NamesReport, Readiness, SiteRequest};
    use jiff::SignedDuration;

    use super::*;
    use crate::{Advice, Issued, Moment};

    fn site() -> Site {
        let name: DnsName = "shop.example".parse().unwrap();
        let names = vec![name.clone()].try_into().unwrap();
        let (upstream, pools) = ("http://127.0.0.1:1".parse().unwrap(), vec!["eu".parse().unwrap()]);
        Site::new(name, SiteRequest { owner: Some("ann".into()), ..SiteRequest::new(names, upstream, pools) })
    }

    fn issued(not_before: Timestamp) -> Issued {
        Issued {
            authority: "CA".into(),
            ordered_from: None,
            names: None,
            not_before: Some(not_before),
            not_after: not_before + SignedDuration::from_hours(90 * 24),
            renew_at: not_before + SignedDuration::from_hours(60 * 24),
            lineage: None,
            advice: Advice::default(),
            is_put_forward: false,
        }
    }

    #[test]
    fn each_change_that_matters_is_told_once() {
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let told = |before: Option<&Site>, site: &Site| -> Vec<&str> {
            news(before, site, 7, now).iter().map(|event| event.kind.as_str()).collect()
        };
        let new = site();
        assert!(told(None, &new).is_empty());
        let first = Site { certificate: Some(issued(now)), order: None, ..new.clone() };
        assert_eq!(told(Some(&new), &first), ["certificate.issued"]);
        assert!(told(Some(&first), &Site { bundle_version: 2, ..first.clone() }).is_empty(), "under another seal");
        let second = Site { certificate: Some(issued(now + SignedDuration::from_hours(1))), ..first.clone() };
        assert_eq!(told(Some(&first), &second), ["certificate.renewed"]);

        let rejected = |count: u32| {
            let mut site = first.clone();
            (site.attempts.order.rejected, site.attempts.order.diagnosis) = (count, Some("no".to_owned()));
            site
        };
        assert_eq!(told(Some(&first), &rejected(1)), ["certificate.failing"]);
        assert!(told(Some(&rejected(1)), &rejected(2)).is_empty());
        assert_eq!(told(Some(&rejected(3)), &rejected(4)), ["certificate.failing"], "a dead letter by now");
        assert_eq!(news(Some(&first), &rejected(1), 7, now)[0].data.diagnosis.as_deref(), Some("no"));

        let expiring = first.clone().expiry_told(now);
        assert_eq!(expiring, first, "it is not");
        let expiring = first.clone().expiry_told(now + SignedDuration::from_hours(80 * 24));
        assert_eq!(told(Some(&first), &expiring), ["certificate.expiring"]);
        assert!(told(Some(&expiring), &expiring).is_empty());

        let looked = |site: &Site, readiness: Readiness| {
            let name = NameReport { name: site.site.clone(), readiness, findings: Vec::new() };
            site.clone().looked_at(NamesReport::new(now, vec![name]), Moment { now, chance: 0.5 })
        };
        let bad = looked(&new, Readiness::NotReady);
        assert_eq!(told(Some(&new), &bad), ["names.not-ready"]);
        let unknown = looked(&bad, Readiness::Unknown);
        assert!(told(Some(&bad), &unknown).is_empty());
        assert!(told(Some(&unknown), &looked(&unknown, Readiness::NotReady)).is_empty());
        let ready = looked(&unknown, Readiness::Ready);
        assert!(told(Some(&unknown), &ready).is_empty());
        assert_eq!(told(Some(&ready), &looked(&ready, Readiness::NotReady)), ["names.not-ready"]);
        let left = first.clone().departed();
        assert!(told(Some(&first), &left).is_empty());
        let back = Site { departed: false, ..left.clone() };
        assert!(told(Some(&left), &back).is_empty(), "its certificate is from before");
    }
}
