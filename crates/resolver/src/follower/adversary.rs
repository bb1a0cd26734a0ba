//! A certstore that is its own master, against the real follower, mirror and resolver.
//!
//! The adversary holds every byte that certstore ever had: all genuine documents, old and new, those of a certman whose
//! key was taken among them. It answers each request as chance says: another document of the kind, an older one, one with
//! its stanzas altered, nothing, 410, 503, a part of a snapshot, a deletion. It signs nothing.
//!
//! After each turn of the follower the edge must be in order ([`Watch::check`]), and once an honest store is back, it must
//! have everything. A failure prints its seed; `CERTSEAL_ADVERSARY_SEED=N` runs that sequence alone, and
//! `CERTSEAL_ADVERSARY_SEQUENCES=N` so many of them.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use bytes::Bytes;
use certseal_client::{Connection, StoreClient};
use certseal_seal::{Bundle, Envelope, SigningKey, Stanza, sha256};
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{
    BundleInfo, Checkpoint, Cursor, Epoch, Event, FeedPage, Kind, Problem, ProblemKind, Segment, Signed, Snapshot,
};
use http::{Request, Response};
use rustls::{SignatureScheme, sign::CertifiedKey};

use self::support::{Draft, Platform, event, name};
use super::{FollowError, Follower};
use crate::{Mirror, SealedResolver};

#[test]
fn whatever_certstore_does_an_edge_is_in_order_and_recovers() {
    let from_environment = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    if let Some(seed) = from_environment("CERTSEAL_ADVERSARY_SEED") {
        return run(seed);
    }
    let sequences = from_environment("CERTSEAL_ADVERSARY_SEQUENCES").unwrap_or(SEQUENCES);
    let base = u64::from(getrandom::u32().unwrap()) << 32;
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (base + thread..base + sequences).step_by(threads as usize) {
                    let ran = std::panic::catch_unwind(|| run(seed));
                    assert!(ran.is_ok(), "run it again with CERTSEAL_ADVERSARY_SEED={seed}");
                }
            });
        }
    });
}

/// A store that sends its readers back to the start for ever.
#[test]
fn a_feed_that_is_gone_each_time_withholds_nothing_unseen_and_is_asked_with_pauses() {
    let world = World::shared();
    let store = Arc::new(Mutex::new(Hostile { chance: Chance(1), mood: Mood::Gone }));
    let mut edge = Edge::new(&store);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let own = |event: &&Event| event.kind == Kind::Ring || event.kind == Kind::Checkpoint;
        let events: Vec<Event> = world.newest.iter().filter(own).cloned().collect();
        edge.watch.mirror.apply(&support::page(events)).unwrap();
        store.lock().unwrap().mood = Mood::Gone;
        edge.follower.begin_retry();
        // By name it has nothing, either.
        let nothing = Connection::in_process(|request| match request.uri().path() {
            "/v1/snapshot" => json(&Snapshot { cursor: HONEST, segments: Vec::new() }),
            "/v1/feed" => refuse(ProblemKind::Gone),
            _ => refuse(ProblemKind::NotFound),
        });
        edge.follower.store = StoreClient::new(nothing);
        edge.follower.fresh = false;
        let outcomes = [edge.follower.turn().await, edge.follower.turn().await, edge.follower.turn().await];
        assert!(outcomes[0].is_ok() && outcomes[1].is_ok(), "the first time is no fault of anybody's: {outcomes:?}");
        assert!(matches!(outcomes[2], Err(FollowError::Gone)), "without an error there is no pause: {outcomes:?}");
        assert_eq!(edge.follower.withheld.len(), 4, "two routes and two bundles: {:?}", edge.follower.withheld);
    });
}

/// One sequence: an edge and a store, which shows it what it shows no other edge; then, in some, an honest one.
fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Mutex::new(Hostile { chance: Chance(seed | 1 << 63), mood: Mood::Any }));
        let mut edge = Edge::new(&store);
        for _ in 0..TURNS {
            {
                let mut store = store.lock().unwrap();
                let moods = [Mood::Any, Mood::Any, Mood::Gone, Mood::Errors, Mood::Frozen, Mood::Genuine];
                store.mood = store.chance.pick(&moods);
            }
            edge.turn().await;
        }
        if store.lock().unwrap().chance.one_in(3) {
            store.lock().unwrap().mood = Mood::Honest;
            // A cursor of the adversary's own making ends with a snapshot.
            for _ in 0..HONEST_TURNS {
                edge.turn().await;
                edge.follower.begin_retry();
            }
            edge.watch.has_recovered();
        }
    });
}

