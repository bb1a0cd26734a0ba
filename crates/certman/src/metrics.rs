//! Counters, without any label that grows with the number of sites.

use certseal_issuance::{FailureKind, Outcome};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Clone, Default)]
pub(crate) struct Metrics {
    certificates: Counter,
    revocations: Counter,
    failures: Family<FailureLabels, Counter>,
    pub(crate) requests: Requests,
}

/// Requests to the CA.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    /// For nonces.
    pub(crate) nonces: Counter,
    /// For everything else.
    pub(crate) others: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    kind: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> (Self, Registry) {
        let metrics = Self::default();
        let mut registry = Registry::with_prefix("certman");
        registry.register("certificates", "Certificates issued and stored", metrics.certificates.clone());
        let revocations = metrics.revocations.clone();
        registry.register("revocations", "Compromised certificates that the CA was told of", revocations);
        let Requests { nonces, others } = metrics.requests.clone();
        registry.register("acme_nonce_requests", "Requests to the CA for nonces", nonces);
        registry.register("acme_requests", "Requests to the CA for everything else", others);
        registry.register("failures", "Failed attempts by what follows from them", metrics.failures.clone());
        (metrics, registry)
    }

    pub(crate) fn performed(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Stored { .. } => drop(self.certificates.inc()),
            Outcome::Revoked(_) => drop(self.revocations.inc()),
            Outcome::Failed(failure) => {
                let kind = match failure.kind {
                    FailureKind::Unavailable => "unavailable",
                    FailureKind::Unanswered => "unanswered",
                    FailureKind::Throttled(_) => "throttled",
                    FailureKind::Outrun(_) => "outrun",
                    FailureKind::AlreadyReplaced => "already replaced",
                    FailureKind::Rejected => "rejected",
                    FailureKind::Hopeless => "hopeless",
                };
                self.failures.get_or_create(&FailureLabels { kind }).inc();
            }
            _ => {}
        }
    }
}
