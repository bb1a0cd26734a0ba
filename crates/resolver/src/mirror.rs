//! The mirror: an edge's own copy of what certstore has for its pool, verified, durable, and there before the store is.

mod applied;
mod batch;
mod meta;
mod refusal;
mod tables;
mod terms;

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use certseal_seal::{Bundle, RingMark, VerifyingKey, VerifyingKeys, accept_ring, ring_issuers, sha256};
use certseal_wire::{
    AcmeAccounts, BundleInfo, Change, Cursor, DnsName, Event, FeedPage, KeyRing, Kind, PoolName, Route, Signed, Staple,
};
use jiff::Timestamp;
use redb::{Database, backends::FileBackend};

pub use self::applied::{Applied, Refused};
pub(crate) use self::tables::SEVERAL;
use self::{
    batch::{Batch, own_name},
    tables::{Reader, Tables, begin_write},
    terms::Terms,
};
use crate::{
    KeyHolder, MirrorError,
    cache::{Forget, SiteCache, Weigh},
};

/// A local copy of a pool's bundles, routes and OCSP answers, of the key ring and of the platform's ACME accounts.
///
/// Nothing enters it unverified and nothing leaves it unsigned. Versions only go up: the mirror keeps a high-water mark
/// for every item, also for those that are gone. It opens in constant time, after a crash too.
///
/// Methods read and write files: call [`Mirror::apply`] away from an async reactor. Lookups are a few microseconds.
pub struct Mirror {
    // Before the database: it reads from it.
    state: RwLock<Arc<State>>,
    /// Held while a change is made; true when a change was committed that `state` does not show.
    behind: Mutex<bool>,
    database: Database,
    terms: Terms,
    routes: Arc<SiteCache<Option<Arc<Route>>>>,
    caches: Mutex<Vec<Weak<dyn Forget>>>,
    refused_total: AtomicU64,
    passed_over_total: AtomicU64,
    /// Whether what was refused may be good now: other unseal keys are loaded.
    retry_wanted: AtomicBool,
}

impl Mirror {
    /// Opens the mirror in the directory `path`, or begins one there. `security` is the security team's pinned key.
    ///
    /// # Errors
    /// [`MirrorError`]: among others when another process uses it, or it is of another pool.
    pub fn open(path: &Path, pool: PoolName, security: VerifyingKey) -> Result<Self, MirrorError> {
        let database = open_database(path)?;
        check_meta(&database, &pool)?;
        let state = Arc::new(State::load(&database, &security)?);
        let routes = Arc::new(SiteCache::new(ROUTE_CACHE_BYTES, ROUTE_BYTES));
        let as_cache: Arc<dyn Forget> = routes.clone();
        let mirror = Self {
            state: RwLock::new(state),
            behind: Mutex::new(false),
            database,
            terms: Terms::new(pool, security),
            caches: Mutex::new(vec![Arc::downgrade(&as_cache)]),
            routes,
            refused_total: AtomicU64::new(0),
            passed_over_total: AtomicU64::new(0),
            retry_wanted: AtomicBool::new(false),
        };
        mirror.read_new_kinds()?;
        Ok(mirror)
    }

    /// Has the feed read from its start when it has records that the release before did not know.
    fn read_new_kinds(&self) -> Result<(), MirrorError> {
        let passed_over = self.state().reader.meta(meta::PASSED_OVER)?;
        if meta::kinds(passed_over.as_deref()).iter().all(|kind| matches!(kind, Kind::Unknown(_))) {
            return Ok(());
        }
        tracing::info!("the release before passed over records that this one knows: reading the feed from its start");
        self.change(|_| None, |batch| batch.meet_new_kinds()).map(drop)
    }

    /// Takes a page of the feed, all in one transaction with its cursor. An item that is not good is refused, logged
    /// and remembered, and the others are taken.
    ///
    /// Events without a body are refused, unless what they announce is here already: fetch it by name before. Once there
    /// is a [`crate::SealedResolver`] over this mirror, bundles that its keys cannot open are refused too.
    ///
    /// # Errors
    /// [`MirrorError::Database`]; nothing was changed then, or everything was. [`MirrorError::Unavailable`]; nothing was.
    pub fn apply(&self, page: &FeedPage) -> Result<Applied, MirrorError> {
        self.change(|_| Some(page.cursor), |batch| batch.apply(&page.events))
    }

    /// Takes items that were fetched by name. The cursor stays.
    ///
    /// # Errors
    /// As of [`Mirror::apply`].
    pub fn apply_items(&self, items: &[Event]) -> Result<Applied, MirrorError> {
        self.change(|cursor| cursor, |batch| batch.apply(items))
    }

