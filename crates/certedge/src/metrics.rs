//! The metrics of certedge. No label grows with the fleet.

use std::{sync::Arc, time::Instant};

use certseal_resolver::{FollowerStatus, KeyHolder, Mirror, SealedResolver};
use certseal_service::server::Counts;
use http::StatusCode;
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};
use tokio::sync::watch;

use crate::exchange::admission::Over;

#[derive(Clone, Default)]
pub(crate) struct Metrics {
    handshakes: Family<HandshakeLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    refused: Family<BoundLabels, Counter>,
    upstream_errors: Counter,
    challenges: Counter,
    on_demand: Family<DemandedLabels, Counter>,
    drill: Arc<Drill>,
}

/// The findings of the last drill.
#[derive(Default)]
struct Drill {
    at: Gauge,
    opened: Gauge,
    failed: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    outcome: Handshake,
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Handshake {
    /// With a signature.
    Full,
    /// With a ticket of an earlier one.
    Resumed,
    /// Without a connection.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    listener: Listener,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BoundLabels {
    bound: Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DemandedLabels {
    outcome: Demanded,
}

/// What became of a name that a visitor wanted and no site had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Demanded {
    /// It is asked for; its answer counts besides.
    Asked,
    /// Too many were asked for, or certman makes no more sites now.
    Limited,
    /// It may have no certificate.
    Refused,
    /// There will be a certificate.
    Accepted,
    /// A site has it, for other edges or soon for this one.
    Known,
    /// certman, or those whom it asks, did not answer.
    Unavailable,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Listener {
    /// Over TLS.
    Https,
    /// In the clear.
    Http,
}

impl Metrics {
    pub(crate) fn new(
        mirror: Arc<Mirror>,
        resolver: Arc<SealedResolver>,
        holder: Arc<dyn KeyHolder>,
        follower: watch::Receiver<FollowerStatus>,
        visitors: Counts,
    ) -> (Self, Registry) {
        let metrics = Self::default();
        let mut registry = Registry::with_prefix("certedge");
        registry.register("handshakes", "TLS handshakes by outcome", metrics.handshakes.clone());
        registry.register("requests", "Answered requests by listener and class of status", metrics.requests.clone());
        let help = "Requests that were refused, by the bound they met: an address's share, a site's, or the total";
        registry.register("refused_requests", help, metrics.refused.clone());
        registry.register("upstream_errors", "Requests without an upstream's answer", metrics.upstream_errors.clone());
        registry.register("challenges", "Answered ACME challenges", metrics.challenges.clone());
        let help = "Names that visitors wanted and no site had, by what became of them";
        registry.register("on_demand", help, metrics.on_demand.clone());
        let Drill { at, opened, failed } = &*metrics.drill;
        registry.register("drill_timestamp_seconds", "When the last drill ended, Unix time; 0 before", at.clone());
        registry.register("drill_opened", "Keys that the last drill opened", opened.clone());
        registry.register("drill_failed", "Keys that the last drill could not use: alert above 0", failed.clone());
        registry.register_collector(Box::new(Observed {
            mirror,
            resolver,
            holder,
            follower,
            visitors,
            started: Instant::now(),
        }));
        (metrics, registry)
    }

    pub(crate) fn handshake(&self, outcome: Handshake) {
        self.handshakes.get_or_create(&HandshakeLabels { outcome }).inc();
    }

    pub(crate) fn answered(&self, listener: Listener, status: StatusCode) {
        let status = format!("{}xx", status.as_u16() / 100);
        self.requests.get_or_create(&RequestLabels { listener, status }).inc();
    }

    pub(crate) fn refused(&self, bound: Over) {
        self.refused.get_or_create(&BoundLabels { bound }).inc();
    }

    pub(crate) fn demanded(&self, outcome: Demanded) {
        self.on_demand.get_or_create(&DemandedLabels { outcome }).inc();
    }

    pub(crate) fn drilled(&self, at: Timestamp, opened: u64, failed: u64) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.drill.at.set(at.as_second());
        self.drill.opened.set(gauge(opened));
        self.drill.failed.set(gauge(failed));
    }

    pub(crate) fn upstream_failed(&self) {
        self.upstream_errors.inc();
    }

    pub(crate) fn challenge_answered(&self) {
        self.challenges.inc();
    }
}

/// The mirror, the resolver and the follower, which count by themselves.
struct Observed {
    mirror: Arc<Mirror>,
    resolver: Arc<SealedResolver>,
    holder: Arc<dyn KeyHolder>,
    follower: watch::Receiver<FollowerStatus>,
    visitors: Counts,
    started: Instant,
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observed").field("mirror", &self.mirror).finish_non_exhaustive()
    }
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.resolver.counts();
        for (name, help, value) in [
            ("cache_hits", "Certificates that were in the cache", counts.hits),
            ("cache_misses", "Certificates that were loaded from the mirror", counts.misses),
            ("unsealed", "Private keys that were unsealed", counts.unsealed),
            ("unseal_failures", "Private keys that could not be unsealed or used", counts.unseal_failures),
            ("unknown_names", "Handshakes for a name without a certificate", counts.unknown_names),
            ("refused_connections", "Connections over the share of their address", self.visitors.refused()),
            ("unread_responses", "Responses that were given up, since nobody read them", self.visitors.unread()),
            ("refusals", "Items of the feed that were refused", self.mirror.refused_total()),
            (
                "passed_over",
                "Items of the feed of kinds that this release does not know",
                self.mirror.passed_over_total(),
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let status = self.follower.borrow();
        let loaded = self.holder.loaded().len() as u64;
        for (name, help, value) in [
            ("unseal_keys", "Unseal keys that are loaded, those of legacy formats among them: alert on 0", loaded),
            (
                "refused_items",
                "Items of the feed that are refused now, and keep their names behind",
                self.mirror.refused_count(),
            ),
            (
                "withheld_items",
                "Changes that a checkpoint lists and that did not come, or were refused",
                // Of the mirror, whatever the follower is doing: one that certstore keeps busy would not say.
                self.mirror.awaited_count(),
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }

        let silence = status.last_contact.unwrap_or(self.started).elapsed();
        // Without any checkpoint the age is that of the epoch, which no threshold overlooks.
        let issued_at = status.checkpoint_issued_at.unwrap_or(Timestamp::UNIX_EPOCH);
        // Negative when certman's clock is ahead.
        let age = Timestamp::now().duration_since(issued_at).as_secs_f64().max(0.0);
        for (name, help, value) in [
            ("feed_silence", "Time since certstore answered last, or since the start", silence.as_secs_f64()),
            ("checkpoint_age", "Time since certman made the newest checkpoint that came", age),
        ] {
            let seconds = ConstGauge::new(value);
            let descriptor = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), seconds.metric_type())?;
            seconds.encode(descriptor)?;
        }
        Ok(())
    }
}

/// Whether the edge can serve: it can open keys, knows whom to believe, and has bundles, or knows that there are none.
pub(crate) fn ready(mirror: &Mirror, holder: &dyn KeyHolder, follower: &FollowerStatus) -> Result<(), String> {
    if holder.loaded().is_empty() {
        return Err("no unseal key is loaded, so nothing can be signed: put a key file back".to_owned());
    }
    if mirror.ring().is_none() {
        let cause = follower.last_error.as_deref().unwrap_or("certstore was not reached yet");
        return Err(format!("there is no key ring, without which nothing can be verified: {cause}"));
    }
    if mirror.is_empty() && !follower.caught_up {
        return Err("the mirror is empty, and the feed was not read to its end yet".to_owned());
    }
    Ok(())
}
