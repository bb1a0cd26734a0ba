//! The reports of this edge to certstore, and the drills that it is asked for there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use certseal_client::StoreClient;
use certseal_resolver::{FollowerStatus, KeyHolder, Mirror};
use certseal_wire::{DrillOrder, DrillReport, EdgeReport, EnvelopeId};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::metrics::Metrics;

pub(crate) struct Reporter {
    pub(crate) name: String,
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) holder: Arc<dyn KeyHolder>,
    pub(crate) store: StoreClient,
    pub(crate) follower: watch::Receiver<FollowerStatus>,
    pub(crate) metrics: Metrics,
    /// Between two reports.
    pub(crate) every: Duration,
    /// Between two drills on schedule; none without.
    pub(crate) drills: Option<Duration>,
    /// Keys that a drill on schedule opens of each epoch and suite.
    pub(crate) sample: u32,
    /// Unseal keys were loaded again.
    pub(crate) keys_changed: Arc<Notify>,
}

impl Reporter {
    /// Reports until it is dropped.
    pub(crate) async fn run(self) {
        let mut drill: Option<DrillReport> = None;
        let mut followed: Option<EnvelopeId> = None;
        let mut next_drill = self.drills.map(|every| Instant::now() + every.min(FIRST_DRILL));
        let mut last_order = None;
        let mut ring = None;
        loop {
            if next_drill.is_some_and(|at| at <= Instant::now()) {
                drill = self.drill(self.sample, None).await.or(drill);
                next_drill = self.drills.map(|every| Instant::now() + every);
            }
            match self.store.report(&self.report(drill.clone())).await {
                Ok(orders) => {
                    let order = orders.drill.filter(|order| Some(order.id) != followed);
                    // certstore is not trusted: drills cost time, so they have a distance and a bound.
                    let has_rested = last_order.is_none_or(|at: Instant| at.elapsed() >= LEAST_BETWEEN_DRILLS);
                    if let Some(DrillOrder { id, sample }) = order.filter(|_| has_rested) {
                        (followed, last_order) = (Some(id), Some(Instant::now()));
                        drill = self.drill(sample.clamp(1, DrillOrder::MAX_SAMPLE), Some(id)).await.or(drill);
                        continue;
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot report to certstore"),
            }
            self.rest(&mut ring).await;
        }
    }

    /// Until the next report is due: at once when there is a new key ring, or new keys.
    async fn rest(&self, reported: &mut Option<u64>) {
        let end = tokio::time::Instant::now() + self.every;
        loop {
            let ring = self.mirror.ring().map(|ring| ring.version);
            if *reported != ring {
                *reported = ring;
                return;
            }
            tokio::select! {
                () = self.keys_changed.notified() => return,
                () = tokio::time::sleep(Duration::from_secs(1).min(self.every)) => {}
            }
            if tokio::time::Instant::now() >= end {
                return;
            }
        }
    }

    fn report(&self, drill: Option<DrillReport>) -> EdgeReport {
        let status = self.follower.borrow();
        EdgeReport {
            pool: self.mirror.pool().clone(),
            name: self.name.clone(),
            at: Timestamp::now(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            ring: self.mirror.ring().map_or(0, |ring| ring.version),
            keys: self.holder.loaded(),
            caught_up: status.caught_up,
            cursor: self.mirror.cursor(),
            bundles: self.mirror.bundle_count(),
            refused: self.mirror.refused_count(),
            drill,
        }
    }

    async fn drill(&self, sample: u32, order: Option<EnvelopeId>) -> Option<DrillReport> {
        let (mirror, holder) = (self.mirror.clone(), self.holder.clone());
        let report = tokio::task::spawn_blocking(move || mirror.drill(&*holder, sample, order)).await.ok()?;
        let (opened, failed) = report.classes.iter().fold((0, 0), |(o, f), class| (o + class.opened, f + class.failed));
        self.metrics.drilled(report.at, opened, failed);
        tracing::info!(opened, failed, classes = report.classes.len(), "drill done");
        Some(report)
    }
}

/// The first drill on schedule comes soon after the start.
const FIRST_DRILL: Duration = Duration::from_secs(60);

/// Between two drills that certstore asks for.
const LEAST_BETWEEN_DRILLS: Duration = Duration::from_secs(20);