    /// Forgets refused items that certstore says there are none of, unless something of the name was accepted before and is
    /// to be there still.
    ///
    /// # Errors
    /// [`MirrorError::Database`]; nothing was changed then, or everything was.
    pub fn forgive_unknown(&self, items: &[Refused]) -> Result<(), MirrorError> {
        self.change(|cursor| cursor, |batch| batch.forgive_unknown(items)).map(drop)
    }

    /// Forgets how far the feed was read, and nothing else: it is then read from its start.
    ///
    /// # Errors
    /// [`MirrorError::Database`].
    pub fn reset_cursor(&self) -> Result<(), MirrorError> {
        self.change(|_| None, |batch| batch.apply(&[])).map(drop)
    }

    /// How far the feed was read.
    pub fn cursor(&self) -> Option<Cursor> {
        self.state().cursor
    }

    /// The pool whose mirror it is.
    pub fn pool(&self) -> &PoolName {
        &self.terms.pool
    }

    /// The key ring, once there is one that the security team signed.
    pub fn ring(&self) -> Option<Arc<KeyRing>> {
        self.state().ring.clone()
    }

    /// The issuers whose signatures count under the ring.
    pub fn issuers(&self) -> VerifyingKeys {
        self.state().issuers.clone()
    }

    /// The platform's own ACME accounts, once there is a list that an issuer signed.
    pub fn accounts(&self) -> Option<Arc<AcmeAccounts>> {
        self.state().accounts.clone()
    }

    /// The route that `host` leads to, by its own name or through the wildcard over it.
    pub fn route(&self, host: &DnsName) -> Option<Arc<Route>> {
        let sites = self.logged(self.state().reader.routes.sites_of(host))??;
        let route = |site| self.routes.get_or_load(site, || self.load_route(site)).0;
        let sites = sites.strip_prefix(SEVERAL).unwrap_or(&sites);
        sites.lines().filter_map(route).find(|route| route.names.covers(host))
    }

    /// Whether there is no bundle.
    pub fn is_empty(&self) -> bool {
        self.logged(self.state().reader.bundles.is_empty()).unwrap_or(true)
    }

    /// How many items are refused now: each keeps its name at an older version, or at none. Of very many, not all are
    /// remembered.
    pub fn refused_count(&self) -> u64 {
        self.logged(self.state().reader.refused_count()).unwrap_or(0)
    }

    /// How many items were refused since the mirror was opened.
    pub fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// How many items of kinds that this release does not know have come since the mirror was opened.
    pub fn passed_over_total(&self) -> u64 {
        self.passed_over_total.load(Ordering::Relaxed)
    }

    /// At most `limit` refused items, those after `after` in the order of kinds and names.
    pub fn refused(&self, after: Option<&Refused>, limit: usize) -> Vec<Refused> {
        let after = after.map(|refused| tables::item(refused.kind, &refused.name)).unwrap_or_default();
        let rows = self.logged(self.state().reader.refused(&after, limit)).unwrap_or_default();
        rows.into_iter().map(|(kind, name, reason)| Refused { kind, name, reason }).collect()
    }

    /// When the newest checkpoint of the pool was made; none before the first.
    pub fn checkpoint_issued_at(&self) -> Option<Timestamp> {
        self.state().checkpoint_issued_at
    }

    /// How many changes a checkpoint listed that have not come here. Those that remain at the end of the feed are
    /// withheld, or refused.
    pub fn awaited_count(&self) -> u64 {
        self.logged(self.state().reader.awaited_count()).unwrap_or(0)
    }

    /// At most `limit` of these changes, in the order of kinds and names.
    pub fn awaited(&self, limit: usize) -> Vec<Change> {
        self.logged(self.state().reader.awaited(limit)).unwrap_or_default()
    }

    /// The high-water mark of a record, whoever signed it; 0 without one.
    #[cfg(test)]
    pub(crate) fn version_mark(&self, kind: Kind, name: &str) -> u64 {
        self.logged(self.state().reader.mark(kind, name)).flatten().map_or(0, |mark| mark.version)
    }

    /// Whether the event announces what is here already, so that its body need not be fetched.
    pub(crate) fn holds(&self, event: &Event) -> bool {
        let Ok(name) = own_name(event) else { return false };
        let state = self.state();
        let mark = self.logged(state.reader.mark(event.kind, &name)).flatten();
        mark.is_some_and(|mark| {
            mark.version == event.version
                && match event.kind {
                    Kind::Bundle => {
                        let held = self.logged(state.reader.bundles.record(&name)).flatten();
                        held.is_some_and(|held| sha256(&held) == event.digest)
                    }
                    _ => mark.digest == event.digest,
                }
        })
    }