/// An edge, and what is known of it.
struct Edge {
    follower: Follower,
    watch: Watch,
}

impl Edge {
    fn new(store: &Arc<Mutex<Hostile>>) -> Self {
        let world = World::shared();
        let dir = scratch();
        let mirror = world.platform.open(dir.path());
        let keys = [&world.platform.unseal_pem, &world.platform.next_pem].map(|pem| UnsealKey::from_pem(pem).unwrap());
        let resolver = SealedResolver::new(mirror.clone(), UnsealKeys::from_iter(keys), 1 << 20).unwrap();
        let store = store.clone();
        let store = StoreClient::new(Connection::in_process(move |request| store.lock().unwrap().answer(&request)));
        let watch =
            Watch { mirror: mirror.clone(), resolver, seen: BTreeMap::new(), ring: 0, accounts: 0, dated: None };
        // The directory goes now; the database's file stays as long as it is open.
        Self { follower: Follower::new(mirror, store), watch }
    }

    async fn turn(&mut self) {
        let answered = self.follower.turn().await.is_ok();
        self.watch.check(answered, &self.follower);
    }
}

/// In memory where the system has such a place: no crash is tried here.
fn scratch() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The state that an edge has shown so far, from which it may not go back.
struct Watch {
    mirror: Arc<Mirror>,
    resolver: Arc<SealedResolver>,
    /// Of each site: bundle version and newest epoch, route version.
    seen: BTreeMap<&'static str, Seen>,
    ring: u64,
    accounts: u64,
    dated: Option<jiff::Timestamp>,
}

#[derive(Default)]
struct Seen {
    bundle: u64,
    epoch: Option<Epoch>,
    route: u64,
    served: Option<Arc<CertifiedKey>>,
    enveloped: bool,
}

impl Seen {
    fn check_certificate(&mut self, site: &str, certified: &Arc<CertifiedKey>, mirror: &Mirror, thief_counts: bool) {
        // The resolver forgets what changes.
        if self.served.as_ref().is_some_and(|served| Arc::ptr_eq(served, certified)) {
            return;
        }
        let made = World::shared().bundles.iter().find(|made| made.leaf == *certified.cert[0]);
        let made = made.unwrap_or_else(|| panic!("{site}: a certificate that certman never stored"));
        assert_eq!(made.site, site, "the bundle of another site");
        assert!(made.for_pool, "{site}: a bundle that is not for this pool");
        assert!(thief_counts || !made.by_thief, "{site}: the thief's bundle still counts");
        assert!(made.version >= self.bundle, "{site} went back from {} to {}", self.bundle, made.version);
        let (bundle, _) = mirror.bundle(site).unwrap();
        let (epoch, enveloped) = (newest_epoch(&bundle), bundle.sealed().envelope().is_some());
        if made.version == self.bundle {
            assert!(epoch >= self.epoch, "{site} went back from {:?} to {epoch:?}", self.epoch);
        }
        assert!(enveloped || !self.enveloped, "{site} went back to a legacy key");
        (self.bundle, self.epoch, self.enveloped) = (made.version, epoch, enveloped);
        // The key opens, and is the certificate's.
        let signer = certified.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        signer.sign(b"what a client says").unwrap_or_else(|error| panic!("{site} has no key: {error}"));
    }
}

