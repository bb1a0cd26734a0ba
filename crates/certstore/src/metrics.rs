//! Counters, without any label that grows with the fleet.

use certseal_wire::Kind;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Clone, Default)]
pub(crate) struct Metrics {
    writes: Family<WriteLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    commit_failures: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: String,
    changed: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    role: RoleLabel,
    status: u16,
}

/// A caller's role without its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum RoleLabel {
    Edge,
    Issuer,
    Admin,
    Platform,
    Service,
}

impl Metrics {
    pub(crate) fn new() -> (Self, Registry) {
        let metrics = Self::default();
        let mut registry = Registry::with_prefix("certstore");
        registry.register("writes", "Accepted writes by kind of record", metrics.writes.clone());
        registry.register("requests", "Answered requests by role and status", metrics.requests.clone());
        registry.register("commit_failures", "Commits that the storage refused", metrics.commit_failures.clone());
        (metrics, registry)
    }

    pub(crate) fn written(&self, kind: Kind, changed: bool) {
        self.writes.get_or_create(&WriteLabels { kind: kind.to_string(), changed: changed.to_string() }).inc();
    }

    pub(crate) fn answered(&self, role: RoleLabel, status: u16) {
        self.requests.get_or_create(&RequestLabels { role, status }).inc();
    }

    pub(crate) fn commit_failed(&self) {
        self.commit_failures.inc();
    }
}