    /// The site whose certificate is for `name`; or after [`SEVERAL`] the sites, one a line, the newest claim first.
    pub(crate) fn bundle_sites(&self, name: &DnsName) -> Option<String> {
        self.logged(self.state().reader.bundles.sites_of(name))?
    }

    /// A site's bundle, verified once more. None, and a line in the log, when it is not genuine under today's ring.
    pub(crate) fn bundle(&self, site: &str) -> Option<(Bundle, BundleInfo)> {
        let state = self.state();
        let bytes = self.logged(state.reader.bundles.record(site))??;
        let verified =
            Bundle::parse(&bytes).and_then(|bundle| bundle.verify(&state.issuers).map(|info| (bundle, info)));
        verified
            .inspect_err(|error| tracing::error!(site, %error, "a bundle of the mirror does not count"))
            .ok()
            .filter(|(_, info)| info.site.as_str() == site)
    }

    /// A site's OCSP answer, verified once more; none that does not count under today's ring. Whether it holds now, and for the
    /// certificate that is served, is the caller's to see.
    pub(crate) fn staple(&self, site: &str) -> Option<Staple> {
        let state = self.state();
        let record = self.logged(state.reader.staple(site))??;
        let signed = serde_json::from_slice::<Signed>(&record).map_err(|error| error.to_string());
        signed
            .and_then(|signed| state.issuers.verify::<Staple>(&signed).map_err(|error| error.to_string()))
            .inspect_err(|error| tracing::warn!(site, error, "an OCSP answer of the mirror does not count"))
            .ok()
            .filter(|staple| staple.site.as_str() == site)
    }

    /// Shows every bundle to `look`, in the order of sites. A damaged bundle is left out.
    pub(crate) fn each_bundle(&self, mut look: impl FnMut(&str, Bundle)) {
        let state = self.state();
        let read = state.reader.bundles.each(|site, record| {
            if let Ok(bundle) = Bundle::parse(record) {
                look(site, bundle);
            }
        });
        self.logged(read);
    }

    /// How many bundles there are.
    pub fn bundle_count(&self) -> u64 {
        self.logged(self.state().reader.bundles.count()).unwrap_or(0)
    }

    /// Refuses from now on what `holder` cannot open. The first one counts: one process serves one edge.
    pub(crate) fn open_with(&self, holder: Arc<dyn KeyHolder>) {
        let _ = self.terms.key_holder.set(holder);
    }

    /// Whether what was refused is to be tried again; once.
    pub(crate) fn take_retry(&self) -> bool {
        self.retry_wanted.swap(false, Ordering::Relaxed)
    }

    /// Has the caches forget everything, and what was refused be tried again.
    pub(crate) fn forget_everything(&self) {
        self.retry_wanted.store(true, Ordering::Relaxed);
        self.forget(&Applied::default(), true);
    }

    /// Has `cache` forget what changes from now on.
    pub(crate) fn keep_fresh(&self, cache: Weak<dyn Forget>) {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.retain(|cache| cache.strong_count() > 0);
        caches.push(cache);
    }

    fn load_route(&self, site: &str) -> Option<Arc<Route>> {
        let state = self.state();
        let record = self.logged(state.reader.routes.record(site))??;
        let route = serde_json::from_slice::<Signed>(&record).map_err(|error| error.to_string());
        route
            .and_then(|signed| state.issuers.verify::<Route>(&signed).map_err(|error| error.to_string()))
            .inspect_err(|error| tracing::error!(site, error, "a route of the mirror does not count"))
            .ok()
            .filter(|route| route.site.as_str() == site)
            .map(Arc::new)
    }

    fn change(
        &self,
        cursor: impl FnOnce(Option<Cursor>) -> Option<Cursor>,
        work: impl FnOnce(Batch<'_>) -> Result<Applied, MirrorError>,
    ) -> Result<Applied, MirrorError> {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state();
        let transaction = begin_write(&self.database)?;
        let mut tables = Tables::open(&transaction)?;
        match cursor(before.cursor) {
            Some(cursor) => tables.meta.insert(meta::CURSOR, cursor.to_string().as_bytes()).map(drop),
            None => tables.meta.remove(meta::CURSOR).map(drop),
        }
        .map_err(redb::Error::from)?;
        let applied = work(Batch::new(tables, &self.terms, before.issuers.clone(), before.ring.clone()))?;
        drop(before);
        let was_behind = std::mem::replace(&mut *behind, true);
        transaction.commit().map_err(redb::Error::from)?;
        self.refused_total.fetch_add(applied.refused.len() as u64, Ordering::Relaxed);
        self.passed_over_total.fetch_add(applied.passed_over as u64, Ordering::Relaxed);
        let state = Arc::new(State::load(&self.database, &self.terms.security)?);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        // Only now: sites that are loaded from here on come from the new state.
        self.forget(&applied, was_behind || applied.ring_changed);
        *behind = false;
        Ok(applied)
    }

    fn forget(&self, applied: &Applied, everything: bool) {
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        for cache in caches.iter().filter_map(Weak::upgrade) {
            if everything {
                cache.forget_all();
            } else {
                applied.changed.iter().for_each(|site| cache.forget(site.as_str()));
            }
        }
    }

    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A lookup's answer; none, and a line in the log, when the database fails.
    fn logged<T>(&self, outcome: Result<T, redb::Error>) -> Option<T> {
        outcome.inspect_err(|error| tracing::error!(%error, "the mirror cannot be read")).ok()
    }
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("pool", &self.terms.pool).field("cursor", &self.cursor()).finish_non_exhaustive()
    }
}