impl Watch {
    fn check(&mut self, answered: bool, follower: &Follower) {
        let world = World::shared();
        let ring = self.mirror.ring();
        let version = ring.as_ref().map_or(0, |ring| ring.version);
        assert!(version >= self.ring, "the ring went back from {} to {version}", self.ring);
        let ring_changed = version > self.ring;
        self.ring = version;
        let thief = world.taken.verifying_key().id();
        let thief_counts = ring.as_ref().is_none_or(|ring| ring.lists_issuer(thief));
        if ring_changed && !thief_counts {
            self.accounts = 0;
        }
        for site in SITES {
            let seen = self.seen.entry(site).or_default();
            if ring_changed && !thief_counts {
                // Documents that only the thief signed do not count from here on.
                *seen = Seen { enveloped: seen.enveloped, ..Seen::default() };
            }
            let route = self.mirror.route(&name(site));
            if let Some(route) = &route {
                assert_eq!(route.site, name(site), "another site's route");
                assert!(
                    route.version >= seen.route,
                    "the route of {site} went back: {} < {}",
                    route.version,
                    seen.route
                );
                assert!(world.has(Kind::Route, site, route.version, thief_counts), "nobody signed that route");
                seen.route = route.version;
            }
            let certified = self.resolver.certificate(&name(site));
            let left = world.says_left(site, self.mirror.version_mark(Kind::Route, site));
            if let Some(certified) = &certified {
                seen.check_certificate(site, certified, &self.mirror, thief_counts);
            }
            assert!(certified.is_some() || seen.served.is_none() || left, "{site} was taken down");
            seen.served = certified;
        }
        if let Some(accounts) = self.mirror.accounts() {
            assert!(accounts.version >= self.accounts, "the list of accounts went back");
            let is_ours = |print: &String| print == "ours" || (thief_counts && print == "theirs");
            assert!(accounts.thumbprints.iter().all(is_ours), "{:?}", accounts.thumbprints);
            self.accounts = accounts.version;
        }
        self.count_withheld(answered, follower, thief_counts);
    }

    /// Checks that changes of the newest checkpoint that are not here are counted, whatever the store answers.
    fn count_withheld(&mut self, answered: bool, follower: &Follower, thief_counts: bool) {
        let world = World::shared();
        let dated = self.mirror.checkpoint_issued_at();
        let is_new = dated != self.dated;
        self.dated = dated;
        let Some(checkpoint) =
            world.checkpoints.iter().find(|made| Some(made.issued_at) == dated && made.pool.as_str() == "eu")
        else {
            return assert!(dated.is_none(), "a checkpoint that certman never made for this pool");
        };
        // The thief's are dated first, and what only they list is awaited no more.
        if is_new || (!thief_counts && checkpoint.issued_at < support::checkpoint(HONEST_SINCE, &[]).issued_at) {
            return;
        }
        let lacking = checkpoint.changes.iter().filter(|change| {
            let mark = self.mirror.version_mark(change.kind, &change.name);
            let stays_away = change.kind == Kind::Bundle
                && world.says_left(&change.name, self.mirror.version_mark(Kind::Route, &change.name));
            mark < change.version && !stays_away
        });
        let lacking = lacking.count() as u64;
        let counted = self.mirror.awaited_count();
        assert!(counted >= lacking, "{lacking} changes are withheld, {counted} are counted");
        assert!(answered || lacking == 0 || !follower.withheld.is_empty(), "{lacking} changes are withheld in silence");
    }

    /// With an honest store, the edge has everything, and nothing of the adversary's is left.
    fn has_recovered(&self) {
        let world = World::shared();
        assert_eq!(self.mirror.ring().unwrap().version, world.newest_ring);
        for site in SITES {
            let (bundle, route) = world.newest(site);
            assert_eq!(self.mirror.route(&name(site)).map(|found| found.version), route, "the route of {site}");
            let found = self.mirror.bundle(site).map(|(_, info)| info.version);
            assert_eq!(found, bundle, "the bundle of {site}; refused: {:?}", self.mirror.refused(None, 9));
        }
        assert_eq!(self.mirror.accounts().unwrap().thumbprints, ["ours"]);
        assert_eq!(self.mirror.awaited(9), [], "what is awaited though the store is honest");
        assert_eq!(self.mirror.refused(None, 9), [], "what is refused though the store is honest");
    }
}

/// How the store answers in one turn.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    /// Anything, a document of the right kind more often than not.
    Any,
    /// No cursor is any good.
    Gone,
    Errors,
    /// There is never any news.
    Frozen,
    /// Genuine documents, old and new, where they belong.
    Genuine,
    /// As certstore is, with the newest of everything.
    Honest,
}

struct Hostile {
    chance: Chance,
    mood: Mood,
}

