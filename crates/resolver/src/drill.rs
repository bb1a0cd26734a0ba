//! Drills: opening sealed keys at random, before one is missed in production.

use std::collections::BTreeMap;

use certseal_seal::{Bundle, Sealed, Stanza};
use certseal_wire::{DnsName, DrillClass, DrillFailure, DrillReport, EnvelopeId, Epoch, KeyId, PoolName};
use jiff::Timestamp;

use crate::{KeyHolder, Mirror, key_holder::check_bundle};

impl Mirror {
    /// Opens at most `sample` keys, chosen at random, of every epoch and suite that the mirror holds, and compares each
    /// with its certificate. `order` is repeated in the report.
    ///
    /// Reads all bundles, a few microseconds each: call it away from an async reactor.
    pub fn drill(&self, holder: &dyn KeyHolder, sample: u32, order: Option<EnvelopeId>) -> DrillReport {
        let loaded = holder.loaded();
        let mut classes: BTreeMap<Class, Reservoir> = BTreeMap::new();
        self.each_bundle(|site, bundle| {
            classes.entry(Class::of(&bundle, self.pool(), &loaded)).or_default().offer(site, bundle, sample as usize);
        });
        let (mut reports, mut failures) = (Vec::new(), Vec::new());
        for (Class { suite, epoch }, Reservoir { held, chosen }) in classes {
            let mut class = DrillClass { suite: suite.to_owned(), epoch, held, opened: 0, failed: 0 };
            for (site, bundle) in chosen {
                match check_bundle(holder, &bundle) {
                    Ok(()) => class.opened += 1,
                    Err(reason) => {
                        class.failed += 1;
                        tracing::error!(site, %reason, "drill: the sealed key of a site cannot be used");
                        if let Ok(site) = site.parse::<DnsName>()
                            && failures.len() < MAX_FAILURES
                        {
                            failures.push(DrillFailure { site, reason: reason.to_string() });
                        }
                    }
                }
            }
            reports.push(class);
        }
        DrillReport { order, at: Timestamp::now(), classes: reports, failed: failures }
    }
}

/// Sealed keys that the same unseal key opens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Class {
    suite: &'static str,
    epoch: Option<Epoch>,
}

impl Class {
    /// By the newest key that is loaded: the epoch in a stanza is not signed.
    fn of(bundle: &Bundle, pool: &PoolName, loaded: &[KeyId]) -> Self {
        let sealed = bundle.sealed();
        let epoch = match sealed {
            Sealed::Envelope(envelope) => {
                let opens = |stanza: &&Stanza| stanza.pool == *pool && loaded.contains(&stanza.key_id);
                envelope.stanzas().iter().filter(opens).map(|stanza| stanza.epoch).max()
            }
            Sealed::Legacy(_) => None,
        };
        Self { suite: sealed.suite_name(), epoch }
    }
}

/// A uniform sample of all that was offered (Vitter, Algorithm R).
#[derive(Default)]
struct Reservoir {
    held: u64,
    chosen: Vec<(String, Bundle)>,
}

impl Reservoir {
    fn offer(&mut self, site: &str, bundle: Bundle, sample: usize) {
        self.held += 1;
        if self.chosen.len() < sample {
            self.chosen.push((site.to_owned(), bundle));
            return;
        }
        // Without randomness the first ones stay, which is no reason to fail.
        let random = getrandom::u64().unwrap_or(u64::MAX);
        if let Some(place) = self.chosen.get_mut((random % self.held) as usize) {
            *place = (site.to_owned(), bundle);
        }
    }
}

/// Failures that a report names.
const MAX_FAILURES: usize = 20;