/// One committed state of the mirror.
struct State {
    reader: Reader,
    ring: Option<Arc<KeyRing>>,
    issuers: VerifyingKeys,
    accounts: Option<Arc<AcmeAccounts>>,
    cursor: Option<Cursor>,
    checkpoint_issued_at: Option<Timestamp>,
}

impl State {
    fn load(database: &Database, security: &VerifyingKey) -> Result<Self, MirrorError> {
        let reader = Reader::open(database)?;
        let ring = stored(&reader, meta::RING)?.and_then(|signed: Signed| {
            accept_ring(&signed, security, RingMark::default())
                .inspect_err(|error| tracing::warn!(%error, "the ring of the mirror does not count"))
                .ok()
        });
        let issuers = ring.as_ref().map(ring_issuers).unwrap_or_default();
        let accounts = stored(&reader, meta::ACCOUNTS)?.and_then(|signed: Signed| {
            issuers
                .verify(&signed)
                .inspect_err(|error| tracing::warn!(%error, "the account list of the mirror does not count"))
                .ok()
        });
        let cursor = reader.meta(meta::CURSOR)?.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        let checkpoint_issued_at = reader.meta(meta::CHECKPOINT)?.and_then(|text| meta::timestamp(&text));
        let (ring, accounts) = (ring.map(Arc::new), accounts.map(Arc::new));
        Ok(Self { reader, ring, issuers, accounts, cursor, checkpoint_issued_at })
    }
}

fn stored(reader: &Reader, key: &str) -> Result<Option<Signed>, redb::Error> {
    Ok(reader.meta(key)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn open_database(path: &Path) -> Result<Database, MirrorError> {
    let unusable = |source| MirrorError::Unusable { path: path.to_owned(), source };
    let unopened = |source| MirrorError::Unopened { path: path.to_owned(), source: Box::new(source) };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(FILE))
        .map_err(unusable)?;
    let backend = FileBackend::new(file).map_err(unopened)?;
    redb::Builder::new().set_cache_size(PAGE_CACHE_BYTES).create_with_backend(backend).map_err(unopened)
}

/// Makes the tables of a new mirror, and those that one of an earlier release lacks; refuses one of another format or pool.
fn check_meta(database: &Database, pool: &PoolName) -> Result<(), MirrorError> {
    let lacks_tables = Reader::open(database).is_err();
    if lacks_tables {
        let transaction = begin_write(database)?;
        let mut tables = Tables::open(&transaction)?;
        if tables.meta(meta::FORMAT)?.is_none() {
            for (key, value) in [(meta::FORMAT, FORMAT), (meta::POOL, pool.as_str())] {
                tables.meta.insert(key, value.as_bytes()).map_err(redb::Error::from)?;
            }
        }
        drop(tables);
        transaction.commit().map_err(redb::Error::from)?;
    }
    let reader = Reader::open(database)?;
    let text = |key| Ok::<_, redb::Error>(String::from_utf8_lossy(&reader.meta(key)?.unwrap_or_default()).into_owned());
    let (format, owner) = (text(meta::FORMAT)?, text(meta::POOL)?);
    if format != FORMAT {
        return Err(MirrorError::Format { expected: FORMAT.to_owned(), found: format });
    }
    if owner != pool.as_str() {
        return Err(MirrorError::Pool { what: "a mirror", expected: pool.clone(), found: owner });
    }
    Ok(())
}

impl Weigh for Option<Arc<Route>> {
    fn bytes(&self) -> u64 {
        let names = |route: &Route| route.names.iter().map(|name| name.as_str().len() as u64 + 32).sum::<u64>();
        self.as_deref().map_or(0, |route| names(route) + ROUTE_BYTES)
    }
}

const FILE: &str = "mirror.redb";
const FORMAT: &str = "1";

/// Pages of the database that stay in memory.
const PAGE_CACHE_BYTES: usize = 64 * 1024 * 1024;

const ROUTE_CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// A route with one name, about.
const ROUTE_BYTES: u64 = 512;
