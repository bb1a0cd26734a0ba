//! The price of what certman asks of a CA, by the rules of Boulder (`ratelimits/transaction.go`, `wfe2` and `ra`, 2026-08).

use std::{collections::BTreeSet, sync::Arc};

use certseal_wire::{DnsName, NameSet};

use super::{bucket::Bucket, limits::LimitName};

/// The buckets of one order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cost {
    /// Taken by the order itself.
    pub order: Vec<Bucket>,
    /// Taken by its certificate, and given back when none comes. They are taken together with the order: other orders under
    /// way must not count on the same room.
    pub certificate: Vec<Bucket>,
    /// Not to be full when the order is placed.
    pub needs: Vec<Bucket>,
    /// Taken whether there is room or not: the CA counts the certificate, and asks these buckets for nothing.
    pub counted: Vec<Bucket>,
}

/// An order as the CA counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderKind {
    /// For names that had no certificate together in the last 120 days.
    New,
    /// For exactly the names of a certificate of the last 120 days: no new order and no new certificate of the domain.
    SameNames,
    /// For a certificate that it says to replace, within its suggested window (RFC 9773, 5): free of limits at the order. The
    /// certificate counts all the same: for its set, and where the set changed, for the domain.
    Replacement {
        /// Whether the names are exactly those of before.
        same_names: bool,
    },
}

/// The price of an order. `registered` names the registered domain of a name, by the public suffix list.
pub fn order_cost(kind: OrderKind, names: &NameSet, registered: impl Fn(&DnsName) -> String) -> Cost {
    let needs = || names.iter().flat_map(failure_cost).collect();
    let certificate = |is_known_set: bool| {
        let set: Arc<str> = match names.only() {
            Some(name) => name.clone().into(),
            None => names.iter().map(DnsName::as_str).collect::<Vec<_>>().join(" ").into(),
        };
        let mut certificate = vec![bucket(LimitName::CertificatesPerNameSet, set)];
        if !is_known_set {
            let domains: BTreeSet<String> = names.iter().map(registered).collect();
            certificate.extend(domains.into_iter().map(|domain| bucket(LimitName::CertificatesPerDomain, domain)));
        }
        certificate
    };
    match kind {
        OrderKind::New => Cost {
            order: vec![Bucket::of_account(LimitName::NewOrders)],
            certificate: certificate(false),
            needs: needs(),
            ..Cost::default()
        },
        OrderKind::SameNames => Cost { certificate: certificate(true), needs: needs(), ..Cost::default() },
        OrderKind::Replacement { same_names } => Cost { counted: certificate(same_names), ..Cost::default() },
    }
}

/// The buckets that a failed validation of a name takes from.
pub(super) fn failure_cost(name: &DnsName) -> Vec<Bucket> {
    [LimitName::FailedValidations, LimitName::ConsecutiveFailures].map(|limit| bucket(limit, name.clone())).to_vec()
}

/// The buckets that a successful validation of a name empties.
pub(super) fn success_resets(name: &DnsName) -> Vec<Bucket> {
    vec![bucket(LimitName::ConsecutiveFailures, name.clone())]
}

fn bucket(limit: LimitName, subject: impl Into<Arc<str>>) -> Bucket {
    Bucket { limit, subject: subject.into() }
}
