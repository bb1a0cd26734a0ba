//! A cache of what was loaded for sites, bounded in bytes, and never older than the mirror.

use quick_cache::{
    Weighter,
    sync::{Cache, GuardResult},
};

/// Values by site.
///
/// A value takes its place before it is loaded, and forgetting a site takes the place away. So a value that was loaded
/// from an older state of the mirror is not kept, whichever comes first: its end of loading, or the forgetting.
pub(crate) struct SiteCache<V: Weigh>(Cache<String, V, ByBytes>);

/// How much memory a value holds.
pub(crate) trait Weigh: Clone + Send + Sync + 'static {
    /// The value's octets, about, without the cache's own.
    fn bytes(&self) -> u64;
}

/// The effect of a change of the mirror on a cache.
pub(crate) trait Forget: Send + Sync {
    fn forget(&self, site: &str);
    fn forget_all(&self);
}

impl<V: Weigh> SiteCache<V> {
    /// A cache of at most `budget` octets, for values of `typical` octets.
    pub(crate) fn new(budget: u64, typical: u64) -> Self {
        let items = usize::try_from(budget / typical.max(1)).unwrap_or(usize::MAX).clamp(1, MAX_ITEMS);
        Self(Cache::with_weighter(items, budget, ByBytes))
    }

    /// The value of `site`, and whether it was there. One caller loads, others for the same site wait for it.
    pub(crate) fn get_or_load(&self, site: &str, load: impl FnOnce() -> V) -> (V, bool) {
        match self.0.get_value_or_guard(site, None) {
            GuardResult::Value(value) => (value, true),
            GuardResult::Guard(place) => {
                let value = load();
                // The place is gone when the site was forgotten meanwhile. This one caller still gets the value.
                let _ = place.insert(value.clone());
                (value, false)
            }
            // Without a limit to the waiting, this does not come.
            GuardResult::Timeout => (load(), false),
        }
    }
}

impl<V: Weigh> Forget for SiteCache<V> {
    fn forget(&self, site: &str) {
        self.0.remove(site);
    }

    fn forget_all(&self) {
        self.0.clear();
    }
}

#[derive(Clone)]
struct ByBytes;

impl<V: Weigh> Weighter<String, V> for ByBytes {
    fn weight(&self, site: &String, value: &V) -> u64 {
        OVERHEAD + site.len() as u64 + value.bytes()
    }
}

/// The cache's own octets for each value, about.
const OVERHEAD: u64 = 128;

/// Room is made for no more than this at first, however large the budget.
const MAX_ITEMS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for u64 {
        fn bytes(&self) -> u64 {
            1000
        }
    }

    #[test]
    fn a_value_that_was_loaded_before_its_site_changed_is_not_kept() {
        for forget in [|cache: &SiteCache<u64>| cache.forget("a"), |cache: &SiteCache<u64>| cache.forget_all()] {
            let cache = SiteCache::new(1 << 20, 1000);
            let load_old = || {
                forget(&cache);
                1
            };
            assert_eq!(cache.get_or_load("a", load_old), (1, false));
            assert_eq!(cache.get_or_load("a", || 2), (2, false), "the old value was kept");
            assert_eq!(cache.get_or_load("a", || 3), (2, true));
            forget(&cache);
            assert_eq!(cache.get_or_load("a", || 4), (4, false));
        }
    }

    #[test]
    fn the_budget_bounds_what_is_kept() {
        let cache = SiteCache::new(50_000, 1000);
        for site in 0..1000 {
            cache.get_or_load(&site.to_string(), || site);
        }
        assert!(cache.0.weight() <= 50_000 && cache.0.len() > 10, "{} octets", cache.0.weight());
    }
}