impl Hostile {
    fn answer(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let world = World::shared();
        let is_honest = self.mood == Mood::Honest;
        match (self.mood, parts.as_slice()) {
            (Mood::Gone, ["feed"]) => refuse(ProblemKind::Gone),
            (Mood::Errors, _) => refuse(ProblemKind::Internal),
            (Mood::Any, _) if self.chance.one_in(12) => {
                let kinds = [ProblemKind::Gone, ProblemKind::NotFound, ProblemKind::Internal, ProblemKind::Forbidden];
                refuse(self.chance.pick(&kinds))
            }
            (Mood::Honest, ["feed"]) => {
                let asked = request.uri().query().unwrap_or_default().to_owned();
                if !asked.contains(&format!("after={HONEST}")) {
                    return refuse(ProblemKind::Gone);
                }
                json(&FeedPage { cursor: HONEST, events: Vec::new(), end: true })
            }
            (Mood::Frozen, ["feed"]) => {
                let after = request.uri().query().and_then(|query| query.split("after=").nth(1)?.split('&').next());
                let cursor = after.and_then(|after| after.parse().ok()).unwrap_or(HONEST);
                json(&FeedPage { cursor, events: Vec::new(), end: true })
            }
            (_, ["feed"]) => {
                let count = self.chance.below(4);
                let events = (0..count).map(|_| self.event()).collect();
                // Of epochs of its own, so that an honest store knows none of them.
                let cursor = Cursor { epoch: [9; 16], seq: self.chance.below(1 << 30) };
                json(&FeedPage { cursor, events, end: !self.chance.one_in(3) })
            }
            (_, ["snapshot"]) => {
                let count = if is_honest { 1 } else { self.chance.below(3) };
                let segment = |n: u64| Segment { digest: sha256(&n.to_be_bytes()), octets: 1, events: 1 };
                let cursor = if is_honest { HONEST } else { Cursor { epoch: [9; 16], seq: 0 } };
                json(&Snapshot { cursor, segments: (0..count).map(segment).collect() })
            }
            (_, ["snapshot", _]) => {
                let events: Vec<Event> = if is_honest {
                    world.newest.clone()
                } else {
                    (0..self.chance.below(8)).map(|_| self.event()).collect()
                };
                json(&events)
            }
            (_, [kind, rest @ ..]) => {
                let kind = match *kind {
                    "routes" => Kind::Route,
                    "bundles" => Kind::Bundle,
                    "ring" => Kind::Ring,
                    "accounts" => Kind::Accounts,
                    "checkpoints" => Kind::Checkpoint,
                    "staples" => Kind::Staple,
                    _ => return refuse(ProblemKind::NotFound),
                };
                let wanted = rest.first().copied().unwrap_or_default();
                let pool = if is_honest { &world.newest } else { &world.all };
                let of_kind: Vec<&Event> = pool.iter().filter(|event| event.kind == kind).collect();
                let own: Vec<&Event> = of_kind.iter().copied().filter(|event| event.name == wanted).collect();
                let found = if self.mood == Mood::Any && self.chance.one_in(4) { of_kind } else { own };
                if found.is_empty() {
                    return refuse(ProblemKind::NotFound);
                }
                let found = found[self.chance.below(found.len() as u64) as usize];
                Response::new(Bytes::from(self.meddled(found).body.unwrap().0))
            }
            _ => refuse(ProblemKind::NotFound),
        }
    }

    /// A document as an event, or what the adversary makes of one.
    fn event(&mut self) -> Event {
        let world = World::shared();
        let chosen = &world.all[self.chance.below(world.all.len() as u64) as usize];
        let mut event = self.meddled(chosen);
        if self.mood == Mood::Any {
            match self.chance.below(12) {
                // In the place of another.
                0 => event.name = (*SITES.get(self.chance.below(4) as usize).unwrap_or(&"eu")).to_owned(),
                1 => event.version = self.chance.pick(&[0, 1, 2, 3, u64::MAX]),
                2 => event.body = None,
                3 => (event.deleted, event.body) = (true, None),
                _ => {}
            }
        }
        event
    }

