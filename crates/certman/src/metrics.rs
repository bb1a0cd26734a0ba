//! Counters, without any label that grows with the number of sites.

use certseal_issuance::{FailureKind, Outcome};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What somebody should look at, as far as it is counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trouble {
    pub(crate) expiring: usize,
    pub(crate) dead_letters: usize,
    /// Events that are to be sent.
    pub(crate) untold: usize,
    /// Events that the receiver of webhooks does not want.
    pub(crate) put_aside: usize,
}

#[derive(Clone, Default)]
pub(crate) struct Metrics {
    certificates: Counter,
    expiring: Gauge,
    dead_letters: Gauge,
    untold: Gauge,
    put_aside: Gauge,
    webhooks: Family<WebhookLabels, Counter>,
    on_demand: Family<DemandedLabels, Counter>,
    warm_ups: Family<WarmedLabels, Counter>,
    revocations: Counter,
    staples: Counter,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DemandedLabels {
    outcome: Demanded,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WarmedLabels {
    outcome: Warmed,
}

/// What became of the warm-up of an edge for a site, or of all edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Warmed {
    /// The edge serves the site with its certificate.
    Served,
    /// It did not within half a minute.
    GivenUp,
    /// Too many sites waited: no edge was tried.
    Dropped,
}

/// What became of an edge's question for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Demanded {
    /// A site has the name.
    Known,
    /// There is a site now.
    Accepted,
    /// There may be none.
    Refused,
    /// Not now: there were too many.
    Limited,
    /// Nobody could say.
    Unavailable,
}

impl Metrics {
    pub(crate) fn new(commits: &Counter) -> (Self, Registry) {
        let metrics = Self::default();
        let mut registry = Registry::with_prefix("certman");
        registry.register("certificates", "Certificates issued and stored", metrics.certificates.clone());
        let revocations = metrics.revocations.clone();
        registry.register("revocations", "Compromised certificates that the CA was told of", revocations);
        registry.register("staples", "OCSP answers fetched, verified and stored", metrics.staples.clone());
        let Requests { nonces, others } = metrics.requests.clone();
        registry.register("acme_nonce_requests", "Requests to the CA for nonces", nonces);
        registry.register("acme_requests", "Requests to the CA for everything else", others);
        let text = "Transactions of the journal with sites or bookings";
        registry.register("journal_commits", text, commits.clone());
        let text = "Sites whose certificates are near their end, 10,000 at most; told by one process of several";
        registry.register("expiring_sites", text, metrics.expiring.clone());
        let text = "Orders that the CA rejects again and again, 10,000 at most; told by one process of several";
        registry.register("dead_letters", text, metrics.dead_letters.clone());
        let text = "Events that wait for the receiver of webhooks, 10,000 at most; told by one process of several";
        registry.register("webhooks_waiting", text, metrics.untold.clone());
        let text =
            "Events that the receiver of webhooks refused for good, 10,000 at most; told by one process of several";
        registry.register("webhooks_put_aside", text, metrics.put_aside.clone());
        registry.register("webhooks", "Attempts to send an event, by their outcome", metrics.webhooks.clone());
        registry.register("on_demand", "Questions of edges for new names, by their outcome", metrics.on_demand.clone());
        let text = "Warm-ups of edges for the first certificates of sites, by their outcome";
        registry.register("warm_ups", text, metrics.warm_ups.clone());
        registry.register("failures", "Failed attempts by what follows from them", metrics.failures.clone());
        (metrics, registry)
    }

    /// An event was sent.
    pub(crate) fn told(&self, outcome: &'static str) {
        self.webhooks.get_or_create(&WebhookLabels { outcome }).inc();
    }

    /// An edge asked for a certificate.
    pub(crate) fn demanded(&self, outcome: Demanded) {
        self.on_demand.get_or_create(&DemandedLabels { outcome }).inc();
    }

    /// An edge was warmed up, or not.
    pub(crate) fn warmed(&self, outcome: Warmed) {
        self.warm_ups.get_or_create(&WarmedLabels { outcome }).inc();
    }

    pub(crate) fn troubled(&self, Trouble { expiring, dead_letters, untold, put_aside }: Trouble) {
        // Bounded by who counts.
        self.expiring.set(expiring as i64);
        self.dead_letters.set(dead_letters as i64);
        self.untold.set(untold as i64);
        self.put_aside.set(put_aside as i64);
    }

    pub(crate) fn performed(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Stored { .. } => drop(self.certificates.inc()),
            Outcome::Revoked(_) => drop(self.revocations.inc()),
            Outcome::Stapled { .. } => drop(self.staples.inc()),
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