    /// A bundle with other stanzas, which nobody signs.
    fn meddled(&mut self, chosen: &Event) -> Event {
        if self.mood != Mood::Any || chosen.kind != Kind::Bundle || !self.chance.one_in(3) {
            return chosen.clone();
        }
        let world = World::shared();
        let bundle = Bundle::parse(&chosen.body.as_ref().unwrap().0).unwrap();
        let Some(envelope) = bundle.sealed().envelope().cloned() else { return chosen.clone() };
        let foreign = || {
            let other = &world.bundles[world.bundles.len() - 1];
            envelope_of(&other.bytes).unwrap().stanzas()[0].clone()
        };
        let first = envelope.stanzas()[0].clone();
        let altered = match self.chance.below(4) {
            0 => envelope.with_stanza(Stanza { epoch: Epoch(u32::MAX), ..first }),
            1 => envelope.with_stanza(Stanza { epoch: Epoch(2), key_id: world.next_id(), ..first }),
            2 => envelope.with_stanza(foreign()),
            _ => {
                let mut bad = first;
                bad.sealed_key[0] ^= 1;
                envelope.with_stanza(bad)
            }
        };
        let Ok(altered) = altered else { return chosen.clone() };
        event(Kind::Bundle, &chosen.name, chosen.version, bundle.with_sealed(altered).to_bytes().unwrap())
    }
}

fn json(answer: &impl serde::Serialize) -> Response<Bytes> {
    Response::new(serde_json::to_vec(answer).unwrap().into())
}

fn refuse(kind: ProblemKind) -> Response<Bytes> {
    let body = serde_json::to_vec(&Problem::new(kind, "no")).unwrap().into();
    Response::builder().status(kind.status()).body(body).unwrap()
}

/// Everything that was ever signed, and what is the newest of it.
struct World {
    platform: Platform,
    /// certman's key before, which somebody took: the newest ring does not list it.
    taken: SigningKey,
    all: Vec<Event>,
    newest: Vec<Event>,
    newest_ring: u64,
    bundles: Vec<Made>,
    checkpoints: Vec<Checkpoint>,
}

/// A bundle that certman made.
struct Made {
    site: String,
    version: u64,
    leaf: Vec<u8>,
    by_thief: bool,
    for_pool: bool,
    bytes: Vec<u8>,
}

impl World {
    fn shared() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(Self::new)
    }

    fn new() -> Self {
        let mut platform = Platform::new();
        let taken = std::mem::replace(&mut platform.issuer, SigningKey::generate().unwrap());
        let honest = std::mem::replace(&mut platform.issuer, SigningKey::generate().unwrap());
        let up = Some("http://127.0.0.1:1");
        let mut all =
            vec![platform.ring(1, &[&taken]), platform.ring(2, &[&taken, &honest]), platform.ring(3, &[&honest])];
        let mut newest = vec![all[2].clone()];
        // The thief's, up to the highest version; then certman's own with a new key, from where it was before.
        for (issuer, versions) in [(&taken, [1, 2, u64::MAX]), (&honest, [2, 3, 4])] {
            platform.issuer = copy(issuer);
            let by_honest = std::ptr::eq(issuer, &honest);
            for version in versions {
                let is_newest = by_honest && version == 4;
                for (index, site) in SITES.into_iter().enumerate() {
                    // The last site has left with its newest route; the first had a legacy key at first.
                    let leaves = index == 2 && version == versions[2];
                    let route = platform.route(site, &[site], version, up.filter(|_| !leaves));
                    let bundle = match (index, version) {
                        (0, 1) => platform.legacy(site, version),
                        _ => platform.simple(site, version),
                    };
                    let elsewhere = platform
                        .bundle(Draft { pools: &["us"], ..platform.draft(site, Box::leak(Box::new([site])), version) });
                    let sealed_anew = rewrapped(&platform, &bundle);
                    if is_newest {
                        newest.push(route.clone());
                        if !leaves {
                            newest.push(sealed_anew.clone().unwrap());
                        }
                    }
                    all.extend([route, bundle, elsewhere]);
                    all.extend(sealed_anew);
                }
                let print = if by_honest { "ours" } else { "theirs" };
                let accounts = platform.accounts(version, &[print]);
                let changes: Vec<_> = SITES
                    .iter()
                    .take(2)
                    .flat_map(|site| [(Kind::Route, *site, version), (Kind::Bundle, *site, version)])
                    .collect();
                let dated = if by_honest { HONEST_SINCE + version } else { version.min(50) };
                let checkpoint = Checkpoint { version, ..support::checkpoint(dated, &changes) };
                let ours = support::signed(Kind::Checkpoint, "eu", version, issuer, &checkpoint);
                let other = Checkpoint {
                    pool: support::pool("us"),
                    ..support::checkpoint(dated + 500, &[(Kind::Route, "us.example", 9)])
                };
                let theirs = support::signed(
                    Kind::Checkpoint,
                    "us",
                    version,
                    issuer,
                    &Checkpoint { version: version.min(1 << 40) + 1, ..other },
                );
                if is_newest {
                    newest.extend([accounts.clone(), ours.clone()]);
                }
                all.extend([accounts, ours, theirs]);
            }
        }
        platform.issuer = honest;
        let bundles = all.iter().filter(|event| event.kind == Kind::Bundle).map(|event| made(event, &taken)).collect();
        let checkpoints = all.iter().filter(|event| event.kind == Kind::Checkpoint).map(document).collect();
        Self { platform, taken, newest_ring: 3, all, newest, bundles, checkpoints }
    }

    fn next_id(&self) -> certseal_wire::KeyId {
        UnsealKey::from_pem(&self.platform.next_pem).unwrap().key_id()
    }

    /// Whether somebody who counts signed such a record.
    fn has(&self, kind: Kind, site: &str, version: u64, thief_counts: bool) -> bool {
        let signer = |event: &Event| serde_json::from_slice::<Signed>(&event.body.as_ref().unwrap().0).unwrap().signer;
        self.all.iter().any(|event| {
            event.kind == kind
                && event.name == site
                && event.version == version
                && (thief_counts || signer(event) != self.taken.verifying_key().id())
        })
    }

    /// Whether a route of that version says that the site has left.
    fn says_left(&self, site: &str, version: u64) -> bool {
        site == SITES[2] && [4, u64::MAX].contains(&version)
    }

    /// The newest bundle and route of a site, for those who have everything.
    fn newest(&self, site: &str) -> (Option<u64>, Option<u64>) {
        if site == SITES[2] { (None, None) } else { (Some(4), Some(4)) }
    }
}

fn made(event: &Event, taken: &SigningKey) -> Made {
    let bytes = event.body.as_ref().unwrap().0.clone();
    let bundle = Bundle::parse(&bytes).unwrap();
    let info: BundleInfo = serde_json::from_slice(&bundle.statement().payload.0).unwrap();
    Made {
        site: event.name.clone(),
        version: event.version,
        leaf: bundle.chain()[0].clone(),
        by_thief: bundle.statement().signer == taken.verifying_key().id(),
        for_pool: info.pools.iter().any(|pool| pool.as_str() == "eu"),
        bytes,
    }
}

fn document<D: serde::de::DeserializeOwned>(event: &Event) -> D {
    let signed: Signed = serde_json::from_slice(&event.body.as_ref().unwrap().0).unwrap();
    serde_json::from_slice(&signed.payload.0).unwrap()
}

/// The same bundle, sealed to the pool's next key too; none for a legacy key.
fn rewrapped(platform: &Platform, event: &Event) -> Option<Event> {
    let bundle = Bundle::parse(&event.body.as_ref()?.0).unwrap();
    let envelope = bundle.sealed().envelope()?.clone();
    let next = UnsealKey::from_pem(&platform.next_pem).unwrap();
    let stanza = platform.unseal_keys().rewrap(&envelope, &next.recipient()).unwrap();
    let sealed = bundle.with_sealed(envelope.with_stanza(stanza).unwrap());
    Some(support::event(Kind::Bundle, &event.name, event.version, sealed.to_bytes().unwrap()))
}

fn envelope_of(bytes: &[u8]) -> Option<Envelope> {
    Bundle::parse(bytes).unwrap().sealed().envelope().cloned()
}

/// Of the keys that the ring lists.
fn newest_epoch(bundle: &Bundle) -> Option<Epoch> {
    let stanzas = bundle.sealed().envelope()?.stanzas().iter();
    stanzas.map(|stanza| stanza.epoch).filter(|epoch| [Epoch(1), Epoch(2)].contains(epoch)).max()
}

fn copy(key: &SigningKey) -> SigningKey {
    SigningKey::from_pem(&key.expose_pem().unwrap()).unwrap()
}

/// xorshift64* (Vigna 2016): a sequence is its seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

const SITES: [&str; 3] = ["a.example", "b.example", "c.example"];

/// Where an honest store's feed is.
const HONEST: Cursor = Cursor { epoch: [1; 16], seq: 100 };

/// When certman's checkpoints under its new key begin.
const HONEST_SINCE: u64 = 100;

const SEQUENCES: u64 = 20_000;
const TURNS: usize = 5;
const HONEST_TURNS: usize = 3;
